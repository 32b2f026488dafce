"""The figures of a report: three kinds of them, readable in black and white.

Colours are those of Okabe and Ito, told apart by the colour-blind; markers and dashes differ too.
The same content gives the same bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ROW = 0.19  # inches of a row of the legend
MANY = 60  # points of a line, beyond which none is marked
ACROSS = 4  # panels
MOST_TICKS = 8  # values of an axis that are labelled themselves,
CLOSEST = 1.3  # where each is so many times the one before
SHORT = 3  # an axis whose end is less than so many times its begin is nearly an even one
DIGITS = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))  # of round values
MARKERS = "osD^vPX*<>"
DASHES = ("-", "--", "-.", ":")
STYLE = {
    "svg.hashsalt": "medjax",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class Point(NamedTuple):
    """A value with its interval; open where it is somebody else's, without one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Series(NamedTuple):
    """One line, or one kind of dots."""

    name: str
    points: Sequence[Point]
    open: bool = False
    """Published, not measured here; of scatters, those that are not told apart."""
    fit: bool = False
    """A line through the series before it."""


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    levels: Sequence[tuple[str, Point]] = (),
    *,
    log_y: bool = False,
) -> Any:
    """Values over the logarithm of an amount, intervals as bars; `levels` as bands across."""
    figure, axes = _figure(6.4, 3.6)
    i = -1
    for own in series:
        i += not own.fit
        xs, ys = [p.x for p in own.points], [p.y for p in own.points]
        colour, dashes = COLOURS[i % 7], DASHES[i % 4]
        if own.fit:
            axes.plot(xs, ys, color=colour, linestyle=":", linewidth=1, label=own.name)
            continue
        marker = MARKERS[i % len(MARKERS)] if len(xs) < MANY else None
        style = {"color": colour, "linestyle": dashes, "marker": marker, "label": own.name}
        style |= {"markerfacecolor": "none"} if own.open else {}
        axes.errorbar(xs, ys, _bars(own.points), markersize=4, capsize=2, **style)
    for i, (name, level) in enumerate(levels, len(series)):
        colour = COLOURS[i % 7]
        axes.axhline(level.y, color=colour, linestyle=DASHES[i % 4], linewidth=1, label=name)
        if level.low is not None:
            axes.axhspan(level.low, level.high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    _tick_values(axes, {point.x for own in series for point in own.points})
    if log_y:
        axes.set_yscale("log")
    _finish(figure, axes, x_label, y_label)
    return figure


def dots(panels: Sequence[tuple[str, Sequence[Series]]]) -> Any:
    """A row a model, a panel a task: scores with intervals. A point's x is the score."""
    every = sorted((own for _, series in panels for own in series), key=lambda own: own.open)
    names = list(dict.fromkeys(own.name for own in every))
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    size = (2.2 + 1.9 * across, down * (0.9 + 0.26 * len(names)))
    figure, grid = _figure(*size, nrows=down, ncols=across, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (title, series) in zip(grid.flat, panels, strict=False):
        for own in series:
            place, fill = names.index(own.name), "none" if own.open else COLOURS[0]
            for point in own.points:
                if point.low is not None:
                    axes.plot([point.low, point.high], [place] * 2, color="#555555", linewidth=1.2)
                if not math.isnan(point.x):
                    axes.plot(
                        point.x, place, "o", markersize=5, markerfacecolor=fill, color=COLOURS[0]
                    )
        axes.set_title(title, fontsize=9)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def scatter(series: Sequence[Series], front: Sequence[Point], x_label: str, y_label: str) -> Any:
    """Scores over a cost, and the line of those that nothing cheaper is above."""
    figure, axes = _figure(6.4, 3.8)
    if front:
        xs, ys = [p.x for p in front], [p.y for p in front]
        axes.step(
            xs, ys, where="post", color="#999999", linewidth=1, zorder=0, label="Pareto front"
        )
    for i, own in enumerate(series):
        xs, ys = [p.x for p in own.points], [p.y for p in own.points]
        style = {"color": COLOURS[i % 7], "marker": MARKERS[i % len(MARKERS)], "label": own.name}
        if own.open:
            style |= {"color": "#999999", "marker": ".", "zorder": 0}
        axes.errorbar(xs, ys, _bars(own.points), linestyle="none", capsize=2, **style)
    axes.set_xscale("log")
    _tick_values(axes)
    _finish(figure, axes, x_label, y_label)
    return figure


def save(figure: Any, folder: Path, name: str) -> None:
    """Writes `NAME.svg` and `NAME.png`."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
        figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})


def _tick_values(axes: Any, wanted: Set[float] = frozenset()) -> None:
    """Labels what is wanted, else round values: the first that are few and far enough apart, on a
    short axis evenly spaced ones."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    round_ones = ({digit * 10.0**power for power in powers for digit in own} for own in DIGITS)
    even = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high) if high < SHORT * low else ()
    for values in (wanted, *round_ones, even):
        places = sorted(value for value in values if low <= value <= high)
        pairs = itertools.pairwise(places)
        apart = values is even or all(after >= CLOSEST * before for before, after in pairs)
        if 1 < len(places) <= MOST_TICKS and apart:
            labels = [_short(value) for value in places]
            if len(set(labels)) < len(labels):
                labels = [f"{value:.6g}" for value in places]
            axes.set_xticks(places, labels)
            axes.set_xticks([], minor=True)
            return


def _short(value: float) -> str:
    """Three digits and the prefix of a thousand, a million, ..."""
    power = max(0, min(5, int(math.log10(value) // 3))) if value else 0
    return f"{value / 1000**power:.3g}{' kMGTP'[power].strip()}"


def _bars(points: Sequence[Point]) -> Any:
    if any(point.low is None for point in points):
        return None
    below = [max(p.y - p.low, 0.0) for p in points]
    return [below, [max(p.high - p.y, 0.0) for p in points]]


def _figure(width: float, height: float, **grid: Any) -> tuple[Any, Any]:
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no state of the process is touched

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(**grid)


def _finish(figure: Any, axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#eeeeee", linewidth=0.6)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.set_figheight(figure.get_figheight() + ROW * -(-len(labels) // 2))
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False
        )
