"""A metric as a function of how often each example counts.

With all ones it is the plain score, with the multiplicities of a bootstrap draw that draw's score
(`bootstrap.py`). Pooled scores (F1, calibration error) are recomputed from the summed counts of
each draw; nothing is ever an average of scores of parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Weights = Float[np.ndarray, "D N"]
Values = Float[np.ndarray, " D"]


class Metric(NamedTuple):
    """One score of one model's predictions."""

    name: str
    of_weights: Callable[[Weights], Values]
    """Multiplicities of the examples in each of D draws -> the score of each draw."""
    higher_is_better: bool = True
    form: str | None = None
    """Which of FORMS the score is of its summed counts; None: another function."""
    counts: Any = None
    """[N, K], what each example adds to those counts."""

    @property
    def value(self) -> float:
        """The score itself."""
        return float(self.of_weights(None)[0])


def additive(
    name: str,
    counts: Any,
    form: str | Callable[[Float[np.ndarray, "D K"]], Values],
    **more: Any,
) -> Metric:
    """A metric of summed counts.

    Args:
      counts: [N, K], an array or a sparse matrix of scipy's: what each example adds.
      form: the metric of the sums: one of FORMS, or a function of its own.
    """
    if isinstance(form, str):
        score, more = FORMS[form], more | {"form": form, "counts": counts}
    else:
        score = form

    def of_weights(weights: Weights | None) -> Values:
        if weights is None:
            return score(np.asarray(counts.sum(axis=0), np.float64).reshape(1, -1))
        return score(np.asarray(weights @ counts, np.float64))

    return Metric(name, of_weights, **more)


def ratio(above: Float[np.ndarray, " *D"], below: Float[np.ndarray, " *D"]) -> np.ndarray:
    """Quotient, 0 where the denominator is 0 (scikit-learn's zero_division)."""
    return np.divide(above, below, out=np.zeros_like(above, np.float64), where=below != 0)


def f1_score(correct: np.ndarray, predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """F1 from the numbers of correct, predicted and gold items."""
    return ratio(2 * correct, predicted + gold)


def _mean(sums: Float[np.ndarray, "D 2"]) -> Values:
    """Of sum and number."""
    return ratio(sums[:, 0], sums[:, 1])


def _f1(sums: Float[np.ndarray, "D 3C"]) -> Values:
    """Of all classes together: their correct, predicted and gold items, one after the other."""
    return f1_score(*(part.sum(1) for part in np.split(sums, 3, axis=1)))


def _macro_f1(sums: Float[np.ndarray, "D 3C"]) -> Values:
    """The mean of the classes' F1, from the same counts."""
    return f1_score(*np.split(sums, 3, axis=1)).mean(1)


def _weighted_f1(sums: Float[np.ndarray, "D 3C"]) -> Values:
    """The classes' F1, weighted by their gold items."""
    correct, predicted, gold = np.split(sums, 3, axis=1)
    return ratio((f1_score(correct, predicted, gold) * gold).sum(1), gold.sum(1))


FORMS = {"mean": _mean, "f1": _f1, "macro_f1": _macro_f1, "weighted_f1": _weighted_f1}
