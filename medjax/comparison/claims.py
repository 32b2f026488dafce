"""Sentences of the papers, judged by the runs: holds, does not, cannot tell, not tested."""

from __future__ import annotations

from medjax.comparison.accounts import account
from medjax.comparison.collect import Comparison, Task, is_contaminated
from medjax.comparison.config import Claim, Less
from medjax.comparison.contrasts import mean_difference
from medjax.comparison.report import Section, Table
from medjax.comparison.runs import Run
from medjax.config import UserError

NOT_TESTED = "not tested"


def claims(of: Comparison) -> Section:
    """A row a claim."""
    rows = [judged(of, claim) for claim in of.config.claims]
    header = ["claim", "source", "contrast", "found", "verdict", "no better than the majority"]
    text = (
        "Holds: the whole 95% interval is on the claim's side (not worse: above the margin). Does "
        "not: it is on the other side. Else it cannot be told at this scale. What is no better "
        "than the most frequent class has not learnt its task, whatever the verdict."
    )
    blocks = [text, Table("Claims and what these runs say", header, rows)] if rows else []
    return Section("Claims", blocks or ["The configuration names none."])


def judged(of: Comparison, claim: Claim) -> list[str]:
    """One row."""
    contrast = f"{claim.first} against {claim.second}" if claim.first and claim.second else ""
    start = [claim.claim, claim.source]
    pairs = _pairs(of, claim)
    if not pairs:
        return [*start, contrast, "", NOT_TESTED, ""]
    names = ", ".join(task.name for task, *_ in pairs)
    contrast += f", mean of {names}" if len(pairs) > 1 else f", on {names}"
    if claim.kind.startswith("ratio"):
        return [*start, contrast, *_ratio(claim, pairs), ""]
    less = _pairs(of, claim.less) if claim.less else []
    if claim.less and not less:
        return [*start, contrast, "", NOT_TESTED, ""]
    if less:
        contrast += f", less {claim.less.first} against {claim.less.second}"
        contrast += f" on {', '.join(task.name for task, *_ in less)}"
    try:
        found = mean_difference(pairs, less)
    except UserError as error:
        return [*start, contrast, str(error), NOT_TESTED, ""]
    shown = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    bar = -(claim.margin or 0.0) if claim.kind == "not worse" else 0.0
    verdict = "holds" if found.low > bar else "does not" if found.high < bar else "cannot tell"
    return [*start, contrast, shown, verdict, _trivial([*pairs, *less])]


def _trivial(pairs: list[tuple[Task, Run, Run]]) -> str:
    """Models that are no better than the most frequent class, and on which task."""
    found = [
        (run.model, task.name) for task, *runs in pairs for run in runs if task.is_trivial(run)
    ]
    return ", ".join(f"{model} on {name}" for model, name in dict.fromkeys(found))


def _pairs(of: Comparison, wanted: Claim | Less) -> list[tuple[Task, Run, Run]]:
    """The runs of both models, task by task; what is contaminated judges nothing."""
    if not wanted.first or not wanted.second:
        return []
    found = []
    for task in of.tasks:
        first, second = task.run(wanted.first), task.run(wanted.second)
        if wanted.tasks is not None and task.name not in wanted.tasks or not first or not second:
            continue
        if not is_contaminated(first, task) and not is_contaminated(second, task):
            found.append((task, first, second))
    return found


def _ratio(claim: Claim, pairs: list[tuple[Task, Run, Run]]) -> tuple[str, str]:
    """Of the seconds of an answer; a single measurement each, so there is no interval."""
    seconds = [[account(run, {}).seconds_per_document for run in own] for _, *own in pairs]
    if not claim.margin or any(value is None for own in seconds for value in own):
        return "", NOT_TESTED
    ratios = [a / b for a, b in seconds]
    mean = sum(ratios) / len(ratios)
    holds = mean < claim.margin if claim.kind == "ratio below" else mean > claim.margin
    return f"{mean:.2f} times the seconds an answer", "holds" if holds else "does not"
