"""The sections about cost: where models come from, what runs took, from which use on one pays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from medjax.comparison import figures
from medjax.comparison.accounts import Account, account, break_even
from medjax.comparison.collect import Comparison, Task
from medjax.comparison.figures import Point, Series
from medjax.comparison.report import Picture, Section, Table
from medjax.comparison.runs import Run
from medjax.comparison.tables import count, file_name, flops
from medjax.scoring.bootstrap import interval

MOST = 8  # models that a picture tells apart


def costs(of: Comparison) -> Section:
    """Where each model comes from, and what it took."""
    config, histories, runs = of.config, [], []
    seen: set[str] = set()
    for task in of.tasks:
        for run in task.runs:
            own = account(run, config.prices)
            if run.model not in seen:
                seen.add(run.model)
                histories.append(_history_row(run, own))
            runs.append(_cost_row(task, run, own, of))
    header = ["model", "history", "tokens read", "different tokens", "text", "pretraining FLOPs"]
    hours = [f"{h.name}: hours, {config.currency}" for h in config.hardware]
    names = ["task", "model", "training FLOPs", "6·P·T", "FLOPs per 1,000 documents", "2·P·T"]
    names += ["ms a document", "device-hours", config.currency, *hours]
    text = (
        "FLOPs are those of the matrix products of each stack (training/flops.py); a published "
        "checkpoint of unknown history counts nothing. 6·P·T and 2·P·T are the formula of Lehman "
        "et al. 2023 with the parameters and tokens of every stage. Tokens of an answer are those "
        "that the model saw, prompt and shots included. A cell is empty where a run did not record "
        "it."
    )
    return Section(
        "Cost",
        [text, Table("Histories", header, histories), Table("Runs", names, runs)],
    )


def _history_row(run: Run, own: Account) -> list[str]:
    if run.stages is None:
        return [run.model, "not recorded", "", "", "", ""]
    path = " → ".join(stage.name for stage in run.history) or "random weights"
    return [
        run.model,
        path if own.known else f"{path} (published: what it read is not known)",
        _domains(own.tokens),
        _domains(own.unique_tokens),
        f"{own.bytes / 1e6:,.1f} MB" if own.bytes else "",
        flops(own.pretraining),
    ]


def _cost_row(task: Task, run: Run, own: Account, of: Comparison) -> list[str]:
    recorded = run.stages is not None
    price = "no price" if own.price is None else f"{own.price:,.2f}"
    per_thousand = None if own.per_document is None else 1000 * own.per_document
    papers = None if own.papers_per_document is None else 1000 * own.papers_per_document
    seconds = own.seconds_per_document
    more = [
        f"{h.hours(own.training):.3g}, {h.hours(own.training) * h.price_per_hour:.3g}"
        for h in of.config.hardware
    ]
    return [
        task.name,
        run.model,
        flops(own.training) if recorded else "",
        flops(own.papers),
        flops(per_thousand),
        flops(papers),
        "" if seconds is None else f"{1000 * seconds:.1f}",
        f"{own.device_hours:.3f}" if recorded else "",
        price if recorded and of.config.prices else "",
        *more,
    ]


def _domains(tokens: dict[str, float]) -> str:
    return ", ".join(f"{count(value)} {domain}" for domain, value in tokens.items())


def use(of: Comparison) -> Section:
    """FLOPs over a model's life, and from which volume on one is cheaper than another."""
    blocks: list = [
        "Training and answers together, in FLOPs; a downloaded checkpoint's pretraining is not "
        "counted. Documents are those of the task's test set on average."
    ]
    for task in of.tasks:
        own = {run.model: account(run, {}) for run in task.runs}
        own = {name: a for name, a in own.items() if a.per_document}
        if len(own) < 2:
            continue
        chosen, caption = list(own), f"{task.name}: FLOPs of training and use"
        if len(own) > MOST:
            chosen = [name for name, _ in _front(task, _priced(task, "FLOPs"))]
            caption += f", of {len(own)} models those on the front of score and FLOPs"
            if not chosen:
                blocks.append(f"{task.name}: no model is better than the most frequent class.")
                continue
        crossings = {
            pair: documents
            for pair in permutations(chosen, 2)
            if (documents := break_even(*(own[name] for name in pair)))
        }
        volumes = _volumes([own[name] for name in chosen], list(crossings.values()))
        series = [
            Series(name, [Point(float(v), own[name].flops(float(v))) for v in volumes])
            for name in chosen
        ]
        figure = figures.lines(series, "documents", "FLOPs", log_y=True)
        blocks.append(Picture(f"{file_name(task.name)}_use", caption, figure))
        rows = [[*pair, f"{documents:,.0f}"] for pair, documents in crossings.items()]
        if rows:
            header = ["takes less than", "the other", "from so many documents on"]
            blocks.append(Table(f"{task.name}: break-even", header, rows))
    if len(blocks) == 1:
        blocks.append("No two runs of a task recorded what an answer takes.")
    return Section("Volume of use", blocks)


def _volumes(accounts: Sequence[Account], crossings: Sequence[float]) -> np.ndarray:
    """Documents to draw: a decade around those where lines cross, or use has cost what training
    did."""
    equal = [own.training / own.per_document for own in accounts if own.training]
    logs = np.log10(np.maximum([*equal, *crossings] or [1e3], 1.0))
    return np.logspace(max(np.floor(logs.min()) - 1, 0), np.ceil(logs.max()) + 1, 121)


def pareto(of: Comparison) -> Section:
    """Scores against the cost and the time of an answer."""
    blocks: list = []
    for task in of.tasks:
        for axis, unit in (("FLOPs", "FLOPs a document"), ("seconds", "seconds a document")):
            points = _priced(task, axis)
            if len(points) < 2:
                continue
            front = _front(task, points)
            shown = [own for own in points if len(points) <= MOST or own in front]
            series = [Series(name, [point]) for name, point in shown]
            if rest := [point for name, point in points if (name, point) not in shown]:
                series.append(Series(f"{len(rest)} others", rest, open=True))
            line = list(dict.fromkeys(point for _, point in front))
            figure = figures.scatter(series, line, unit, task.metric)
            name = f"{file_name(task.name)}_{axis.lower()}"
            blocks.append(Picture(name, f"{task.name}: {task.metric} against {unit}", figure))
            names = ", ".join(name for name, _ in front) or "none"
            blocks.append(f"{task.name}, on the front by {unit}: {names}.")
    if not blocks:
        blocks = ["No two runs of a task recorded what an answer takes."]
    elif any(task.is_trivial(run) for task in of.tasks for run in task.runs):
        blocks.append("What is no better than the most frequent class is on no front.")
    return Section("Score against cost", blocks)


def _priced(task: Task, axis: str) -> list[tuple[str, Point]]:
    found = []
    for run in task.runs:
        own = account(run, {})
        cost = own.per_document if axis == "FLOPs" else own.seconds_per_document
        if cost:
            score = interval(run.draws(task.metric))
            found.append((run.model, Point(cost, score.mean, score.low, score.high)))
    return found


def _front(task: Task, points: Sequence[tuple[str, Point]]) -> list[tuple[str, Point]]:
    """Those that nothing cheaper or equally cheap is better than, from the cheapest on."""
    trivial = {run.model for run in task.runs if task.is_trivial(run)}
    found: list[tuple[str, Point]] = []
    for name, point in sorted(points, key=lambda own: (own[1].x, -task.sign * own[1].y)):
        best = found[-1][1].y if found else -task.sign * np.inf
        better = task.sign * (point.y - best) > 0
        if name not in trivial and (better or point == found[-1][1]):
            found.append((name, point))
    return found
