"""Counters, gauges and histograms: plain numbers, since every request pays for them.

A metric has a series for each combination of its labels' values. A series holds a row of numbers:
one for a counter or a gauge; for a histogram how many values fell into each bucket, and at the
end their sum. Whoever counts often keeps the series: `PASSED = FENCES.labels("passed")`, then
`PASSED.inc()`.

Values of labels come from this code and from settings' names alone, never from a client: there is
no username and no date among them, and no more series than can be counted.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

Labels = tuple[str, ...]
Row = list[float]
#: The rows of every metric, by its name.
Snapshot = dict[str, dict[Labels, Row]]


class Series:
    __slots__ = ("row",)

    def __init__(self, row: Row) -> None:
        self.row = row


class CounterSeries(Series):
    __slots__ = ()

    def inc(self, amount: float = 1) -> None:
        self.row[0] += amount


class GaugeSeries(Series):
    """It is set, or asked for by what `watch` was given."""

    __slots__ = ("_read",)

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self._read: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        self.row[0] = value

    def watch(self, read: Callable[[], float]) -> None:
        """Ask `read` whenever the figure is wanted."""
        self._read = read

    def refresh(self) -> None:
        if self._read is not None:
            self.set(float(self._read()))


class HistogramSeries(Series):
    __slots__ = ("_bounds",)

    def __init__(self, row: Row, bounds: Sequence[float]) -> None:
        super().__init__(row)
        self._bounds = bounds

    def observe(self, value: float) -> None:
        row = self.row
        row[bisect_left(self._bounds, value)] += 1
        row[-1] += value


AnySeries = TypeVar("AnySeries", bound=Series)


class Metric(Generic[AnySeries]):
    """`combine` says what the figures of several workers make: their sum, or the greatest.

    A series is shown once somebody has asked for it by `labels`.
    """

    type_name = ""
    combine: Callable[[Sequence[float]], float] = sum

    def __init__(self, name: str, documentation: str, *label_names: str) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = label_names
        self._series: dict[Labels, AnySeries] = {}
        registry[name] = self

    def labels(self, *values: str) -> AnySeries:
        """The series of these values, in the order of the labels' names; always the same one."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = self._new()
        return series

    @property
    def rows(self) -> dict[Labels, Row]:
        return {values: series.row for values, series in self._series.items()}

    def refresh(self) -> None:
        """Bring the rows up to date."""

    def _new(self) -> AnySeries:
        raise NotImplementedError


#: Every metric, by its name, in the order in which they are shown.
registry: dict[str, Metric[Any]] = {}


class Counter(Metric[CounterSeries]):
    """`start` are values that are shown before the first event, so that a rate sees it."""

    type_name = "counter"

    def __init__(
        self, name: str, documentation: str, *label_names: str, start: Sequence[Labels] = ()
    ) -> None:
        super().__init__(name, documentation, *label_names)
        for values in start:
            self.labels(*values)

    def _new(self) -> CounterSeries:
        return CounterSeries([0])


class Gauge(Metric[GaugeSeries]):
    """A figure of now. Of a worker that is gone nothing is left."""

    type_name = "gauge"

    def __init__(
        self,
        name: str,
        documentation: str,
        *label_names: str,
        combine: Callable[[Sequence[float]], float] = sum,
    ) -> None:
        super().__init__(name, documentation, *label_names)
        self.combine = combine

    def refresh(self) -> None:
        for series in self._series.values():
            series.refresh()

    def _new(self) -> GaugeSeries:
        return GaugeSeries([0])


class Histogram(Metric[HistogramSeries]):
    """`bounds` are the upper bounds of its buckets, inclusive, in ascending order."""

    type_name = "histogram"

    def __init__(
        self, name: str, documentation: str, *label_names: str, bounds: Sequence[float]
    ) -> None:
        super().__init__(name, documentation, *label_names)
        self.bounds = bounds

    def _new(self) -> HistogramSeries:
        # One number beyond the last bound, and the sum.
        return HistogramSeries([0] * (len(self.bounds) + 2), self.bounds)


def snapshot() -> Snapshot:
    """All figures of this process, as they are now."""
    for metric in registry.values():
        metric.refresh()
    return {name: metric.rows for name, metric in registry.items()}


def restore(past: Mapping[str, Mapping[Labels, Row]]) -> None:
    """Go on from the figures of a process that is gone: what only grows, grows on."""
    for name, rows in past.items():
        metric = registry.get(name)
        if metric is None or isinstance(metric, Gauge):
            continue
        for values, numbers in rows.items():
            row = metric.labels(*values).row
            for i, number in enumerate(numbers):
                row[i] += number
