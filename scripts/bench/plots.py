"""The plots of the document, as SVG that is read on light and on dark pages alike."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#808890"
#: Of a middle lightness, and told apart without red and green.
COLOURS = ("#2f81d7", "#e08a1e", "#8f6fd6", "#2da58d", "#d0578b", "#9c8a2e")

mpl.rcParams |= {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "hello",  # the same figures make the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "axes.titlesize": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    **dict.fromkeys(
        (
            *("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"),
            *("xtick.color", "ytick.color", "grid.color"),
        ),
        GREY,
    ),
}

#: {name: {part: figure}}
Bars = dict[str, dict[str, float]]
#: {name: [(x, y), …]}
Lines = dict[str, list[tuple[float, float]]]


def bars(file: Path, panels: dict[str, Bars], label: str) -> None:
    """Stacked bars, one panel beside the other; the names are those of the first."""
    names = list(next(iter(panels.values())))[::-1]
    figure, axes = _figure(len(panels), 0.8 + 0.24 * len(names), sharey=True)
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        parts = list(dict.fromkeys(part for figures in panel.values() for part in figures))
        left = [0.0] * len(names)
        for part in parts:
            widths = [panel.get(name, {}).get(part, 0.0) for name in names]
            ax.barh(names, widths, left=left, height=0.7, label=part)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, total in enumerate(left):
            if total:
                ax.annotate(f" {total:.0f}", (total, y), va="center", fontsize=8)
        ax.margins(x=0.12)
        ax.set(title=title, xlabel=label)
        ax.grid(axis="x")
        ax.set_axisbelow(True)
    _legend(figure, axes)
    _save(figure, file)


def lines(file: Path, panels: dict[str, Lines], x: str, y: str) -> None:
    """Lines over a logarithmic x, one panel beside the other."""
    figure, axes = _figure(len(panels), 3.0)
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        for name, points in panel.items():
            if points:
                ax.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        ax.set(title=title, xlabel=x, xscale="log")
        ax.set_ylim(bottom=0)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
        ax.grid()
    axes[0].set_ylabel(y)
    _legend(figure, axes)
    _save(figure, file)


def _figure(panels: int, height: float, **options: bool) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, **options)
    return figure, axes[0]


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One for all panels, above them."""
    entries = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries, loc="outside upper center", ncols=len(entries))


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, transparent=True, metadata={"Date": None, "Creator": None})
