"""Packing: every text once, no row too full, and not many more rows than must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.data.packing import pack


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 120))
def test_every_text_stands_in_one_row(lengths, capacity):
    lengths = np.array(lengths, np.int64)
    packs = pack(lengths, capacity)
    assert sorted(text for row in packs for text in row) == list(range(len(lengths)))
    filled = np.array([lengths[row].sum() for row in packs], np.int64)
    assert (filled <= capacity).all()
    if len(packs) > 1:  # of a row that is not half full, no other has room for a text
        assert (filled > capacity // 2).sum() >= len(packs) - 1
    assert [row[0] for row in packs] == sorted((row[0] for row in packs), key=lambda i: -lengths[i])


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).geometric(1 / 150, 20_000).clip(8, 1024)
    packs = pack(lengths, 1024)
    assert lengths.sum() / (1024 * len(packs)) > 0.99


def test_a_text_that_fits_nowhere():
    with pytest.raises(ValueError, match="from 1 to 4"):
        pack(np.array([2, 5]), 4)
