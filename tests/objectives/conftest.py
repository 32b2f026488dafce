"""A small vocabulary, and blocks of random notes in it."""

import numpy as np
import pytest

from medjax.data.tokenize import Vocabulary

PAD, SEPARATOR, UNKNOWN, MASK = range(4)


def make_vocabulary(size=200, sentinels=40):
    sentinel_ids = np.arange(size - 1, size - 1 - sentinels, -1, dtype=np.int32)
    return Vocabulary(
        size=size,
        pad_id=PAD,
        separator_id=SEPARATOR,
        mask_id=MASK,
        sentinel_ids=sentinel_ids,
        special_ids=np.sort(np.r_[:4, sentinel_ids]).astype(np.int32),
        continues_word=np.random.default_rng(0).random(size) < 0.4,
    )


def make_blocks(vocabulary, rows, length, seed=0, note_length=15):
    """Random ordinary tokens, with a separator after each about `note_length` tokens."""
    rng = np.random.default_rng(seed)
    ordinary = np.setdiff1d(np.arange(vocabulary.size), vocabulary.special_ids)
    blocks = rng.choice(ordinary, (rows, length)).astype(np.int32)
    blocks[rng.random((rows, length)) < 1 / note_length] = SEPARATOR
    return blocks


@pytest.fixture(scope="session")
def vocabulary():
    return make_vocabulary()
