"""Keys and values of positions already computed, and the attention of single tokens to them.

A decoder that writes token after token computes each position once and keeps its keys and values
in arrays of the final length. Several hypotheses of a row (beams) share the row's cache: a query is
given a bias that says which of the slots are its own past, so that nothing is moved when a beam
changes its parent, and memory is read once for all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from medjax.models.attention import INVISIBLE


class KeyValues(NamedTuple):
    """One layer's keys and values at S slots."""

    keys: Float[Array, "B S H K"]
    values: Float[Array, "B S H K"]


def empty(batch: int, slots: int, heads: int, width: int, dtype: jnp.dtype) -> KeyValues:
    """Slots that nothing was written to yet."""
    zeros = jnp.zeros((batch, slots, heads, width), dtype)
    return KeyValues(zeros, zeros)


def write(
    cache: KeyValues, keys: Float[Array, "B Q H K"], values: Float[Array, "B Q H K"], slot: Array
) -> KeyValues:
    """The cache with new keys and values from `slot` on."""

    def put(old, new):
        return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis=1)

    return KeyValues(put(cache.keys, keys), put(cache.values, values))


def visibility_bias(visible: Bool[Array, "*B"]) -> Float[Array, "*B"]:
    """What to add to scores so that only what is visible has any weight."""
    return jnp.where(visible, 0.0, INVISIBLE)


def attend(
    q: Float[Array, "B Q H K"], cache: KeyValues, bias: Float[Array, "B Q H S"]
) -> Float[Array, "B Q H K"]:
    """softmax(q k^T + bias) v for a few queries a row; softmax in float32.

    Args:
      bias: float32, added to the scores; its first three axes may be 1.
    """
    return jax.lax.platform_dependent(q, cache, bias, cpu=_by_row, default=_by_head)


def _by_head(q, cache, bias):
    """A product for each row and head."""
    scores = jnp.einsum("bqhk,bshk->bqhs", q, cache.keys, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(q.dtype)
    return jnp.einsum("bqhs,bshk->bqhk", weights, cache.values)


def _by_row(q, cache, bias):
    """A product for each row, over all heads at once: each query's other heads are zero.

    More products, but a matrix unit has nothing better to do: on CPU two to three times as fast as
    one vector for each head, which costs a copy of the cache in another order as well.
    """
    batch, queries, heads, width = q.shape
    eye = jnp.eye(heads, dtype=q.dtype)[:, :, None]
    apart = (q[:, :, :, None] * eye).reshape(batch, queries * heads, heads * width)
    keys, values = (x.reshape(batch, -1, heads * width) for x in cache)
    scores = jnp.einsum("bqd,bsd->bqs", apart, keys, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, queries, heads, -1) + bias
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    weights = weights.reshape(batch, queries * heads, -1)
    mixed = jnp.einsum("bqs,bsd->bqd", weights, values)
    return jnp.sum(mixed.reshape(batch, queries, heads, heads, width) * eye, axis=3)
