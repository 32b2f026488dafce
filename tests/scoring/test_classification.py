"""Scores of classification against scikit-learn, and as functions of multiplicities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from medjax.scoring.classification import (
    auprc,
    auroc,
    brier,
    calibration_error,
    multi_label_metrics,
    per_class_metrics,
    single_label_metrics,
)

AVERAGES = ("macro", "micro", "weighted")


def by_name(metrics):
    return {metric.name: metric for metric in metrics}


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), count=st.integers(1, 60))
def test_single_label_equals_scikit_learn(seed, classes, count):
    """Also with classes that occur nowhere."""
    rng = np.random.default_rng(seed)
    gold, predicted = rng.integers(0, classes, (2, count))
    found = by_name(single_label_metrics(gold, predicted, classes))
    labels = list(range(classes))
    assert found["accuracy"].value == pytest.approx(sklearn.accuracy_score(gold, predicted))
    for average in AVERAGES:
        expected = sklearn.f1_score(
            gold, predicted, labels=labels, average=average, zero_division=0
        )
        assert found[f"{average}_f1"].value == pytest.approx(expected)
    expected = sklearn.matthews_corrcoef(gold, predicted)
    assert found["matthews"].value == pytest.approx(expected, abs=1e-9)


def test_an_answer_without_class_is_an_error():
    gold = np.array([0, 0, 1, 1])
    found = by_name(single_label_metrics(gold, np.array([0, -1, 1, -1]), 2))
    assert found["accuracy"].value == 0.5
    assert found["macro_f1"].value == pytest.approx(2 / 3)
    assert found["micro_f1"].value == pytest.approx(2 * 2 / (2 + 4))


def test_relations_leave_the_class_for_none_out_of_f1():
    gold, predicted = np.array([0, 0, 1, 2, 2, 0]), np.array([0, 1, 1, 2, 0, 0])
    found = by_name(single_label_metrics(gold, predicted, 3, positive=[1, 2]))
    expected = sklearn.f1_score(gold, predicted, labels=[1, 2], average="micro")
    assert found["micro_f1"].value == pytest.approx(expected)
    assert found["accuracy"].value == pytest.approx(4 / 6)


@given(seed=st.integers(0, 10**6), labels=st.integers(1, 4), count=st.integers(1, 40))
def test_multi_label_equals_scikit_learn(seed, labels, count):
    rng = np.random.default_rng(seed)
    gold, predicted = rng.random((2, count, labels)) < 0.4
    found = by_name(multi_label_metrics(gold, predicted))
    own = (gold[:, 0], predicted[:, 0]) if labels == 1 else (gold, predicted)
    for average in AVERAGES if labels > 1 else ():
        expected = sklearn.f1_score(*own, average=average, zero_division=0)
        assert found[f"{average}_f1"].value == pytest.approx(expected)
    assert found["exact_match"].value == pytest.approx(sklearn.accuracy_score(*own))
    one = per_class_metrics(gold, predicted, 0)
    for name, score in (("precision", sklearn.precision_score), ("recall", sklearn.recall_score)):
        expected = score(gold[:, 0], predicted[:, 0], zero_division=0)
        assert one[name].value == pytest.approx(expected)


@given(seed=st.integers(0, 10**6), steps=st.integers(1, 12))
def test_areas_equal_scikit_learn_with_ties(seed, steps):
    rng = np.random.default_rng(seed)
    gold = rng.permutation(np.arange(40) % 3 == 0)
    scores = rng.integers(0, steps + 1, 40) / steps
    assert auroc(gold, scores).value == pytest.approx(sklearn.roc_auc_score(gold, scores))
    assert auprc(gold, scores).value == pytest.approx(sklearn.average_precision_score(gold, scores))


def test_areas_of_one_class_alone_are_not_numbers():
    scores = np.array([0.1, 0.9])
    assert np.isnan(auroc(np.array([True, True]), scores).value)
    assert np.isnan(auprc(np.array([False, False]), scores).value)


def test_brier_and_calibration():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    gold = np.array([0, 1, 1, 0])
    expected = sklearn.brier_score_loss(gold, probabilities[:, 1]) * 2  # summed over both classes
    assert brier(np.eye(2, dtype=bool)[gold], probabilities).value == pytest.approx(expected)
    correct = np.array([True, True, False, True])
    error = calibration_error(correct, np.array([0.9, 0.8, 0.6, 0.5]))
    assert error.value == pytest.approx((0.1 + 0.2 + 0.6 + 0.5) / 4)
    assert not error.higher_is_better


@given(seed=st.integers(0, 10**6))
def test_weights_are_multiplicities(seed):
    """A metric of weights is the metric of the examples repeated so often."""
    rng = np.random.default_rng(seed)
    gold, predicted = rng.integers(0, 3, (2, 25))
    probabilities = rng.dirichlet(np.ones(3), 25)
    hot, other = rng.random((2, 25, 3)) < 0.4
    weights = rng.integers(0, 4, (2, 25))
    weights[:, :2] = 1

    def everything(i):
        own = gold[i] == 1
        return [
            *single_label_metrics(gold[i], predicted[i], 3),
            *multi_label_metrics(hot[i], other[i]),
            brier(np.eye(3, dtype=bool)[gold[i]], probabilities[i]),
            calibration_error(gold[i] == predicted[i], probabilities[i].max(1)),
            auroc(own, probabilities[i, 1]),
            auprc(own, probabilities[i, 1]),
        ]

    values = [metric.of_weights(weights.astype(np.float32)) for metric in everything(np.arange(25))]
    for draw in range(2):
        repeated = everything(np.repeat(np.arange(25), weights[draw]))
        for found, metric in zip(values, repeated, strict=True):
            np.testing.assert_allclose(found[draw], metric.value, rtol=1e-6, atol=1e-9)
