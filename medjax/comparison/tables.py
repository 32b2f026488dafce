"""The sections about scores: who is best, what is more than chance."""

from __future__ import annotations

import math
from itertools import combinations

from medjax.comparison import figures
from medjax.comparison.accounts import account
from medjax.comparison.collect import CHANCE, Comparison, Task, is_contaminated
from medjax.comparison.contrasts import Contrast, contrasts
from medjax.comparison.figures import Point, Series
from medjax.comparison.report import Picture, Section, Table
from medjax.comparison.runs import Run
from medjax.scoring.bootstrap import Interval, interval, mean_draws
from medjax.scoring.paired import difference

HEADER = [
    "task",
    "model",
    "labelled_examples",
    "metric",
    *Interval._fields,
    "parameters",
    "pretraining_tokens",
    "pretraining_flops",
    "finetuning_flops",
    "flops_per_document",
    "seconds_per_document",
    "device_hours",
    "price",
    "contaminated",
]
FEW_SEEDS = 5


def scores(of: Comparison) -> Section:
    """A table and a panel for each task."""
    blocks: list = [
        "Mean over seeds ± their standard deviation [95% interval over groups of the test set and "
        f"seeds]. Best: the highest mean. Within chance: the paired difference to the best has p ≥ "
        f"{CHANCE}, which is no proof that both are equal."
    ]
    for task in of.tasks:
        kind = ", out of distribution" if task.out_of_distribution else ""
        found = interval(task.runs[0].draws(task.metric))
        caption = f"{task.name}{kind}: {task.metric}, {found.clusters:,} groups in test"
        header = ["model", "parameters", "labelled", task.metric, "seeds", "difference to best", ""]
        blocks.append(Table(caption, header, _score_rows(task)))
    blocks += _averages(of)
    blocks.append(
        Picture(
            "scores",
            "Scores with 95% intervals; open: published, elsewhere measured.",
            figures.dots([(f"{task.name}\n{task.metric}", _dots(task)) for task in of.tasks]),
        )
    )
    return Section("Scores", blocks)


def _averages(of: Comparison) -> list[Table]:
    """The mean of the families' means, of models that were scored on all tasks of a kind."""
    found = []
    for apart in (False, True):
        tasks = [task for task in of.tasks if task.out_of_distribution == apart and task.sign > 0]
        families = list(dict.fromkeys(task.family for task in tasks))
        rows = []
        for model in of.models if len(tasks) > 1 else ():
            runs = [(task, run) for task in tasks if (run := task.run(model))]
            if len(runs) < len(tasks) or any(is_contaminated(r, t) for t, r in runs):
                continue
            means = [
                mean_draws([r.draws(t.metric) for t, r in runs if t.family == family])
                for family in families
            ]
            shown_of = [shown(interval(own)) for own in (*means, mean_draws(means))]
            rows.append([model, *shown_of])
        if rows:
            kind = "out of distribution" if apart else "in distribution"
            caption = f"Means of families, {kind}: each counts alike; of models scored on all tasks"
            found.append(Table(caption, ["model", *families, "mean"], rows))
    return found


def best(task: Task) -> Run:
    """The run with the best mean among those that may enter a conclusion."""
    clean = [run for run in task.runs if not is_contaminated(run, task)] or task.runs
    return max(clean, key=lambda run: task.sign * interval(run.draws(task.metric)).mean)


def not_worse(task: Task) -> list[Run]:
    """The best run and those within chance of it."""
    top = best(task)
    found = [top]
    for run in task.runs:
        if run is top or is_contaminated(run, task):
            continue
        if difference(top.scores, run.scores, task.metric).p_value >= CHANCE:
            found.append(run)
    return found


def _score_rows(task: Task) -> list[list[str]]:
    top, equal, rows = best(task), not_worse(task), []
    for run in sorted(task.runs, key=lambda r: -task.sign * interval(r.draws(task.metric)).mean):
        found, mark = interval(run.draws(task.metric)), ""
        if run is top:
            mark, gap = "best", ""
        else:
            change = difference(run.scores, top.scores, task.metric)
            gap = f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
            mark = "within chance" if run in equal else ""
        if is_contaminated(run, task):
            mark = "contaminated"
        labelled = run.labelled.get(run.scores.main)
        seeds = f"{found.seeds}" + (
            " (few)" if found.seeds < FEW_SEEDS and not run.prompted else ""
        )
        rows.append(
            [run.model, count(run.parameters), count(labelled), shown(found), seeds, gap, mark]
        )
    for name, draws in task.baselines.items():
        rows.append([name, "", "", shown(interval(draws)), "", "", "baseline"])
    for score in task.published:
        if score.fraction == 1.0:
            doubt = f"; {score.doubt}" if score.doubt else ""
            mark = f"published: {score.paper} [{score.mark}]{doubt}"
            rows.append([score.model, "", "", _published(score), "", "", mark])
    return rows


