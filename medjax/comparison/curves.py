"""The sections with curves of scores: over what was read, and over labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from medjax.comparison import figures
from medjax.comparison.accounts import Account, account
from medjax.comparison.collect import Comparison, Task, is_contaminated
from medjax.comparison.efficiency import Amount, Curve, amount_to_reach, amounts_table, middle
from medjax.comparison.figures import Point, Series
from medjax.comparison.losses import AXES, REACHED, losses
from medjax.comparison.report import Picture, Section, Table
from medjax.comparison.runs import Run
from medjax.comparison.tables import file_name
from medjax.scoring.bootstrap import Draws, interval

CURVES, LEVELS = 8, 3  # fine-tuned and prompted models in a picture of learning curves, the best


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
    blocks = losses(of)
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
    """Tokens and FLOPs to a score: the one that is asked for, else where the middle one ends."""
    if task.sign < 0:
        return [
            f"{task.name}: {task.metric} is better when lower; amounts to a score are not given"
        ]
    target = of.config.target.get(task.name)
    lines = {
        own.name: {name: own.curve(axis, task.metric) for axis, name in REACHED.items()}
        for own in found
    }
    if target is not None:
        reference, what = next(iter(lines)), f"{task.metric} {target:.3f}"
    else:
        learnt = [own.name for own in found if not task.is_trivial(own.points[-1][0])]
        reference = middle({name: lines[name]["tokens"] for name in learnt or lines})
        end = lines[reference]["tokens"][-1][1].values.mean()
        what = f"{task.metric} {end:.3f}, where {reference} ends,"
    header, *rows = amounts_table(lines, reference, target)
    return [Table(f"{task.name}: what {what} takes [95% interval]", header, rows)]


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
        if prompted and task.sign > 0:
            blocks.append(_crossings(task, curves, prompted))
    if not blocks:
        blocks = ["No run has several label_fractions."]
    return Section("Label efficiency", blocks)


def _crossings(task: Task, curves: dict[str, Curve], prompted: Sequence[Run]) -> Table:
    """How many labels equal what is prompted, which has taken some itself."""
    shots = [run.labelled.get(run.scores.main, 0) for run in prompted]
    header = ["fine-tuned"]
    header += [f"{run.model} ({n:,} labels)" for run, n in zip(prompted, shots, strict=True)]
    levels = [run.draws(task.metric) for run in prompted]
    rows = [
        [name, *(_labels(amount_to_reach(curve, level), curve) for level in levels)]
        for name, curve in curves.items()
    ]
    return Table(f"{task.name}: labels to equal what is prompted [95% interval]", header, rows)


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
