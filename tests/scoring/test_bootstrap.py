"""Intervals and comparisons: what they cover, and that clusters and seeds both count."""

import numpy as np
import pytest

from medjax.scoring.bootstrap import compare, interval, resample
from medjax.scoring.classification import single_label_metrics


def accuracy(right):
    """The metric of answers that are right (1) or wrong (0)."""
    return single_label_metrics(np.ones(len(right), int), np.asarray(right), 2)[0]


def test_width_is_that_of_the_normal_approximation():
    right = np.arange(1000) % 4 > 0
    found = interval([accuracy(right.astype(int))], np.arange(1000), draws=4000)
    error = np.sqrt(0.75 * 0.25 / 1000)
    assert found.mean == 0.75 and np.isnan(found.deviation)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert (found.seeds, found.clusters) == (1, 1000)


def test_examples_of_a_cluster_are_no_evidence_of_their_own():
    """Fifty copies of twenty examples tell no more than the twenty."""
    right = np.tile(np.arange(20) % 2, 50)
    alone = interval([accuracy(right)], np.arange(1000))
    together = interval([accuracy(right)], np.tile(np.arange(20), 50))
    assert together.high - together.low > 5 * (alone.high - alone.low)
    assert together.clusters == 20


def test_seeds_add_to_the_interval_and_have_a_column():
    rng = np.random.default_rng(0)
    seeds = [accuracy((rng.random(2000) < share).astype(int)) for share in (0.6, 0.7, 0.8)]
    found = interval(seeds, np.arange(2000))
    assert found.deviation == pytest.approx(0.1, abs=0.02)
    one = interval(seeds[:1], np.arange(2000))
    assert found.high - found.low > 3 * (one.high - one.low)


def test_draws_are_bounded_in_memory_and_always_the_same(monkeypatch):
    from medjax.scoring import bootstrap

    metric, clusters = [accuracy(np.arange(300) % 2)], np.arange(300) // 3
    whole = resample(metric, clusters, 50, seed=3)
    monkeypatch.setattr(bootstrap, "CELLS", 300)  # one draw at a time
    np.testing.assert_array_equal(resample(metric, clusters, 50, seed=3), whole)
    assert not np.array_equal(resample(metric, clusters, 50, seed=4), whole)


def test_paired_comparison():
    rng = np.random.default_rng(1)
    first = (rng.random(500) < 0.7).astype(int)
    second = np.where(rng.random(500) < 0.1, 0, first)  # the same, a tenth of it spoilt
    clusters = np.arange(500)
    found = compare([accuracy(first)], [accuracy(second)], clusters)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert found.low > 0 and found.p_value < 0.01
    alone = interval([accuracy(first)], clusters)
    assert found.high - found.low < alone.high - alone.low  # pairs are compared, not averages
    same = compare([accuracy(first)], [accuracy(first)], clusters)
    assert same.mean == 0 and same.p_value == 1
