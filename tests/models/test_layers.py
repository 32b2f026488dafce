"""Dropout: its rate, and masks that have nothing to do with each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.layers import dropout


def masks(key, shape, rate):
    return np.asarray(dropout(jnp.ones(shape), rate, key)) == 0


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_meets_its_rate_along_every_axis(rate):
    dropped = masks(jax.random.key(3), (200, 300, 40), rate)
    values = np.asarray(dropout(jnp.ones((8, 8)), rate, jax.random.key(3)))
    assert set(np.unique(values)) == {0.0, np.float32(1 / (1 - rate))}
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        spread = np.sqrt(rate * (1 - rate) / (dropped.size / dropped.shape[axis]))
        assert np.abs(dropped.mean(others) - rate).max() < 5 * spread


def test_masks_are_uncorrelated_over_places_rows_and_keys():
    """As two independent draws of coins: correlations within five standard deviations of none."""
    size = 1 << 18
    keys = jax.random.split(jax.random.key(0), 8)
    rows = masks(keys, (8, size), 0.5).astype(np.float64) - 0.5
    again = masks(jax.random.split(jax.random.key(1), 8), (8, size), 0.5) - 0.5
    limit = 5 * 0.25 / np.sqrt(size)
    assert np.abs((rows @ rows.T / size)[~np.eye(8, dtype=bool)]).max() < limit
    assert np.abs(rows @ again.T / size).max() < limit
    for shift in [*range(1, 17), 64, 100, 320, 512, 4096, 65536]:
        assert np.abs((rows * np.roll(rows, shift, axis=1)).mean(1)).max() < limit, shift


def test_a_row_has_the_mask_of_its_key_alone():
    keys = jax.random.split(jax.random.key(5), 3)
    together = masks(keys, (3, 5, 7), 0.3)
    for i in range(3):
        np.testing.assert_array_equal(together[i], masks(keys[i], (5, 7), 0.3))
