"""Sentences of the papers, judged by the runs: holds, does not, cannot tell, not tested."""

from __future__ import annotations

from medjax.comparison.accounts import account
from medjax.comparison.collect import Comparison, Task, is_contaminated
from medjax.comparison.config import Claim
from medjax.comparison.contrasts import mean_difference
from medjax.comparison.report import Section, Table
from medjax.comparison.runs import Run
from medjax.config import UserError
from medjax.scoring.bootstrap import Difference

NOT_TESTED = "not tested"


def claims(of: Comparison) -> Section:
    """A row a claim."""
    rows = [judged(of, claim) for claim in of.config.claims]
    header = ["claim", "source", "contrast", "found", "verdict"]
    text = (
        "Holds: the whole 95% interval is on the claim's side (not worse: above the margin). Does "
        "not: it is on the other side. Else it cannot be told at this scale."
    )
    blocks = [text, Table("Claims and what these runs say", header, rows)] if rows else []
    return Section("Claims", blocks or ["The configuration names none."])


def judged(of: Comparison, claim: Claim) -> list[str]:
    """One row."""
    contrast = f"{claim.first} against {claim.second}" if claim.first and claim.second else ""
    start = [claim.claim, claim.source]
    pairs = _pairs(of, claim, claim.tasks)
    if not pairs:
        return [*start, contrast, "", NOT_TESTED]
    contrast += f", mean of {', '.join(task.name for task, *_ in pairs)}"
    if claim.kind.startswith("ratio"):
        return [*start, contrast, *_ratio(claim, pairs)]
    try:
        found = _difference(pairs)
        less = _pairs(of, claim, claim.less) if claim.less else []
        if claim.less and not less:
            return [*start, contrast, "", NOT_TESTED]
    except UserError as error:
        return [*start, contrast, str(error), NOT_TESTED]
    if less:
        contrast += f", less that of {', '.join(task.name for task, *_ in less)}"
        other = _difference(less)
        mean = found.mean - other.mean  # independent test sets: the intervals' halves add in square
        low = mean - ((found.mean - found.low) ** 2 + (other.high - other.mean) ** 2) ** 0.5
        high = mean + ((found.high - found.mean) ** 2 + (other.mean - other.low) ** 2) ** 0.5
        found = Difference(mean, low, high, float("nan"))
    shown = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    bar = -(claim.margin or 0.0) if claim.kind == "not worse" else 0.0
    verdict = "holds" if found.low > bar else "does not" if found.high < bar else "cannot tell"
    return [*start, contrast, shown, verdict]


def _pairs(of: Comparison, claim: Claim, names: list[str] | None) -> list[tuple[Task, Run, Run]]:
    """The runs of both models, task by task; what is contaminated judges nothing."""
    if not claim.first or not claim.second:
        return []
    found = []
    for task in of.tasks:
        first, second = task.run(claim.first), task.run(claim.second)
        if names is not None and task.name not in names or not first or not second:
            continue
        if not is_contaminated(first, task) and not is_contaminated(second, task):
            found.append((task, first, second))
    return found


def _difference(pairs: list[tuple[Task, Run, Run]]) -> Difference:
    own = [(a, b) if task.sign > 0 else (b, a) for task, a, b in pairs]
    return mean_difference(own, [task.metric for task, *_ in pairs])


def _ratio(claim: Claim, pairs: list[tuple[Task, Run, Run]]) -> tuple[str, str]:
    """Of the seconds of an answer; a single measurement each, so there is no interval."""
    seconds = [[account(run, {}).seconds_per_document for run in own] for _, *own in pairs]
    if not claim.margin or any(value is None for own in seconds for value in own):
        return "", NOT_TESTED
    ratios = [a / b for a, b in seconds]
    mean = sum(ratios) / len(ratios)
    holds = mean < claim.margin if claim.kind == "ratio below" else mean > claim.margin
    return f"{mean:.2f} times the seconds an answer", "holds" if holds else "does not"
