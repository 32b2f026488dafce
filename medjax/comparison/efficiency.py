"""How much of something (tokens, FLOPs, labels) a score takes, with intervals over draws.

A curve is a score at growing amounts; between its points it is taken as straight over the logarithm
of the amount. Every bootstrap draw has a curve and a crossing of its own, so that two curves scored
on the same draws give the distribution of their ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.scoring.bootstrap import Draws, over_seeds

Curve = Sequence[tuple[float, Draws]]
SURELY = 0.99  # level of the interval within which the weakest curve ends, where no target is given


class Amount(NamedTuple):
    """Where a score is reached."""

    value: float
    """inf: by none of the points."""
    low: float
    high: float
    """inf where more than the interval's share of draws never reach it."""
    reached: float
    """Share of the draws that do."""


def reach(
    amounts: Float[np.ndarray, " P"],
    scores: Float[np.ndarray, "D P"],
    target: Float[np.ndarray, " D"] | float,
) -> Float[np.ndarray, " D"]:
    """The first amount at which each draw's curve is at its target; inf where it never is.

    Args:
      amounts: ascending.
    """
    above = scores >= np.broadcast_to(np.asarray(target, float), len(scores))[:, None]
    first = above.argmax(1)
    found = np.where(above.any(1), amounts[first], np.inf)
    between = above.any(1) & (first > 0)
    rows, last = np.flatnonzero(between), first[between]
    low, high = scores[rows, last - 1], scores[rows, last]
    goals = np.broadcast_to(np.asarray(target, float), len(scores))[rows]
    share = (goals - low) / (high - low)
    logs = np.log(amounts)
    found[rows] = np.exp(logs[last - 1] + share * (logs[last] - logs[last - 1]))
    return found


def amount_to_reach(curve: Curve, target: float | Draws, level: float = 0.95) -> Amount:
    """What a score takes; where the target is another model's, its draws are paired."""
    amounts, scores, plain = _arrays(curve)
    goal, drawn = (target, target) if isinstance(target, float) else _goal(target)
    value = reach(amounts, plain[None], goal)[0]
    return _interval(float(value), reach(amounts, scores, drawn), level)


def ratio_to_reach(first: Curve, second: Curve, target: float, level: float = 0.95) -> Amount:
    """The first curve's amount by the second's, of the same draws."""
    a, b = (_arrays(curve) for curve in (first, second))
    if len(a[1]) != len(b[1]):
        raise ValueError(f"{len(a[1])} draws cannot be paired with {len(b[1])}")
    of_draws = _divided(reach(a[0], a[1], target), reach(b[0], b[1], target))
    value = _divided(reach(a[0], a[2][None], target), reach(b[0], b[2][None], target))[0]
    return _interval(float(value), of_draws, level)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where neither is reached, 0 where the second never is."""
    with np.errstate(invalid="ignore"):
        return above / below


def _goal(target: Draws) -> tuple[float, np.ndarray]:
    return float(target.values.mean()), over_seeds(target, side=1)


def _arrays(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amounts [P], scores of the draws [D, P], plain scores [P]."""
    amounts = np.array([amount for amount, _ in curve], float)
    scores = np.stack([over_seeds(draws) for _, draws in curve], axis=1)
    return amounts, scores, np.array([draws.values.mean() for _, draws in curve])


def _interval(value: float, drawn: np.ndarray, level: float) -> Amount:
    known = np.sort(drawn[~np.isnan(drawn)])
    if not len(known):
        return Amount(value, float("nan"), float("nan"), 0.0)
    tail = (1 - level) / 2
    low, high = (
        known[int(tail * (len(known) - 1))],
        known[int(np.ceil((1 - tail) * (len(known) - 1)))],
    )
    return Amount(value, float(low), float(high), float(np.isfinite(drawn).mean()))


def amounts_table(lines: Mapping[str, Mapping[str, Curve]], target: float) -> list[list[str]]:
    """What a score takes of each lineage, and by how much more than the first of them.

    Args:
      lines: name -> curves over the same kinds of amount ("tokens", "FLOPs").

    Returns:
      The header and a row for each.
    """
    first = next(iter(lines.values()))
    rows = [["lineage", *(cell for axis in first for cell in (axis, "by the first's"))]]
    for name, curves in lines.items():
        rows.append([name])
        for axis, curve in curves.items():
            amount, ratio = amount_to_reach(curve, target), "1"
            known = _is_between(curve, amount)
            if curves is not first:
                both = known and _is_between(first[axis], amount_to_reach(first[axis], target))
                found = ratio_to_reach(curve, first[axis], target)
                ratio = _shown_ratio(found) if both else "cannot tell"
            rows[-1] += [("" if known else "at most ") + _shown(amount), ratio]
    return rows


def _is_between(curve: Curve, own: Amount) -> bool:
    """Whether a curve begins below the score; else it may have been reached any time before."""
    return own.value > curve[0][0]


def _shown(own: Amount) -> str:
    if math.isinf(own.value):
        return f"not reached (in {own.reached:.0%} of draws)"
    high = "beyond" if math.isinf(own.high) else f"{own.high:.2e}"
    return f"{own.value:.2e} [{own.low:.2e}, {high}]"


def _shown_ratio(own: Amount) -> str:
    if math.isnan(own.value) or math.isinf(own.value):
        return "cannot tell"
    high = "beyond" if math.isinf(own.high) else f"{own.high:.2f}"
    return f"{own.value:.2f} [{own.low:.2f}, {high}]"
