"""The sections with curves: over what was read, over parameters, over labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medjax.comparison import figures
from medjax.comparison.accounts import Account, account
from medjax.comparison.collect import Comparison, Task, is_contaminated
from medjax.comparison.efficiency import Amount, amount_to_reach, ratio_to_reach
from medjax.comparison.figures import Point, Series
from medjax.comparison.report import Picture, Section, Table
from medjax.comparison.runs import Pretraining, Run
from medjax.comparison.tables import count, file_name, flops
from medjax.config import UserError
from medjax.scoring.bootstrap import Draws, interval
from medjax.scoring.lineage import Stage
from medjax.scoring.scaling import FEWEST, fit_scaling, isoflop

CURVES, LEVELS = 8, 3  # fine-tuned and prompted models in a picture of learning curves, the best
AXES = {"tokens": "tokens", "bytes": "bytes of text", "flops": "FLOPs"}


class Lineage(NamedTuple):
    """Runs of one task whose models are points of one curve over tokens."""

    name: str
    points: list[tuple[Run, Account]]
    """From the fewest tokens on."""

    def curve(self, of: str, metric: str) -> list[tuple[float, Draws]]:
        """Score over pretraining tokens, bytes or FLOPs."""
        return [(_amount(own, of), run.draws(metric)) for run, own in self.points]


def _amount(own: Account, of: str) -> float:
    return {"tokens": sum(own.tokens.values()), "bytes": own.bytes, "flops": own.pretraining}[of]


def tokens(of: Comparison) -> Section:
    """Loss and scores over what was read, and what a score takes."""
    blocks: list = []
    for unit in sorted({run.unit for run in of.pretraining}):
        own = [run for run in of.pretraining if run.unit == unit]
        name = f"loss_{file_name(unit)}"
        caption = f"Validation, {unit}. Curves of different objectives cannot be compared."
        for axis in AXES:
            series = [Series(run.name, _losses(run, axis)) for run in own]
            figure = figures.lines(series, f"{AXES[axis]} read, earlier runs included", unit)
            blocks.append(Picture(f"{name}_{axis}", caption, figure))
        rows = [_loss_row(run) for run in own]
        header = ["run", "parameters", "tokens", "text", "FLOPs", "tokens a byte", unit]
        blocks.append(Table(f"At the end, {unit}", header, rows))
    for task in of.tasks:
        found = lineages(of, task)
        if not found:
            continue
        for axis in AXES:
            series = [Series(own.name, _points(own.curve(axis, task.metric))) for own in found]
            figure = figures.lines(series, f"{AXES[axis]} of pretraining", task.metric)
            name = f"{file_name(task.name)}_over_{axis}"
            caption = f"{task.name}: {task.metric} after fine-tuning, 95% intervals"
            blocks.append(Picture(name, caption, figure))
        blocks += _reached(of, task, found)
    if not blocks:
        blocks = [
            "No lineage has two checkpoints that were fine-tuned on one task, and no run of "
            "pretraining was named: fine-tune several `steps`, or name runs in `pretraining`."
        ]
    return Section("Token efficiency", blocks)


def _losses(run: Pretraining, axis: str) -> list[Point]:
    def amount(stage: Stage) -> float:
        return stage.flops if axis == "flops" else sum(getattr(stage, axis).values())

    before, own = sum(map(amount, run.earlier)), amount(run.stage)
    return [Point(before + own * step / run.steps, loss) for step, loss in run.losses if step]


def _loss_row(run: Pretraining) -> list[str]:
    own, size = sum(run.stage.tokens.values()), sum(run.stage.bytes.values())
    domains = ", ".join(f"{count(value)} {name}" for name, value in run.stage.tokens.items())
    per_byte = f"{own / size:.3f}" if size else ""
    text = f"{size / 1e6:,.1f} MB"
    loss = f"{run.losses[-1][1]:.3f}"
    return [
        run.name,
        count(run.stage.parameters),
        domains,
        text,
        flops(run.stage.flops),
        per_byte,
        loss,
    ]


def lineages(of: Comparison, task: Task) -> list[Lineage]:
    """Curves with two points or more."""
    groups: dict[str, list[tuple[Run, Account]]] = {}
    named = {model: name for name, own in of.config.lineages.items() for model in own}
    for run in task.runs:
        own = account(run, {})
        if not own.known or run.prompted or not run.history or is_contaminated(run, task):
            continue
        name = named.get(run.model) if named else run.history[-1].name
        if name:
            groups.setdefault(name, []).append((run, own))
    found = []
    for name, points in groups.items():
        by_tokens = {_amount(own, "tokens"): (run, own) for run, own in points}
        if len(by_tokens) > 1:
            found.append(Lineage(name, [by_tokens[amount] for amount in sorted(by_tokens)]))
    return found


def _reached(of: Comparison, task: Task, found: Sequence[Lineage]) -> list:
    """Tokens and FLOPs to a score, and the ratio of each lineage to the first."""
    if task.sign < 0:
        return [
            f"{task.name}: {task.metric} is better when lower; amounts to a score are not given"
        ]
    target = of.config.target.get(task.name)
    if target is None:  # what the weakest of them surely reaches at its end
        target = min(interval(own.points[-1][0].draws(task.metric)).low for own in found)
    rows = []
    for own in found:
        cells = [own.name]
        for axis in ("tokens", "flops"):
            curve, first = own.curve(axis, task.metric), found[0].curve(axis, task.metric)
            cells.append(_shown(amount_to_reach(curve, float(target))))
            same = own is found[0]
            cells.append("1" if same else _ratio(ratio_to_reach(curve, first, float(target))))
        rows.append(cells)
    header = ["lineage", "tokens", "by the first's", "FLOPs", "by the first's"]
    caption = f"{task.name}: what {task.metric} {target:.3f} takes [95% interval]"
    return [Table(caption, header, rows)]


def _shown(own: Amount) -> str:
    if math.isinf(own.value):
        return f"not reached (in {own.reached:.0%} of draws)"
    high = "beyond" if math.isinf(own.high) else f"{own.high:.2e}"
    return f"{own.value:.2e} [{own.low:.2e}, {high}]"


def _ratio(own: Amount) -> str:
    if math.isnan(own.value) or math.isinf(own.value):
        return "cannot tell"
    high = "beyond" if math.isinf(own.high) else f"{own.high:.2f}"
    return f"{own.value:.2f} [{own.low:.2f}, {high}]"


def scaling(of: Comparison) -> Section:
    """Fits of loss over parameters and tokens, one an objective."""
    blocks: list = []
    for unit in sorted({run.unit for run in of.pretraining}):
        own = [run for run in of.pretraining if run.unit == unit]
        sizes = np.array([run.stage.parameters for run in own], float)
        read = np.array([run.lineage_tokens + sum(run.stage.tokens.values()) for run in own])
        losses = np.array([run.losses[-1][1] for run in own])
        try:
            fit = fit_scaling(sizes, read, losses)
        except UserError as error:
            blocks.append(f"{unit}: {error}.")
            continue
        law = fit.scaling
        blocks.append(
            f"{unit}: L = {law.e:.3f} + {law.a:.3g} / N^{law.alpha:.3f} + {law.b:.3g} / "
            f"D^{law.beta:.3f} over {len(own)} runs (Hoffmann et al. 2022, robust in the "
            f"logarithm); residuals of the logarithms {np.abs(fit.residuals).mean():.4f} on "
            f"average, {np.abs(fit.residuals).max():.4f} at most."
        )
        series = []
        for size in np.unique(sizes):
            chosen = [Point(d, y) for n, d, y in zip(sizes, read, losses, strict=True) if n == size]
            series.append(Series(f"{count(size)} parameters", sorted(chosen)))
            line = np.geomspace(read.min(), read.max(), 50)
            fitted = map(Point, line.tolist(), law.loss(np.full(50, size), line).tolist())
            series.append(Series(f"fit, {count(size)} parameters", list(fitted), fit=True))
        name = f"scaling_{file_name(unit)}"
        figure = figures.lines(series, "tokens read", unit)
        blocks.append(Picture(name, "Last losses of the runs of the fit", figure))
        rows = []
        for asked in of.config.predict:
            loss, low, high, beyond = fit.predict(asked.parameters, asked.tokens)
            note = "extrapolated" if beyond else ""
            shown = f"{loss:.3f} [{low:.3f}, {high:.3f}]"
            rows.append([count(asked.parameters), count(asked.tokens), shown, note])
        if rows:
            blocks.append(Table("Predicted", ["parameters", "tokens", unit, ""], rows))
        profiles = isoflop(sizes, 6 * sizes * read, losses)
        if profiles:
            rows = [[f"{p.flops:.2e}", count(p.parameters), f"{p.loss:.3f}"] for p in profiles]
            header = ["FLOPs", "best parameters", "loss there"]
            blocks.append(Table(f"IsoFLOP profiles, {unit}", header, rows))
    if not blocks:
        blocks = [f"No runs of pretraining were named; a fit needs {FEWEST} of three sizes."]
    return Section("Scaling", blocks)


def labels(of: Comparison) -> Section:
    """Learning curves against prompting, and where they cross."""
    blocks: list = []
    for task in of.tasks:
        curves = {
            run.model: curve
            for run in task.runs
            if not run.prompted and len(curve := run.curve(task.metric)) > 1
        }
        if not curves:
            continue
        prompted = [run for run in task.runs if run.prompted]
        prompted.sort(key=lambda run: -task.sign * interval(run.draws(task.metric)).mean)
        prompted = prompted[:LEVELS]
        best = sorted(curves, key=lambda name: -task.sign * interval(curves[name][-1][1]).mean)
        series = [Series(name, _points(curves[name])) for name in best[:CURVES]]
        series += _published_curves(task)
        levels = [(run.model, _level(run.draws(task.metric))) for run in prompted]
        figure = figures.lines(series, "labelled examples", task.metric, levels)
        caption = f"{task.name}: fine-tuned on growing shares of the labels; best prompted across"
        blocks.append(Picture(f"{file_name(task.name)}_labels", caption, figure))
        rows = []
        for name, curve in curves.items():
            for run in prompted if task.sign > 0 else ():
                found = amount_to_reach(curve, run.draws(task.metric))
                used = run.labelled.get(run.scores.main, 0)
                rows.append([name, run.model, f"{used:,}", _labels(found, curve)])
        if rows:
            header = ["fine-tuned", "prompted", "labels that prompting took", "labels to equal it"]
            blocks.append(Table(f"{task.name}: crossing points [95% interval]", header, rows))
    if not blocks:
        blocks = ["No run has several label_fractions."]
    return Section("Label efficiency", blocks)


def _published_curves(task: Task) -> list[Series]:
    """Of models with a score on fewer labels."""
    found: dict[str, list[Point]] = {}
    for score in task.published:
        if score.labelled and score.mean is not None:
            found.setdefault(score.model, []).append(Point(score.labelled, score.mean))
    return [
        Series(f"{model} (published)", sorted(points), open=True)
        for model, points in found.items()
        if len(points) > 1
    ]


def _labels(own: Amount, curve: Sequence[tuple[float, Draws]]) -> str:
    if math.isinf(own.value):
        return f"more than {curve[-1][0]:,} (reached in {own.reached:.0%} of draws)"
    fewest = "at most " if own.value <= curve[0][0] else ""
    high = "beyond" if math.isinf(own.high) else f"{own.high:,.0f}"
    return f"{fewest}{own.value:,.0f} [{own.low:,.0f}, {high}]"


def _points(curve: Sequence[tuple[float, Draws]]) -> list[Point]:
    found = [(amount, interval(draws)) for amount, draws in curve]
    return [Point(amount, own.mean, own.low, own.high) for amount, own in found]


def _level(draws: Draws) -> Point:
    own = interval(draws)
    return Point(0.0, own.mean, own.low, own.high)
