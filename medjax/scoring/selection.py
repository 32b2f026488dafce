"""What is chosen on validation and then applied to test: thresholds and a temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.scoring.metric import f1_score
from medjax.scoring.squad import token_f1

MAX_LOG_TEMPERATURE = 3.0
NEVER = 2.0  # no probability is as high


def best_f1_thresholds(
    gold: Bool[np.ndarray, "N C"], probabilities: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, " C"]:
    """For each label the probability from which on "yes" gives the best F1.

    Between two probabilities it is their mean; of equally good ones the highest. A label without
    an example gets NEVER.
    """
    thresholds = np.full(gold.shape[1], NEVER)
    for label in range(gold.shape[1]):
        own = gold[:, label]
        if not own.any():
            continue
        order = np.argsort(-probabilities[:, label], kind="stable")
        scores = probabilities[order, label]
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of equal scores
        correct = np.cumsum(own[order])[last]
        best = last[np.argmax(f1_score(correct, last + 1.0, np.full(len(last), own.sum())))]
        below = scores[best + 1] if best + 1 < len(scores) else scores[best]
        thresholds[label] = (scores[best] + below) / 2
    return thresholds


def threshold_for_recall(
    gold: Bool[np.ndarray, " N"], probabilities: Float[np.ndarray, " N"], recall: float
) -> float:
    """The highest probability from which on "yes" finds this share of the positives."""
    positive = np.sort(probabilities[gold])[::-1]
    if not len(positive):
        return NEVER
    return float(positive[int(np.ceil(recall * len(positive) - 1e-9)) - 1])


def fit_temperature(logits: Float[np.ndarray, "N C"], gold: Int[np.ndarray, " N"]) -> float:
    """The temperature with the least negative log-likelihood (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.arange(len(gold))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, gold].mean()

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def best_null_threshold(
    gold: Sequence[Sequence[str]], texts: Sequence[str], margins: Float[np.ndarray, " N"]
) -> float:
    """The margin (null score less that of the best answer) above which "no answer" is best in F1.

    Args:
      texts: the best answer of each question that is not empty.
    """
    answered = np.array([token_f1(own, text) for own, text in zip(gold, texts, strict=True)])
    empty = np.array([token_f1(own, "") for own in gold])
    order = np.argsort(margins, kind="stable")
    margins = margins[order]
    # with the threshold after place k, questions up to k are answered
    total = np.concatenate([[0.0], np.cumsum((answered - empty)[order])])
    allowed = np.concatenate([[True], margins[1:] != margins[:-1], [True]])
    k = int(np.argmax(np.where(allowed, total, -np.inf)))
    if k == 0:
        return float(margins[0]) - 1.0
    return float(margins[-1]) + 1.0 if k == len(margins) else float(margins[k - 1 : k + 1].mean())
