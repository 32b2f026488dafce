"""Every row once an epoch, few shapes, little padding, and the same batches for the same seed."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.data.length_batches import MULTIPLE, length_batches


def clinical_lengths(count=4000):
    return np.random.default_rng(0).lognormal(3.5, 0.7, count).astype(int).clip(3, 256)


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=200),
    st.integers(1, 9),
    st.integers(1, 6),
)
def test_every_row_stands_in_an_epoch_once(lengths, batch_size, shapes):
    plan = length_batches(lengths, batch_size, seed=1, shapes=shapes)
    for batches in (plan.epoch(0), plan.epoch(3), plan.in_order_of_length()):
        assert batches.shape == (plan.steps_per_epoch, batch_size)
        assert sorted(batches[batches >= 0]) == list(range(len(lengths)))
        padded = {plan.padded_length(rows) for rows in batches}
        assert len(padded) <= shapes and all(p % MULTIPLE == 0 for p in padded)
        for rows in batches:
            assert max(np.array(lengths)[rows[rows >= 0]]) <= plan.padded_length(rows)


@pytest.mark.parametrize("shapes", [1, 2, 3])
def test_edges_are_the_best_there_are(shapes):
    lengths = np.array([3, 3, 9, 30, 31, 50, 70, 70, 70, 71, 120, 256])
    rounded = -(-lengths // MULTIPLE) * MULTIPLE

    def cost(edges):
        return sum(min(e for e in edges if e >= n) for n in rounded)

    choices = itertools.combinations(sorted(set(rounded)), shapes)
    least = min(cost(edges) for edges in choices if edges[-1] == max(rounded))
    assert cost(length_batches(lengths, 1, 0, shapes).edges) == least


def test_padding_is_small_and_the_order_random():
    plan = length_batches(clinical_lengths(), 32, seed=0)
    assert plan.padding(plan.epoch(0)) < 0.25
    whole = length_batches(clinical_lengths(), 32, seed=0, shapes=1)
    assert whole.padding(whole.epoch(0)) > 0.6
    assert not np.array_equal(plan.epoch(0), plan.epoch(1))
    np.testing.assert_array_equal(plan.epoch(1), plan.epoch(1))
    # no longest-first order across the epoch: the lengths of its halves are alike
    longest = [plan.lengths[rows[rows >= 0]].max() for rows in plan.epoch(0)]
    half = len(longest) // 2
    assert abs(np.mean(longest[:half]) - np.mean(longest[half:])) < 0.25 * np.mean(longest)