def _published(score) -> str:
    if score.mean is None:
        return f"{score.low:.3f} to {score.high:.3f}"
    return f"{score.mean:.3f}" + (f" ± {score.deviation:.3f}" if score.deviation else "")


def _dots(task: Task) -> list[Series]:
    found = []
    for run in task.runs:
        own = interval(run.draws(task.metric))
        found.append(Series(run.model, [Point(own.mean, 0, own.low, own.high)]))
    for name, draws in task.baselines.items():
        own = interval(draws)
        found.append(Series(name, [Point(own.mean, 0, own.low, own.high)]))
    for score in task.published:
        if score.fraction == 1.0:
            mean = math.nan if score.mean is None else score.mean
            point = Point(mean, 0, score.low, score.high)
            found.append(Series(f"{score.model} ({score.paper.split()[0]})", [point], open=True))
    return found


def tests(of: Comparison) -> Section:
    """The declared contrasts, and all pairs where asked for."""
    config, found, problems, tables = of.config, [], [], []
    margins = {(pair.first, pair.second): pair.margin for pair in config.contrasts}
    for family in dict.fromkeys(task.family for task in of.tasks):
        tasks = [(task, _pairs(of, task)) for task in of.tasks if task.family == family]
        own, failed = contrasts(tasks)
        found += own
        problems += failed
    rows = [_test_row(own, margins.get((own.first.model, own.second.model))) for own in found]
    header = ["task", "first", "second", "difference", "p", "p (Holm)", "p (permutation)", "margin"]
    if rows:
        tables.append(Table("Declared before; adjusted within a family of tasks", header, rows))
    if config.all_pairs:
        rows = []
        for task in of.tasks:
            clean = [run for run in task.runs if not is_contaminated(run, task)]
            own, _ = contrasts([(task, list(combinations(clean, 2)))])
            rows += [_test_row(each, None) for each in own]
        tables.append(Table("Exploratory: all pairs", header, rows))
    text = (
        "Differences of means [95% interval] by a paired bootstrap over groups and seeds, "
        "two-sided p-values, the same after Holm's adjustment, and those of a permutation of whole "
        "groups, which takes the seeds as they came out."
    )
    return Section("Tests", [text, *tables, *problems])


def _pairs(of: Comparison, task: Task) -> list[tuple[Run, Run]]:
    """Of runs that may enter a conclusion."""
    clean = task._replace(runs=[run for run in task.runs if not is_contaminated(run, task)])
    if of.config.contrasts:
        pairs = [(clean.run(own.first), clean.run(own.second)) for own in of.config.contrasts]
        return [(a, b) for a, b in pairs if a and b]
    reference = clean.run(of.config.reference) if of.config.reference else None
    reference = reference or clean.run(of.models[0]) or next(iter(clean.runs), None)
    return [(run, reference) for run in clean.runs if run is not reference]


def _test_row(own: Contrast, margin: float | None) -> list[str]:
    found, verdict = own.found, ""
    if margin:
        verdict = f"{'not worse' if own.not_worse(margin) else 'cannot tell'} by {margin:g}"
    by_permutation = "" if own.permutation is None else f"{own.permutation:.4f}"
    change = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    numbers = [f"{found.p_value:.4f}", f"{own.adjusted:.4f}", by_permutation]
    return [own.task.name, own.first.model, own.second.model, change, *numbers, verdict]


def numbers(of: Comparison) -> list[list]:
    """A row a task, model and share of the labels, as HEADER names it."""
    found = []
    for task in of.tasks:
        for run in task.runs:
            own = account(run, of.config.prices)
            for row, metrics in run.scores.rows.items():
                if row != run.scores.main and row not in run.labelled:
                    continue
                score = interval(metrics[task.metric])
                values = [task.name, run.model, run.labelled.get(row), task.metric, *score]
                values += [run.parameters, sum(own.tokens.values()), own.pretraining]
                values += [own.finetuning, own.per_document, own.seconds_per_document]
                values += [own.device_hours, own.price, is_contaminated(run, task)]
                found.append(["" if v is None or v != v else v for v in values])
    return found


def shown(found: Interval) -> str:
    """mean ± deviation [low, high]."""
    spread = "" if math.isnan(found.deviation) else f" ± {found.deviation:.3f}"
    return f"{found.mean:.3f}{spread} [{found.low:.3f}, {found.high:.3f}]"


def count(number: float | None) -> str:
    """In thousands, millions, billions."""
    if not number:
        return ""
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:,.0f}"


def flops(number: float | None) -> str:
    """1.2e15; empty for none."""
    return f"{number:.2e}".replace("e+", "e") if number else ""


def file_name(name: str) -> str:
    """Of a picture, from what it is of."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())
