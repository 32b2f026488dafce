"""Which differences between models are more than chance: paired tests, adjusted by family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medjax.comparison.collect import Task
from medjax.comparison.runs import Run
from medjax.config import UserError
from medjax.scoring.bootstrap import Difference, over_seeds
from medjax.scoring.paired import difference, holm, permutation

LEVEL = 0.95


class Contrast(NamedTuple):
    """First less second model on one task."""

    task: Task
    first: Run
    second: Run
    found: Difference
    permutation: float | None
    """p-value; None where the metric is no function of summed counts, or is not the decider."""
    adjusted: float
    """The bootstrap's p-value after Holm within the task's family."""

    def not_worse(self, margin: float) -> bool:
        """Whether the interval stays on the right side of the margin."""
        worst = self.found.low if self.task.sign > 0 else -self.found.high
        return worst > -margin


def contrasts(
    tasks: Sequence[tuple[Task, Sequence[tuple[Run, Run]]]],
) -> tuple[list[Contrast], list[str]]:
    """Tests the pairs of a family's tasks, adjusted together; and says which cannot be tested."""
    tested, problems = [], []
    for task, pairs in tasks:
        for first, second in pairs:
            try:
                found = difference(first.scores, second.scores, task.metric)
            except UserError as error:
                problems.append(f"{task.name}: {error}")
            else:
                tested.append((task, first, second, found))
    adjusted = holm([found.p_value for *_, found in tested])
    return [
        Contrast(task, first, second, found, _permutation(first, second, task.metric), p)
        for (task, first, second, found), p in zip(tested, adjusted, strict=True)
    ], problems


def _permutation(first: Run, second: Run, metric: str) -> float | None:
    own, other = first.scores, second.scores
    if own.counts is None or other.counts is None or {own.metric, other.metric} != {metric}:
        return None
    return permutation(own.counts, other.counts)


def mean_difference(
    pairs: Sequence[tuple[Task, Run, Run]], less: Sequence[tuple[Task, Run, Run]] = ()
) -> Difference:
    """First less second model over several tasks, each counting alike; where there are others, less
    the same of them.

    Raises:
      UserError: a pair was not scored on the same draws.
    """
    (plain, drawn), (plain_less, drawn_less) = _mean(pairs), _mean(less) if less else (0.0, 0.0)
    values = drawn - drawn_less
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    beyond = min((values <= 0).sum(), (values >= 0).sum())
    p_value = min(1.0, 2 * (beyond + 1) / (len(values) + 1))
    return Difference(float(plain - plain_less), float(low), float(high), float(p_value))


def _mean(pairs: Sequence[tuple[Task, Run, Run]]) -> tuple[float, np.ndarray]:
    """Of the plain differences, and of those of every draw; test sets are drawn apart."""
    drawn, plain = [], []
    for task, first, second in pairs:
        difference(first.scores, second.scores, task.metric)  # refuses what is not paired
        own, other = first.draws(task.metric), second.draws(task.metric)
        order = np.random.default_rng(list(task.name.encode())).permutation(len(own.drawn))
        drawn.append(task.sign * (over_seeds(own) - over_seeds(other, side=1))[order])
        plain.append(task.sign * (own.values.mean() - other.values.mean()))
    if len({len(own) for own in drawn}) > 1:
        raise UserError("runs differ in `draws`; run one again with the other's")
    return float(np.mean(plain)), np.mean(drawn, axis=0)
