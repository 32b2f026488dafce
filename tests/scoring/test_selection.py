"""What validation chooses: thresholds, temperature, when there is no answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from medjax.scoring.selection import (
    best_f1_thresholds,
    best_null_threshold,
    fit_temperature,
    threshold_for_recall,
)
from medjax.scoring.squad import token_f1


@given(seed=st.integers(0, 10**6), steps=st.integers(2, 20))
def test_no_threshold_is_better(seed, steps):
    rng = np.random.default_rng(seed)
    gold = rng.random((30, 2)) < 0.3
    scores = rng.integers(0, steps, (30, 2)) / steps
    for label, threshold in enumerate(best_f1_thresholds(gold, scores)):
        own = gold[:, label]
        if not own.any():
            assert threshold == np.inf
            continue
        tried = [*np.unique(scores[:, label]), 2.0]
        best = max(f1_score(own, scores[:, label] >= t, zero_division=0) for t in tried)
        assert f1_score(own, scores[:, label] >= threshold) == pytest.approx(best)


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.98, 1.0])
def test_threshold_for_a_recall_is_the_highest(recall):
    rng = np.random.default_rng(0)
    gold, scores = rng.random(500) < 0.2, rng.random(500)
    threshold = threshold_for_recall(gold, scores, recall)
    assert (scores[gold] >= threshold).mean() >= recall
    assert (scores[gold] > threshold).mean() < recall


def test_temperature_undoes_a_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    gumbel = rng.gumbel(size=logits.shape)
    gold = (logits + gumbel).argmax(1)  # drawn from the softmax of the logits
    assert fit_temperature(logits * 3, gold) == pytest.approx(3, rel=0.1)


@given(seed=st.integers(0, 10**6))
def test_no_null_threshold_is_better(seed):
    rng = np.random.default_rng(seed)
    words = ["fever", "cough", "rash"]
    gold = [[words[i]] if i < 3 else [] for i in rng.integers(0, 5, 20)]
    texts = [words[i] for i in rng.integers(0, 3, 20)]
    margins = rng.integers(0, 6, 20) / 2.0

    def score(threshold):
        answers = ["" if m > threshold else t for m, t in zip(margins, texts, strict=True)]
        return sum(map(token_f1, gold, answers))

    best = max(score(t) for t in [-1.0, *margins])
    assert score(best_null_threshold(gold, texts, margins)) == best
