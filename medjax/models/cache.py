"""Keys and values of positions already computed, and the attention of single tokens to them.

A decoder that writes token after token computes each position once and keeps its keys and values
in arrays of the final length. Several hypotheses of a row (beams) share the row's cache: a query is
given a bias that says which of the slots are its own past, so that nothing is moved when a beam
changes its parent, and memory is read once for all of them. What all rows begin with (a prompt's
instruction and examples) is a part of the cache that is there once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.models.attention import INVISIBLE
from medjax.models.matmul import row_major_transpose


class KeyValues(NamedTuple):
    """One layer's keys and values at S slots.

    Values have their slots last, so that keys and values alike are what products begin with: on CPU
    they are read as they lie (`matmul.py`).
    """

    keys: Float[Array, "B S H K"]
    values: Float[Array, "B H K S"]


def key_values(keys: Float[Array, "B S H K"], values: Float[Array, "B S H K"]) -> KeyValues:
    """Of slots that were computed together."""
    return KeyValues(keys, jnp.moveaxis(values, 1, 3))


def by_slot(cache: KeyValues) -> tuple[Float[Array, "B S H K"], Float[Array, "B S H K"]]:
    """Keys and values as they were computed."""
    return cache.keys, jnp.moveaxis(cache.values, 3, 1)


def empty(batch: int, slots: int, heads: int, width: int, dtype: jnp.dtype) -> KeyValues:
    """Slots that nothing was written to yet."""
    zeros = jnp.zeros((batch, slots, heads, width), dtype)
    return key_values(zeros, zeros)


def with_room(cache: KeyValues, slots: int) -> KeyValues:
    """The cache with empty slots after its own."""
    unchanged = (0, 0)
    keys = jnp.pad(cache.keys, [unchanged, (0, slots), unchanged, unchanged])
    return KeyValues(keys, jnp.pad(cache.values, [*3 * [unchanged], (0, slots)]))


def write(
    cache: KeyValues, keys: Float[Array, "B Q H K"], values: Float[Array, "B Q H K"], slot: Array
) -> KeyValues:
    """The cache with new keys and values from `slot` on."""

    def put(old, new, axis):
        return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis)

    new = key_values(keys, values)
    # Without the barrier XLA writes once for the loop and once more for attention: copies of all.
    return jax.lax.optimization_barrier(
        KeyValues(put(cache.keys, new.keys, 1), put(cache.values, new.values, 3))
    )


def visibility_bias(visible: Bool[Array, "*B"]) -> Float[Array, "*B"]:
    """What to add to scores so that only what is visible has any weight."""
    return jnp.where(visible, 0.0, INVISIBLE)


def attend(
    q: Float[Array, "B Q H K"], parts: Sequence[tuple[KeyValues, Float[Array, "B Q H S"]]]
) -> Float[Array, "B Q H K"]:
    """softmax(q k^T + bias) v for a few queries a row, over all parts of a cache together.

    Softmax is in float32. A part may hold fewer heads than the queries, each shared by a group of
    those next to each other; a part of one row is what all rows share.

    Args:
      parts: (keys and values, a float32 bias that is added to the scores); the first three axes of
        a bias may be 1, and its third is where heads are shared.
    """
    batch, queries, heads, width = q.shape
    shared = parts[0][0].keys.shape[2]
    group = heads // shared
    if group > 1:  # the heads of a group are queries of the same head
        q = q.reshape(batch, queries, shared, group, width).swapaxes(2, 3)
        q = q.reshape(batch, queries * group, shared, width)
        parts = [
            (own, jnp.repeat(bias, group, axis=1) if bias.shape[1] > 1 else bias)
            for own, bias in parts
        ]
    y = jax.lax.platform_dependent(q, list(parts), cpu=_by_row, default=_by_head)
    if group > 1:
        y = y.reshape(batch, queries, group, shared, width).swapaxes(2, 3)
    return y.reshape(batch, queries, heads, width)


def _by_head(q, parts):
    """A product for each row and head."""
    scores = [
        _product("bqhk,bshk->bqhs", q, own.keys, preferred_element_type=jnp.float32) + bias
        for own, bias in parts
    ]
    weights = _weights(scores, q.dtype)
    pairs = zip(weights, parts, strict=True)
    return sum(_product("bqhs,bhks->bqhk", w, own.values) for w, (own, _) in pairs)


def _by_row(q, parts):
    """A product for each row, over all heads at once: each query's other heads are zero.

    More products, but a matrix unit has nothing better to do: on CPU two to three times as fast as
    one vector for each head, which costs a copy of the cache in another order as well.
    """
    batch, queries, heads, width = q.shape
    eye = jnp.eye(heads, dtype=q.dtype)[:, :, None]
    apart = (q[:, :, :, None] * eye).reshape(batch, queries * heads, heads * width)
    scores = []
    for own, bias in parts:
        keys = own.keys.reshape(*own.keys.shape[:2], heads * width)
        found = _cache_first("bsd,bqd->bsq", keys, apart, preferred_element_type=jnp.float32)
        scores.append(found.reshape(batch, queries, heads, -1) + bias)
    mixed = 0
    for weights, (own, _) in zip(_weights(scores, q.dtype), parts, strict=True):
        values = own.values.reshape(len(own.values), heads * width, -1)
        weights = weights.reshape(batch, queries * heads, -1)
        mixed = mixed + _cache_first("bds,bqs->bdq", values, weights)
    return jnp.sum(mixed.reshape(batch, queries, heads, heads, width) * eye, axis=3)


def _product(indices: str, x: Array, y: Array, **options) -> Array:
    """einsum, where a single row of y is that of all rows of x."""
    if y.shape[0] == 1 and x.shape[0] > 1:
        first, second = indices.split(",")
        return jnp.einsum(f"{first},{second[1:]}", x, y[0], **options)
    return jnp.einsum(indices, x, y, **options)


def _cache_first(indices: str, cache: Array, x: Array, **options) -> Array:
    """The same with queries last, which are put first in the result."""
    own, rest = indices.split(",")
    x_indices, result = rest.split("->")
    if cache.shape[0] == 1 and x.shape[0] > 1:  # many queries of one cache: a usual product
        swapped = result[0] + result[2] + result[1]
        return jnp.einsum(f"{x_indices},{own[1:]}->{swapped}", x, cache[0], **options)
    return row_major_transpose(jnp.einsum(indices, cache, x, **options))


def _weights(scores: Sequence[Array], dtype: jnp.dtype) -> list[Array]:
    """One softmax over the scores of all parts, divided as they are."""
    if len(scores) == 1:
        return [jax.nn.softmax(scores[0], axis=-1).astype(dtype)]
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(dtype)
    ends = np.cumsum([part.shape[-1] for part in scores])[:-1]
    return jnp.split(weights, ends, axis=-1)
