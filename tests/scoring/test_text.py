"""Scores of generated text."""

import numpy as np
import pytest

from medjax.scoring.text import text_metrics


def values(references, predicted):
    return {m.name: m.value for m in text_metrics(references, predicted)}


def test_known_values():
    """Counted by hand: 4 of 6 and 4 words shared, 2 of 5 and 3 pairs, longest common run 3."""
    found = values([["the patient denies chest pain today"]], ["patient chest pain denies"])
    assert found["rouge1"] == pytest.approx(2 * (4 / 4) * (4 / 6) / (4 / 4 + 4 / 6))
    assert found["rouge2"] == pytest.approx(2 * (1 / 3) * (1 / 5) / (1 / 3 + 1 / 5))
    assert found["rougeL"] == pytest.approx(2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6))
    assert found["exact_match"] == 0


def test_the_best_reference_counts_and_white_space_does_not():
    found = values([["no cough", "a  rash\n"], ["x"]], ["a rash", ""])
    assert found["exact_match"] == 0.5 and found["rougeL"] == 0.5


def test_means_over_draws():
    metric = text_metrics([["a b"], ["c"]], ["a b", "d"])[0]
    np.testing.assert_allclose(metric.of_weights(np.array([[1.0, 1.0], [2.0, 0.0]])), [0.5, 1.0])
