"""Masked language modelling: which tokens are chosen, what stands for them, and how many."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medjax.objectives.blocks import words_cap
from medjax.objectives.config import MaskedLmConfig
from medjax.objectives.masked_lm import corrupt, num_predictions, words

from .conftest import MASK, SEPARATOR, make_blocks, make_vocabulary
from .test_span_corruption import kept_marks, marked


def run(config, vocabulary, blocks, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(blocks))
    return jax.device_get(
        jax.jit(partial(corrupt, config=config, vocabulary=vocabulary))(keys, blocks)
    )


def chosen_in(batch):
    """[B, L] True at the predicted positions, each of which must occur once."""
    chosen = np.zeros(batch["input_ids"].shape, int)
    for row, positions, weights in zip(chosen, batch["positions"], batch["weights"], strict=True):
        np.add.at(row, positions[weights > 0], 1)
    assert chosen.max() <= 1
    return chosen.astype(bool)


def word_indices(block, vocabulary):
    """The word of each token, -1 for special tokens, token by token."""
    found, word = [], -1
    for i, token in enumerate(block):
        is_special = token in vocabulary.special_ids
        after_special = i == 0 or found[-1] < 0
        if not is_special and (after_special or not vocabulary.continues_word[token]):
            word += 1
        found.append(-1 if is_special else word)
    return np.array(found)


@pytest.mark.parametrize("rate, length", [(0.15, 77), (0.3, 8), (0.9, 77)])
def test_exactly_the_rate_is_predicted(vocabulary, rate, length):
    config = MaskedLmConfig(sequence_length=length, mask_rate=rate)
    blocks = make_blocks(vocabulary, 32, length)
    blocks[0] = SEPARATOR  # nothing to choose
    blocks[1, 1:] = SEPARATOR  # a single candidate
    batch = run(config, vocabulary, blocks)
    assert batch["positions"].shape == (32, num_predictions(config))
    chosen = chosen_in(batch)
    candidates = ~np.isin(blocks, vocabulary.special_ids)
    assert not chosen[~candidates].any()
    expected = np.maximum(np.round(rate * candidates.sum(axis=1)), 1) * candidates.any(axis=1)
    np.testing.assert_array_equal(chosen.sum(axis=1), expected)
    np.testing.assert_array_equal(batch["input_ids"][~chosen], blocks[~chosen])
    labels = np.take_along_axis(blocks, batch["positions"], axis=1)
    np.testing.assert_array_equal(batch["labels"], labels)


def test_replacements_are_80_10_10(vocabulary):
    config = MaskedLmConfig(sequence_length=128, mask_rate=0.5)
    blocks = make_blocks(vocabulary, 400, 128)
    batch = run(config, vocabulary, blocks)
    chosen = chosen_in(batch)
    old, new = blocks[chosen], batch["input_ids"][chosen]
    ordinary = vocabulary.size - len(vocabulary.special_ids)
    random = (new != MASK) & (new != old)
    by_chance = 0.1 / ordinary  # a random token may be the token itself
    counts = [(new == MASK).sum(), random.sum(), (new == old).sum()]
    expected = np.array([0.8, 0.1 - by_chance, 0.1 + by_chance]) * len(new)
    assert stats.chisquare(counts, expected).pvalue > 0.01
    assert not np.isin(new[random], vocabulary.special_ids).any()
    assert stats.chisquare(np.unique(new[random], return_counts=True)[1]).pvalue > 0.01
    assert len(np.unique(new[random])) == ordinary


def test_all_masks_and_every_position_alike(vocabulary):
    config = MaskedLmConfig(sequence_length=40, mask_rate=0.3, replacement="mask")
    blocks = make_blocks(vocabulary, 4000, 40, note_length=10**9)
    batch = run(config, vocabulary, blocks)
    chosen = chosen_in(batch)
    assert (batch["input_ids"][chosen] == MASK).all()
    assert stats.chisquare(chosen.sum(axis=0)).pvalue > 0.01
    pairs = chosen[:, :-1] & chosen[:, 1:]  # neighbours: 12 of 40 without replacement
    assert pairs.mean() == pytest.approx(12 * 11 / (40 * 39), rel=0.02)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), rate=st.sampled_from([0.15, 0.4]))
def test_whole_words_are_never_cut(seed, rate):
    vocabulary = make_vocabulary()
    config = MaskedLmConfig(sequence_length=60, mask_rate=rate, whole_word=True)
    blocks = make_blocks(vocabulary, 16, 60, seed)
    chosen = chosen_in(run(config, vocabulary, blocks, seed))
    for row, block in zip(chosen, blocks, strict=True):
        word = word_indices(block, vocabulary)
        sizes = np.bincount(word[word >= 0])
        picked = np.bincount(word[row], minlength=len(sizes))
        assert np.isin(picked, [0]).sum() + (picked == sizes).sum() == len(sizes)
        number = round(rate * (word >= 0).sum())
        assert number - sizes.max() < row.sum() <= number


def test_notes_are_kept_apart(vocabulary):
    blocks = make_blocks(vocabulary, 8, 60)
    blocks[0, [0, 1, -1]] = SEPARATOR
    config = MaskedLmConfig(sequence_length=60, note_attention="notes")
    batch = run(config, vocabulary, blocks)
    for block, segments, positions in zip(
        blocks, batch["segment_ids"], batch["position_ids"], strict=True
    ):
        note, position = 1, 0
        for token, found_note, found_position in zip(block, segments, positions, strict=True):
            assert (found_note, found_position) == (note, position)
            position += 1
            if token == SEPARATOR:
                note, position = note + 1, 0
    config = MaskedLmConfig(sequence_length=60)
    assert set(batch) - set(run(config, vocabulary, blocks)) == {"segment_ids", "position_ids"}


@pytest.mark.parametrize("share", [0.0, 0.15, 0.7])
def test_words_mask_exactly_the_marked_tokens(vocabulary, share):
    config = MaskedLmConfig(sequence_length=60)
    blocks, marks = make_blocks(vocabulary, 16, 60), marked(16, 60, 3, share)
    check = jax.jit(partial(words, config=config, vocabulary=vocabulary))
    batch = jax.device_get(check(blocks, marks))
    chosen = chosen_in(batch)
    kept = np.array([kept_marks(row, 60) for row in marks]).astype(int)
    np.testing.assert_array_equal(chosen, kept > 0)
    np.testing.assert_array_equal(batch["input_ids"], np.where(chosen, MASK, blocks))
    assert batch["positions"].shape == (16, words_cap(60))
    assert (batch["bytes"] * batch["weights"]).sum() == (kept[chosen] - 1).sum()
    assert (share == 0.7) == (chosen.sum() < np.count_nonzero(marks))


def test_rows_depend_on_their_own_key_alone(vocabulary):
    config = MaskedLmConfig(sequence_length=64, whole_word=True)
    blocks = make_blocks(vocabulary, 8, 64)
    keys = jax.random.split(jax.random.key(0), 8)
    check = jax.jit(partial(corrupt, config=config, vocabulary=vocabulary))
    whole = check(keys, blocks)
    halves = [check(keys[part], blocks[part]) for part in (slice(0, 4), slice(4, 8))]
    for name, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([half[name] for half in halves]))
