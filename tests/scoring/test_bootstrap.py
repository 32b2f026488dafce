"""Intervals and comparisons: what they cover, and that clusters and seeds both count."""

import numpy as np
import pytest

from medjax.scoring.bootstrap import compare, draw, interval
from medjax.scoring.classification import single_label_metrics


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
