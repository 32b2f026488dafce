"""Scores of classification: one label of several (`gold` a class), or any number of them.

A prediction of -1 stands for an answer that names no class: an error, never left out. Averages are
over the full list of classes, absent ones included, as in the papers' macro F1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.scoring.metric import Metric, Values, additive, ratio

CALIBRATION_BINS = 15


def single_label_metrics(
    gold: Int[np.ndarray, " N"],
    predicted: Int[np.ndarray, " N"],
    num_classes: int,
    positive: Sequence[int] | None = None,
) -> list[Metric]:
    """Accuracy, F1 (macro, micro, weighted) and Matthews' correlation.

    Args:
      positive: the classes that F1 is over, where some stand for "none of these"; all by default,
        for which micro F1 is accuracy if every answer names a class.
    """
    from scipy.sparse import csr_array

    classes = np.arange(num_classes) if positive is None else np.asarray(positive)
    own, found = gold[:, None] == classes, predicted[:, None] == classes
    right = np.stack([gold == predicted, np.ones(len(gold))], axis=1).astype(np.float64)
    width = num_classes + 1  # the last column: no class
    places = gold * width + np.where(predicted < 0, num_classes, predicted)
    rows, shape = np.arange(len(gold)), (len(gold), num_classes * width)
    confusion = csr_array((np.ones(len(gold)), (rows, places)), shape=shape)

    def matthews(sums: np.ndarray) -> Values:
        return _matthews(sums.reshape(-1, num_classes, width))

    return [
        additive("accuracy", right, "mean"),
        *_f1_metrics(own, found),
        additive("matthews", confusion, matthews),
    ]


def multi_label_metrics(
    gold: Bool[np.ndarray, "N C"], predicted: Bool[np.ndarray, "N C"]
) -> list[Metric]:
    """F1 (macro, micro, weighted) and the share of examples with exactly the right labels."""
    exact = np.stack([(gold == predicted).all(1), np.ones(len(gold))], axis=1).astype(np.float64)
    return [*_f1_metrics(gold, predicted), additive("exact_match", exact, "mean")]


def _f1_metrics(gold: Bool[np.ndarray, "N C"], predicted: Bool[np.ndarray, "N C"]) -> list[Metric]:
    """Macro, micro and weighted."""
    counts = np.concatenate([gold & predicted, predicted, gold], axis=1).astype(np.float32)
    forms = {"macro_f1": "macro_f1", "micro_f1": "f1", "weighted_f1": "weighted_f1"}
    return [additive(name, counts, form) for name, form in forms.items()]


def per_class_metrics(
    gold: Bool[np.ndarray, "N C"], predicted: Bool[np.ndarray, "N C"], label: int
) -> dict[str, Metric]:
    """Precision, recall and F1 of one class."""
    own, found = gold[:, label], predicted[:, label]
    per_example = np.stack([own & found, found, own], axis=1).astype(np.float64)
    return {
        "precision": additive("precision", per_example, lambda s: ratio(s[:, 0], s[:, 1])),
        "recall": additive("recall", per_example, lambda s: ratio(s[:, 0], s[:, 2])),
        "f1": additive("f1", per_example, "f1"),
    }


def operating_metrics(
    gold: Bool[np.ndarray, " N"], flagged: Bool[np.ndarray, " N"]
) -> list[Metric]:
    """Of a yes-or-no decision: sensitivity, specificity, predictive values, share of yes."""
    per_example = np.stack([gold & flagged, gold & ~flagged, ~gold & flagged, ~gold & ~flagged], 1)

    def share(name: str, above: Sequence[int], below: Sequence[int]) -> Metric:
        return additive(
            name,
            per_example.astype(np.float64),
            lambda sums: ratio(sums[:, list(above)].sum(1), sums[:, list(below)].sum(1)),
        )

    hit, missed, false, passed = range(4)
    return [
        share("sensitivity", [hit], [hit, missed]),
        share("specificity", [passed], [false, passed]),
        share("ppv", [hit], [hit, false]),
        share("npv", [passed], [missed, passed]),
        share("flagged", [hit, false], [hit, missed, false, passed]),
    ]


def brier(gold: Bool[np.ndarray, "N C"], probabilities: Float[np.ndarray, "N C"]) -> Metric:
    """Brier (1950): mean over examples of the squared differences, summed over classes."""
    squared = ((probabilities - gold) ** 2).sum(1)
    per_example = np.stack([squared, np.ones(len(gold))], axis=1)
    return additive(
        "brier", per_example, lambda sums: ratio(sums[:, 0], sums[:, 1]), higher_is_better=False
    )


def calibration_error(
    correct: Bool[np.ndarray, " N"], confidence: Float[np.ndarray, " N"]
) -> Metric:
    """Expected calibration error (Guo et al. 2017) over 15 bins of equal width."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    one_hot = np.eye(CALIBRATION_BINS)[bins]
    per_example = np.concatenate(
        [one_hot * confidence[:, None], one_hot * correct[:, None], one_hot], axis=1
    )

    def score(sums: np.ndarray) -> Values:
        confidences, hits, counts = np.split(sums, 3, axis=1)
        return ratio(np.abs(confidences - hits).sum(1), counts.sum(1))

    return additive("calibration_error", per_example, score, higher_is_better=False)


def auroc(gold: Bool[np.ndarray, " N"], scores: Float[np.ndarray, " N"]) -> Metric:
    """Area under the ROC curve, ties counted half; NaN where a draw has one class alone."""
    order, groups = _order(scores)
    own = gold[order].astype(np.float64)

    def of_weights(weights: np.ndarray | None) -> Values:
        weights = np.ones((1, len(gold))) if weights is None else np.asarray(weights, float)
        positive = np.add.reduceat(weights[:, order] * own, groups, axis=1)
        negative = np.add.reduceat(weights[:, order] * (1 - own), groups, axis=1)
        above = np.cumsum(positive, axis=1) - positive  # scored higher
        wins = (negative * (above + positive / 2)).sum(1)
        pairs = positive.sum(1) * negative.sum(1)
        return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)

    return Metric("auroc", of_weights)


def auprc(gold: Bool[np.ndarray, " N"], scores: Float[np.ndarray, " N"]) -> Metric:
    """Average precision, as scikit-learn's; NaN where a draw has no positive."""
    order, groups = _order(scores)
    own = gold[order].astype(np.float64)

    def of_weights(weights: np.ndarray | None) -> Values:
        weights = np.ones((1, len(gold))) if weights is None else np.asarray(weights, float)
        positive = np.add.reduceat(weights[:, order] * own, groups, axis=1)
        everything = np.add.reduceat(weights[:, order], groups, axis=1)
        precision = ratio(np.cumsum(positive, axis=1), np.cumsum(everything, axis=1))
        total = positive.sum(1)
        area = (positive * precision).sum(1)
        return np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0)

    return Metric("auprc", of_weights)


def _order(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Examples from the highest score down, and where each different score begins."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]]))


def _matthews(square: Float[np.ndarray, "D C C1"]) -> Values:
    """Gorodkin (2004), for several classes; answers without a class are a class of their own."""
    gold, predicted, total = square.sum(2), square.sum(1), square.sum((1, 2))
    correct = np.trace(square[:, :, : gold.shape[1]], axis1=1, axis2=2)
    shared = (gold * predicted[:, : gold.shape[1]]).sum(1)
    above = correct * total - shared
    below = np.sqrt(total**2 - (predicted**2).sum(1)) * np.sqrt(total**2 - (gold**2).sum(1))
    return ratio(above, below)
