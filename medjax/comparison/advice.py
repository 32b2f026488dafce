"""What the numbers say to do, in plain words with their conditions."""

from __future__ import annotations

from medjax.comparison.accounts import account, break_even
from medjax.comparison.collect import CHANCE, Comparison, Task, is_contaminated
from medjax.comparison.report import Section
from medjax.comparison.runs import Run
from medjax.comparison.tables import FEW_SEEDS, best, not_worse
from medjax.scoring.bootstrap import compare, interval

FEW_GROUPS = 200


def advice(of: Comparison) -> Section:
    """What the numbers say to do, and what would change it."""
    lines = []
    for task in of.tasks:
        if all(is_contaminated(run, task) for run in task.runs):
            lines.append(f"{task.name}: every model has read of its examples: no conclusion.")
            continue
        top, equal = best(task), not_worse(task)
        score = interval(top.draws(task.metric))
        text = (
            f"{task.name}: of the models {top.model} scores highest, {score.mean:.3f} "
            f"[{score.low:.3f}, {score.high:.3f}]."
        )
        simple = _as_good(task, top)
        if simple:
            text += f" {simple}: take that."
            lines.append(text + _conditions(task, score.seeds, score.clusters, top))
            continue
        others = [run.model for run in equal if run is not top]
        if others:
            text += f" Within chance of it: {', '.join(others)}."
        costed = [(run, account(run, {})) for run in equal]
        costed = [(run, own) for run, own in costed if own.per_document]
        if len(costed) > 1:
            cheap, own = min(costed, key=lambda pair: pair[1].per_document)
            first, _ = min(costed, key=lambda pair: pair[1].training)
            text += f" Of these {cheap.model} takes the fewest FLOPs an answer"
            if first is cheap:
                text += " and to train: take it."
            else:
                volume = break_even(own, account(first, {}))
                text += f", {first.model} the fewest to train: take the latter for fewer than "
                text += f"{volume:,.0f} documents." if volume else "any number of documents."
        elif len(equal) == 1 and len(task.runs) > 1:
            text += (
                " Every other one is worse by more than chance: take it if its cost is bearable."
            )
        lines.append(text + _conditions(task, score.seeds, score.clusters, top))
    return Section("In short", lines or ["No labelled task was compared."])


def _as_good(task: Task, top: Run) -> str | None:
    """Says which baseline the best model is not better than, if there is one."""
    for name, draws in task.baselines.items():
        change, score = compare(top.draws(task.metric), draws), interval(draws).mean
        if change.p_value >= CHANCE:
            return f"It is not better than {name} ({score:.3f}) by more than chance"
        if task.sign * change.mean < 0:
            return f"But {name} is better by more than chance ({score:.3f})"
    return None


def _conditions(task: Task, seeds: int, groups: int, top: Run) -> str:
    found = []
    if seeds < FEW_SEEDS and not top.prompted:
        found.append(f"more seeds than {seeds}")
    if groups < FEW_GROUPS:
        found.append(f"a larger test set than {groups} groups")
    if task.published:
        found.append(
            "a test on the same data as the published rows, which are not paired with ours"
        )
    if any(is_contaminated(run, task) for run in task.runs):
        found.append("clean scores of what is contaminated")
    return f" This could change with {', '.join(found)}." if found else ""
