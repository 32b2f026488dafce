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
    goal = (target, target) if isinstance(target, float) else _goal(target, side=1)
    return _interval(*_reached(curve, *goal), level)


def ratio_to_reach(
    first: Curve, second: Curve, target: float | Draws, level: float = 0.95
) -> Amount:
    """The first curve's amount by the second's, of the same draws.

    Args:
      target: a score, or the draws of a point of one of the curves.
    """
    goal = (target, target) if isinstance(target, float) else _goal(target, side=0)
    (a, of_a), (b, of_b) = (_reached(curve, *goal) for curve in (first, second))
    if len(of_a) != len(of_b):
        raise ValueError(f"{len(of_a)} draws cannot be paired with {len(of_b)}")
    return _interval(_divided(np.array(a), np.array(b)).item(), _divided(of_a, of_b), level)


def _reached(curve: Curve, plain: float, drawn: np.ndarray | float) -> tuple[float, np.ndarray]:
    """The amount by the plain scores, and by each draw's."""
    amounts, scores, means = _arrays(curve)
    return float(reach(amounts, means[None], plain)[0]), reach(amounts, scores, drawn)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where neither is reached, 0 where the second never is."""
    with np.errstate(invalid="ignore"):
        return above / below


def _goal(target: Draws, side: int) -> tuple[float, np.ndarray]:
    return float(target.values.mean()), over_seeds(target, side=side)


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


def middle(lines: Mapping[str, Curve]) -> str:
    """The lineage at whose end half of them end or are past it; of two the lower one."""
    rising = sorted(lines, key=lambda name: lines[name][-1][1].values.mean())
    return rising[(len(rising) - 1) // 2]


def amounts_table(
    lines: Mapping[str, Mapping[str, Curve]], reference: str, target: float | None = None
) -> list[list[str]]:
    """What a score takes of each lineage, and the ratio to what it takes of the reference.

    Args:
      lines: name -> curves over the same kinds of amount ("tokens", "FLOPs").
      reference: one of them.
      target: the score; none: where the reference ends, draw by draw.

    Returns:
      The header and a row for each.
    """
    axes = lines[reference]
    rows = [["lineage", *(cell for axis in axes for cell in (axis, f"by {reference}'s"))]]
    for name, curves in lines.items():
        rows.append([name])
        for axis, curve in curves.items():
            other = axes[axis]
            goal = other[-1][1] if target is None else target
            rows[-1] += _cells(curve, other, goal, is_end=target is None and name == reference)
    return rows


def _cells(curve: Curve, other: Curve, goal: float | Draws, *, is_end: bool) -> list[str]:
    """What a score takes, and the ratio to what it takes of another curve."""
    if is_end:
        return [f"{curve[-1][0]:.2e}", "1"]
    if curve is other:
        return [_shown(amount_to_reach(curve, goal), curve), "1"]
    own, others = (amount_to_reach(each, goal) for each in (curve, other))
    ratio = ratio_to_reach(curve, other, goal)
    early, earlier = _is_early(own, curve), _is_early(others, other)
    if math.isinf(others.value) or (early and earlier):
        shown = "cannot tell"
    elif math.isinf(own.value):
        shown = f"over {curve[-1][0] / others.value:.2f}"
    elif early:
        shown = f"at most {ratio.value:.2f}"
    else:
        high = "beyond" if math.isinf(ratio.high) else f"{ratio.high:.2f}"
        least = "at least " if earlier else ""
        shown = f"{least}{ratio.value:.2f} [{ratio.low:.2f}, {high}]"
    return [_shown(own, curve), shown]


def _is_early(own: Amount, curve: Curve) -> bool:
    """Whether a curve begins at the score, which may then have been reached any time before."""
    return own.value <= curve[0][0]


def _shown(own: Amount, curve: Curve) -> str:
    if math.isinf(own.value):
        return f"not reached (in {own.reached:.0%} of draws)"
    if _is_early(own, curve) and own.high == curve[0][0]:
        return f"at most {own.value:.2e}"
    high = "beyond" if math.isinf(own.high) else f"{own.high:.2e}"
    most = "at most " if _is_early(own, curve) else ""
    return f"{most}{own.value:.2e} [{own.low:.2e}, {high}]"
