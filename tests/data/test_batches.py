"""Data order: a pure function of step, the same for any number of processes, every block once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.config import UserError
from medjax.data.batches import (
    Batches,
    Validation,
    mixture_pattern,
    permutation_keys,
    permute,
)
from medjax.data.shards import open_split


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 5))
def test_permutation_is_a_bijection(size, seed, epoch):
    image = permute(np.arange(size), size, permutation_keys(seed, 0, epoch))
    np.testing.assert_array_equal(np.sort(image), np.arange(size))


def test_permutation_is_pinned():
    """No version of any library may change the order of a run's data."""
    keys = permutation_keys(seed=0, source=0, epoch=0)
    image = permute(np.arange(6), 1_000_000, keys)
    assert image.tolist() == [293703, 69074, 780155, 171478, 508360, 760210]
    assert permute(np.array([5, 0]), 1_000_000, keys).tolist() == [760210, 293703]


def test_permutation_of_large_ranges_looks_random():
    size = 10**12 + 39
    image = permute(np.arange(20_000), size, permutation_keys(3, 1, 0)) / size
    assert abs(image.mean() - 0.5) < 0.01 and abs(np.corrcoef(image[1:], image[:-1])[0, 1]) < 0.03
    assert len(np.unique(image)) == 20_000


def test_every_block_once_an_epoch_in_a_fresh_order(make_folder):
    split = open_split(make_folder([37] * 40), "train")
    batches = Batches([(split, 1.0)], block_length=16, global_batch=4, seed=1)
    blocks = 37 * 40 // 16
    steps = [batches[s]["blocks"] for s in range(2 * blocks // 4)]
    rows = np.concatenate(steps)[: 2 * blocks]
    np.testing.assert_array_equal(rows - rows[:, :1], np.broadcast_to(np.arange(16), rows.shape))
    first, second = rows[:blocks, 0] // 16, rows[blocks : 2 * blocks, 0] // 16
    assert sorted(first) == list(range(blocks))
    assert set(second) <= set(range(blocks)) and len(set(second)) == len(second)
    assert not np.array_equal(first[: len(second)], second)
    assert batches.epochs(blocks // 4) == [pytest.approx(blocks // 4 * 4 / blocks)]


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_slices_of_processes_make_up_the_global_batch(make_folder, processes):
    folder = make_folder([37] * 40)
    train, validation = open_split(folder, "train"), open_split(folder, "validation")
    mixture = [(train, 0.7), (validation, 0.3)]
    whole = Batches(mixture, 16, 8, 1)
    parts = [Batches(mixture, 16, 8, 1, p, processes) for p in range(processes)]
    for step in (0, 3, 1000, 12_345):
        joined = np.concatenate([p[step]["blocks"] for p in parts])
        np.testing.assert_array_equal(joined, whole[step]["blocks"])
    evaluation = Validation(validation, 16, 8)
    parts = [Validation(validation, 16, 8, p, processes) for p in range(processes)]
    for i in range(len(evaluation)):
        for name, values in evaluation[i].items():
            np.testing.assert_array_equal(np.concatenate([p[i][name] for p in parts]), values)


def test_a_batch_depends_on_its_step_alone(make_folder):
    split = open_split(make_folder([37] * 40), "train")
    forward = Batches([(split, 1.0)], 16, 4, seed=5)
    seen = [forward[s]["blocks"].copy() for s in range(50)]
    again = Batches([(split, 1.0)], 16, 4, seed=5)
    for step in (49, 0, 17, 17, 3):
        np.testing.assert_array_equal(again[step]["blocks"], seen[step])
    other = Batches([(split, 1.0)], 16, 4, seed=6)
    assert any(not np.array_equal(other[s]["blocks"], seen[s]) for s in range(3))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=5), st.integers(0, 10**9))
def test_mixture_keeps_its_shares_everywhere(weights, start):
    pattern = mixture_pattern(weights)
    shares = np.array(weights) / sum(weights)
    source, counter = pattern.locate(start + np.arange(300))
    for i, share in enumerate(shares):
        own = counter[source == i]
        np.testing.assert_array_equal(own, pattern.counts_before(start)[i] + np.arange(len(own)))
        assert abs(len(own) - 300 * share) < len(weights) + 1
    assert pattern.counts_before(start).sum() == start


def test_validation_covers_every_block_once(make_folder):
    split = open_split(make_folder([37] * 3), "validation")
    validation = Validation(split, block_length=16, global_batch=4)
    assert len(validation) == 2
    batches = [validation[i] for i in range(2)]
    assert [b["valid"].tolist() for b in batches] == [[1, 1, 1, 1], [1, 1, 0, 0]]
    rows = np.concatenate([b["blocks"][b["valid"] == 1] for b in batches])
    np.testing.assert_array_equal(rows.ravel(), np.arange(96))
    words = np.concatenate([b["words"][b["valid"] == 1] for b in batches])
    assert words.dtype == np.uint16
    np.testing.assert_array_equal(words.ravel(), np.arange(96) % 3)
    with pytest.raises(IndexError):
        validation[2]


def test_what_is_too_small_or_uneven_says_so_with_numbers(make_folder):
    folder = make_folder([37] * 3)
    train, validation = open_split(folder, "train"), open_split(folder, "validation")
    with pytest.raises(UserError, match="global batch 6 does not divide over 4 processes"):
        Batches([(train, 1.0)], 16, 6, 0, 0, 4)
    with pytest.raises(UserError, match="111 tokens, 6 blocks of 16, but a batch takes 8"):
        Batches([(train, 1.0)], 16, 8, 0)
    with pytest.raises(UserError, match="111 tokens, less than one block of 112"):
        Validation(validation, 112, 1)
    with pytest.raises(UserError, match="split train has no masked words"):
        Validation(train, 16, 1)
    with pytest.raises(UserError, match="must all be positive"):
        mixture_pattern([1.0, 0.0])
    with pytest.raises(UserError, match="smallest is 1.0e-05 of their sum"):
        mixture_pattern([1.0, 1e-5])
