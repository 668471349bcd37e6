"""Counters, gauges and histograms: plain numbers, since every request pays for them.

A metric has a series for each combination of its labels' values. A series holds a row of numbers:
one for a counter or a gauge; for a histogram how many values fell into each bucket, and at the
end their sum. Code that counts often keeps the series: `PASSED = FENCES.labels("passed")`, then
`PASSED.inc()`.

Values of labels come from this code alone, never from a client: no username and no date is among
them, and the number of series is bounded.
"""

import math
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

Labels = tuple[str, ...]
Row = list[float]
#: The rows of every metric, by its name.
Snapshot = dict[str, dict[Labels, Row]]

#: Seconds for which a gauge shows what it was set to: what was true then need not be now.
LIFETIME = 60.0


class Series:
    __slots__ = ("row",)

    def __init__(self, row: Row) -> None:
        self.row = row


class CounterSeries(Series):
    __slots__ = ()

    def inc(self, amount: float = 1) -> None:
        self.row[0] += amount


class GaugeSeries(Series):
    """A gauge's series, which is set, or read from the function that `watch` was given.

    One that was set is shown for LIFETIME. It takes its time from `refresh`, so that `set` need not
    ask the clock.
    """

    __slots__ = ("_expires", "_read", "_was_set", "shown")

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self._read: Callable[[], float] | None = None
        self._was_set = False
        self._expires = math.inf
        self.shown = True

    def set(self, value: float) -> None:
        self.row[0] = value
        self._was_set = True

    def watch(self, read: Callable[[], float]) -> None:
        """Let `refresh` take the figure from `read`."""
        self._read = read

    def refresh(self, now: float) -> None:
        if self._read is not None:
            self.set(float(self._read()))
        if self._was_set:
            self._was_set = False
            self._expires = now + LIFETIME
        self.shown = now < self._expires


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


class Metric(ABC, Generic[AnySeries]):
    """A metric: a name, its documentation, and a series for each combination of label values.

    `combine` makes one figure of those of several workers: their sum, or the greatest.
    A series is shown once `labels` was called for it. `start` are the label values of those that
    are shown, as 0, before the first event: a rate misses an event that makes a series appear.
    """

    type_name = ""
    combine: Callable[[Sequence[float]], float] = sum

    def __init__(
        self, name: str, documentation: str, *label_names: str, start: Sequence[Labels] = ()
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = label_names
        self._series: dict[Labels, AnySeries] = {}
        registry[name] = self
        for values in start:
            self.labels(*values)

    def labels(self, *values: str) -> AnySeries:
        """The series of these values, in the order of the labels' names; always the same one."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = self._new()
        return series

    @property
    def rows(self) -> dict[Labels, Row]:
        return {values: series.row for values, series in self._series.items()}

    def refresh(self, now: float) -> None:
        """Bring the rows up to date; `now` is the monotonic clock's."""

    @abstractmethod
    def _new(self) -> AnySeries:
        """A series of zeros."""


#: Every metric, by its name, in the order in which they are shown.
registry: dict[str, Metric[Any]] = {}


class Counter(Metric[CounterSeries]):
    """A figure that only grows."""

    type_name = "counter"

    def _new(self) -> CounterSeries:
        return CounterSeries([0])


class Gauge(Metric[GaugeSeries]):
    """A figure of the moment; the figure of a worker that is gone does not count."""

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

    @property
    def rows(self) -> dict[Labels, Row]:
        return {values: series.row for values, series in self._series.items() if series.shown}

    def refresh(self, now: float) -> None:
        for series in self._series.values():
            series.refresh(now)

    def _new(self) -> GaugeSeries:
        return GaugeSeries([0])


class Histogram(Metric[HistogramSeries]):
    """Values by buckets. `bounds` are the upper bounds of these, inclusive, in ascending order."""

    type_name = "histogram"

    def __init__(
        self,
        name: str,
        documentation: str,
        *label_names: str,
        bounds: Sequence[float],
        start: Sequence[Labels] = (),
    ) -> None:
        self.bounds = bounds
        super().__init__(name, documentation, *label_names, start=start)

    def _new(self) -> HistogramSeries:
        # One bucket more, for values beyond the last bound, and the sum.
        return HistogramSeries([0] * (len(self.bounds) + 2), self.bounds)


def snapshot(clock: Callable[[], float] = time.monotonic) -> Snapshot:
    """All figures of this process, as they are now."""
    now = clock()
    for metric in registry.values():
        metric.refresh(now)
    return {name: metric.rows for name, metric in registry.items()}


def restore(past: Mapping[str, Mapping[Labels, Row]]) -> None:
    """Add the figures of a process that is gone, but for gauges, so that counters never go back."""
    for name, rows in past.items():
        metric = registry.get(name)
        if metric is None or isinstance(metric, Gauge):
            continue
        for values, numbers in rows.items():
            row = metric.labels(*values).row
            for i, number in enumerate(numbers):
                row[i] += number
