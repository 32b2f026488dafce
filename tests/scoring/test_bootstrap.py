"""Intervals and comparisons: what they cover, and that clusters and seeds both count."""

import numpy as np
import pytest
from scipy.stats import permutation_test

from medjax.scoring.bootstrap import compare, draw, interval
from medjax.scoring.classification import single_label_metrics
from medjax.scoring.metric import Metric
from medjax.scoring.paired import group_counts, holm, permutation


def accuracy(right):
    """The metric of answers that are right (1) or wrong (0)."""
    return single_label_metrics(np.ones(len(right), int), np.asarray(right), 2)[0]


def test_width_is_that_of_the_normal_approximation():
    right = np.arange(1000) % 4 > 0
    found = interval(draw([accuracy(right.astype(int))], np.arange(1000), 4000))
    error = np.sqrt(0.75 * 0.25 / 1000)
    assert found.mean == 0.75 and np.isnan(found.deviation)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert (found.seeds, found.clusters) == (1, 1000)


def test_examples_of_a_cluster_are_no_evidence_of_their_own():
    """Fifty copies of twenty examples tell no more than the twenty."""
    right = np.tile(np.arange(20) % 2, 50)
    alone = interval(draw([accuracy(right)], np.arange(1000)))
    together = interval(draw([accuracy(right)], np.tile(np.arange(20), 50)))
    assert together.high - together.low > 5 * (alone.high - alone.low)
    assert together.clusters == 20


def test_seeds_add_to_the_interval_and_have_a_column():
    rng = np.random.default_rng(0)
    seeds = [accuracy((rng.random(2000) < share).astype(int)) for share in (0.6, 0.7, 0.8)]
    found = interval(draw(seeds, np.arange(2000)))
    assert found.deviation == pytest.approx(0.1, abs=0.02)
    one = interval(draw(seeds[:1], np.arange(2000)))
    assert found.high - found.low > 3 * (one.high - one.low)


def test_draws_are_bounded_in_memory_and_always_the_same(monkeypatch):
    from medjax.scoring import bootstrap

    metric, clusters = [accuracy(np.arange(300) % 2)], np.arange(300) // 3
    whole = draw(metric, clusters, 50, seed=3).drawn
    monkeypatch.setattr(bootstrap, "CELLS", 300)  # one draw at a time
    np.testing.assert_array_equal(draw(metric, clusters, 50, seed=3).drawn, whole)
    assert not np.array_equal(draw(metric, clusters, 50, seed=4).drawn, whole)


def test_paired_comparison():
    rng = np.random.default_rng(1)
    first = (rng.random(500) < 0.7).astype(int)
    second = np.where(rng.random(500) < 0.1, 0, first)  # the same, a tenth of it spoilt
    one, other = (draw([accuracy(right)], np.arange(500)) for right in (first, second))
    found = compare(one, other)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert found.low > 0 and found.p_value < 0.01
    alone = interval(one)
    assert found.high - found.low < alone.high - alone.low  # pairs are compared, not averages
    same = compare(one, one)
    assert same.mean == 0 and same.p_value == 1
    with pytest.raises(ValueError, match="1000 draws cannot be paired with 50"):
        compare(one, draw([accuracy(second)], np.arange(500), 50))


def test_intervals_cover_the_truth():
    """Over 300 test sets of clusters that are right together with a chance of 0.7, 95% intervals
    hold it in 92 to 98 of 100 (three standard deviations of a simulation's own chance)."""
    rng, held = np.random.default_rng(0), 0
    clusters = np.arange(300) // 3
    for _ in range(300):
        right = (rng.random(100) < 0.7)[clusters].astype(int)
        (accuracy, *_) = single_label_metrics(np.ones(300, int), right, 2)
        found = interval(draw([accuracy], clusters, 400))
        held += found.low <= 0.7 <= found.high
    assert 0.91 <= held / 300 <= 0.985


def test_permutation_equals_scipy():
    """Of accuracies: the test of paired means that scipy makes over the clusters."""
    rng = np.random.default_rng(1)
    clusters, gold = np.arange(120), np.ones(120, int)
    first, second = (rng.random(120) < 0.8).astype(int), (rng.random(120) < 0.68).astype(int)
    counts = [
        group_counts(single_label_metrics(gold, own, 2)[:1], clusters) for own in (first, second)
    ]

    def difference(a, b):
        return a.mean() - b.mean()

    known = permutation_test(
        (first, second), difference, permutation_type="samples", n_resamples=20000, rng=rng
    )
    assert permutation(*counts, swaps=20000) == pytest.approx(known.pvalue, abs=0.01)
    assert group_counts([Metric("auroc", lambda weights: weights)], clusters) is None


def test_holm_on_known_values():
    """0.01, 0.04, 0.03: three, two and one times the value, never falling."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
