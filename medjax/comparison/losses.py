"""The parts about losses of pretraining: over what was read, what a loss takes, over parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medjax.comparison import figures
from medjax.comparison.collect import Comparison
from medjax.comparison.efficiency import Curve, amounts_table, middle
from medjax.comparison.figures import Point, Series
from medjax.comparison.report import Picture, Section, Table
from medjax.comparison.runs import Loss, Pretraining
from medjax.comparison.tables import count, file_name, flops
from medjax.config import UserError
from medjax.scoring.bootstrap import Draws, interval
from medjax.scoring.lineage import Stage
from medjax.scoring.scaling import FEWEST, fit_scaling, isoflop

AXES = {"tokens": "tokens", "bytes": "bytes of text", "flops": "FLOPs"}
REACHED = {"tokens": "tokens", "flops": "FLOPs"}  # whose amounts to a loss or score are given
NEAR = 0.1  # nats a token from the unigram plateau within which a model has hardly left it


class Lineage(NamedTuple):
    """Losses as one curve: of a run as it went on, or of several runs at their ends."""

    name: str
    points: list[tuple[Pretraining, Loss]]

    def curve(self, axis: str) -> list[tuple[float, Loss]]:
        """(tokens, bytes or FLOPs read until then, earlier runs included; the loss)."""
        return sorted(
            ((_amount(run, loss.step, axis), loss) for run, loss in self.points),
            key=lambda point: point[0],
        )


def losses(of: Comparison) -> list:
    """Of each kind of loss: curves, the ends of runs, what a loss takes."""
    blocks: list = []
    for number, ((unit, notes), runs) in enumerate(kinds(of)):
        own = lineages(of, runs)
        where = f" on {notes}" if notes else ""
        caption = f"Validation, {unit}{where}; losses of another kind cannot be compared with these"
        for axis, label in AXES.items():
            series = [Series(line.name, [_point(*own) for own in line.curve(axis)]) for line in own]
            figure = figures.lines(series, f"{label} read, earlier runs included", unit)
            name = f"loss_{file_name(unit)}_{axis}" + (f"_{number}" if number else "")
            blocks.append(Picture(name, caption, figure))
        header = ["run", "parameters", "tokens", "text", "FLOPs", "tokens a byte", unit]
        rows = [_row(run) for run in runs]
        header += ["nats a predicted token", "unigram plateau"]
        blocks.append(Table(f"At the end, {unit}{where}", header, rows))
        near = [run.name for run in runs if run.plateau and run.token_loss > run.plateau - NEAR]
        if near:
            blocks.append(
                "Hardly past the unigram plateau of what they are validated on, so that of such "
                f"text they know little but how frequent words are: {', '.join(near)}."
            )
        blocks += _reached(own, unit, where)
    return blocks


def kinds(of: Comparison) -> list[tuple[tuple[str, str], list[Pretraining]]]:
    """Runs whose losses can be compared."""
    found = sorted({run.kind for run in of.pretraining})
    return [(kind, [run for run in of.pretraining if run.kind == kind]) for kind in found]


def lineages(of: Comparison, runs: Sequence[Pretraining]) -> list[Lineage]:
    """The curves that `lineages` declares, of the runs' ends; of the others each run's own."""
    found, left = [], {run.name: run for run in runs}
    for name, models in of.config.lineages.items():
        own = [left.pop(model) for model in models if model in left]
        if own:
            found.append(Lineage(name, [(run, run.losses[-1]) for run in own]))
    for run in left.values():
        found.append(Lineage(run.name, [(run, loss) for loss in run.losses if loss.step]))
    return found


def _amount(run: Pretraining, step: int, axis: str) -> float:
    def amount(stage: Stage) -> float:
        return stage.flops if axis == "flops" else sum(getattr(stage, axis).values())

    return sum(map(amount, run.earlier)) + amount(run.stage) * step / run.steps


def _point(x: float, loss: Loss) -> Point:
    if loss.draws is None:
        return Point(x, loss.value)
    own = interval(loss.draws)
    return Point(x, own.mean, own.low, own.high)


def _row(run: Pretraining) -> list[str]:
    """What it read, earlier runs included, and its last loss."""
    stages = [*run.earlier, run.stage]
    read: Counter[str] = Counter()
    for stage in stages:
        read.update(stage.tokens)
    size = sum(sum(stage.bytes.values()) for stage in stages)
    last = _point(0.0, run.losses[-1])
    bounds = "" if last.low is None else f" [{last.low:.3f}, {last.high:.3f}]"
    return [
        run.name,
        count(run.stage.parameters),
        ", ".join(f"{count(value)} {name}" for name, value in read.items()),
        f"{size / 1e6:,.1f} MB",
        flops(sum(stage.flops for stage in stages)),
        f"{read.total() / size:.3f}" if size else "",
        f"{last.y:.3f}{bounds}",
        f"{run.token_loss:.3f}",
        "" if run.plateau is None else f"{run.plateau:.3f}",
    ]


def _reached(own: Sequence[Lineage], unit: str, where: str) -> list:
    """What the loss takes at which the middle lineage ends, and the ratio to what it took."""
    own = [line for line in own if len(line.points) > 1]
    if len(own) < 2 or any(loss.draws is None for line in own for _, loss in line.points):
        return []
    lines = {
        line.name: {name: _rising(line.curve(axis)) for axis, name in REACHED.items()}
        for line in own
    }
    reference = middle({name: curves["tokens"] for name, curves in lines.items()})
    loss = -lines[reference]["tokens"][-1][1].values.mean()
    header, *rows = amounts_table(lines, reference)
    what = f"What {loss:.3f} {unit}{where}, where {reference} ends, takes [95% interval]"
    return [Table(what, header, rows)]


def _rising(curve: Sequence[tuple[float, Loss]]) -> Curve:
    """A loss as a score, of which more is better."""
    return [
        (amount, Draws(-loss.draws.values, -loss.draws.drawn, loss.draws.clusters))
        for amount, loss in curve
    ]


def scaling(of: Comparison) -> Section:
    """Fits of loss over parameters and tokens, one for each objective, notes and text read."""
    blocks: list = []
    refused: dict[str, list[str]] = {}
    groups = [(*kind, runs, text) for kind, runs in kinds(of) for text in _texts(runs)]
    for number, (unit, notes, runs, text) in enumerate(groups):
        what = f"{unit}, {text} text" + (f" on {notes}" if notes else "")
        name = f"scaling_{file_name(unit)}" + (f"_{number}" if number else "")
        try:
            blocks += _fit(of, [run for run in runs if run.text == text], unit, what, name)
        except UserError as error:
            refused.setdefault(str(error), []).append(what)
    blocks += [f"{'; '.join(names)}: {why}." for why, names in refused.items()]
    if not blocks:
        blocks = [f"No runs of pretraining were named; a fit needs {FEWEST} of three sizes."]
    return Section("Scaling", blocks)


def _texts(runs: Sequence[Pretraining]) -> list[str]:
    return sorted({run.text for run in runs})


def _fit(of: Comparison, runs: Sequence[Pretraining], unit: str, what: str, name: str) -> list:
    """The law of runs that differ in size and tokens alone, drawn, and what it predicts.

    Raises:
      UserError: there are too few runs.
    """
    sizes = np.array([run.stage.parameters for run in runs], float)
    read = np.array([run.lineage_tokens + sum(run.stage.tokens.values()) for run in runs])
    last = np.array([run.losses[-1].value for run in runs])
    fit = fit_scaling(sizes, read, last)
    law, residuals = fit.scaling, np.abs(fit.residuals)
    series = []
    for size in np.unique(sizes):
        chosen = [Point(d, y) for n, d, y in zip(sizes, read, last, strict=True) if n == size]
        series.append(Series(f"{count(size)} parameters", sorted(chosen)))
        line = np.geomspace(read.min(), read.max(), 50)
        fitted = map(Point, line.tolist(), law.loss(np.full(50, size), line).tolist())
        series.append(Series(f"fit, {count(size)} parameters", list(fitted), fit=True))
    figure = figures.lines(series, "tokens read", unit)
    blocks = [
        f"{what}: L = {law.e:.3f} + {law.a:.3g} / N^{law.alpha:.3f} + {law.b:.3g} / "
        f"D^{law.beta:.3f} over {len(runs)} runs (Hoffmann et al. 2022, robust in the logarithm); "
        f"residuals of the logarithms {residuals.mean():.4f} on average, {residuals.max():.4f} at "
        "most.",
        Picture(name, f"Last losses of the runs of the fit, {what}", figure),
    ]
    rows = []
    for asked in of.config.predict:
        loss, low, high, beyond = fit.predict(asked.parameters, asked.tokens)
        shown = f"{loss:.3f} [{low:.3f}, {high:.3f}]"
        note = "extrapolated" if beyond else ""
        rows.append([count(asked.parameters), count(asked.tokens), shown, note])
    if rows:
        blocks.append(Table(f"Predicted, {what}", ["parameters", "tokens", unit, ""], rows))
    profiles = isoflop(sizes, 6 * sizes * read, last)
    if profiles:
        rows = [[f"{p.flops:.2e}", count(p.parameters), f"{p.loss:.3f}"] for p in profiles]
        header = ["FLOPs", "best parameters", "loss there"]
        blocks.append(Table(f"IsoFLOP profiles, {what}", header, rows))
    return blocks
