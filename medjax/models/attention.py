"""Attention: one front function over three exact implementations.

`xla` computes whole score matrices. `blocks` never holds [H, T, T]: it takes one block of queries
after the other against all keys, or, where attention is limited to a window, all blocks at once
against their neighbours, so that time and memory are linear in T; the backward pass computes the
scores anew. Above 1,024 tokens blocks is the default, but on TPU, where there is neither bias nor
dropout, splash.py. Scores and softmax are float32.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from medjax.models.layers import ATTENDED, WEIGHTS, dropout, fold

LONGEST_WHOLE = 1024  # tokens up to which whole score matrices are faster than blocks
BLOCK_SCORES = 2**20  # scores of a head that a block of queries may take
LOCAL_BLOCK = (
    64  # least queries in a block of local attention: smaller ones leave matrix units idle
)
INVISIBLE = -1e30  # finite, so that a query that sees no key (padding) yields numbers, not NaN

Implementation = Literal["auto", "xla", "blocks"]


class Mask(NamedTuple):
    """Which keys a query sees: all conditions that are set must hold."""

    keys: Bool[Array, "B S"] | None = None
    """Keys that are no padding."""
    segments: tuple[Int[Array, "B T"], Int[Array, "B S"]] | None = None
    """Segments of queries and keys: only those of one's own are seen, and never segment 0."""
    causal: bool = False
    """Keys at the query's place or before it."""
    window: int | None = None
    """Keys at most so many places away, to either side."""
    first: int = 0
    """The first query's place among the keys."""


def batch_mask(
    batch: dict[str, Array],
    queries: str = "",
    keys: str = "",
    causal: bool = False,
    window: int | None = None,
) -> Mask:
    """The mask that a batch's `attention_mask` and `segment_ids` ask for.

    Args:
      queries, keys: "decoder_" where queries or keys are the decoder's.
    """
    padding, own, others = keys + "attention_mask", queries + "segment_ids", keys + "segment_ids"
    return Mask(
        batch[padding].astype(bool) if padding in batch else None,
        (batch[own], batch[others]) if own in batch and others in batch else None,
        causal,
        window,
    )


def uses_blocks(queries: int, keys: int, implementation: Implementation) -> bool:
    """Whether `attention` over these lengths goes block by block."""
    if implementation == "auto":
        return max(queries, keys) > LONGEST_WHOLE
    return implementation == "blocks"


def attention(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    mask: Mask,
    *,
    scale: float,
    bias: Float[Array, "H T S"] | Float[Array, "H T+S-1"] | None = None,
    rate: float = 0.0,
    key: Array | None = None,
    implementation: Implementation = "auto",
    block: int | None = None,
) -> Float[Array, "B T H K"]:
    """softmax(scale q k^T + bias) v over the keys that `mask` lets each query see.

    Args:
      bias: added to the scores: a matrix, or a number for each distance, that of key s and query t
        at s - t + T - 1 (see `bias_matrix`), so that blocks need no matrix.
      rate: dropout of the weights, with `key`; the two implementations drop different weights.
      block: queries in a block; none: chosen.
    """
    dropped = rate > 0 and key is not None
    if not uses_blocks(q.shape[1], k.shape[1], implementation):
        if bias is not None and bias.ndim == 2:
            bias = bias_matrix(bias, q.shape[1])
        visible = _visible(mask, mask.first, q.shape[1], k.shape[1])
        out = _attend(q, k, v, visible, scale, bias, rate, key, keep=True)
    elif implementation == "auto" and bias is None and not dropped and _on_chip(q, k, mask):
        from medjax.models.splash import splash_attention

        return splash_attention(q, k, v, mask, scale=scale)  # it names what is kept itself
    elif mask.window is not None and not mask.causal and bias is None and q.shape == k.shape:
        out = _local(q, k, v, mask, scale, rate, key, block)
    else:
        out = _by_query_blocks(q, k, v, mask, scale, bias, rate, key, block)
    return checkpoint_name(out, ATTENDED)


def _on_chip(q, k, mask) -> bool:
    from medjax.models.splash import suits  # Pallas takes a while to import

    return suits(q, k, mask)


def bias_matrix(bias: Float[Array, "H T+S-1"], queries: int) -> Float[Array, "H T S"]:
    """The matrix of a bias by distance: element (t, s) is the number at s - t + T - 1.

    Written as a repetition read with another row length, whose gradient is a plain sum.
    """
    heads, distances = bias.shape
    rows = jnp.pad(bias, ((0, 0), (0, 1)))
    repeated = jnp.broadcast_to(rows[:, None], (heads, queries, distances + 1))
    flat = repeated.reshape(heads, -1)[:, queries - 1 : queries - 1 + queries * distances]
    return flat.reshape(heads, queries, distances)[:, :, : distances - queries + 1]


def _visible(
    mask: Mask, first: int | Int[Array, ""], queries: int, keys: int
) -> Bool[Array, "B 1 T S"] | None:
    """The mask of `queries` queries from `first` on against all keys; none where all is seen."""
    conditions = []
    if mask.keys is not None:
        conditions.append(mask.keys[:, None, None, :])
    if mask.segments is not None:
        conditions.append(_same_segment(*mask.segments))
    distance = jnp.arange(keys)[None, :] - jnp.arange(queries)[:, None] - first
    if mask.causal:
        conditions.append(distance[None, None] <= 0)
    if mask.window is not None:
        conditions.append(jnp.abs(distance)[None, None] <= mask.window)
    return _all(conditions)


def _same_segment(queries: Int[Array, "B T"], keys: Int[Array, "B S"]) -> Bool[Array, "B 1 T S"]:
    keys = keys[:, None, None, :]
    return (queries[:, None, :, None] == keys) & (keys != 0)


def _all(conditions: list[Array]) -> Array | None:
    if not conditions:
        return None
    result = conditions[0]
    for condition in conditions[1:]:
        result = result & condition
    return result


@jax.custom_vjp
def _scores(q: Float[Array, "B T H K"], k: Float[Array, "B S H K"]) -> Float[Array, "B H T S"]:
    """Products of queries and keys in float32, whose gradients are products in the type of q."""
    return jnp.einsum("bthk,bshk->bhts", q, k, preferred_element_type=jnp.float32)


def _scores_forward(q, k):
    return _scores(q, k), (q, k)


def _scores_backward(saved, grad):
    q, k = saved
    grad = grad.astype(q.dtype)
    return jnp.einsum("bhts,bshk->bthk", grad, k), jnp.einsum("bhts,bthk->bshk", grad, q)


_scores.defvjp(_scores_forward, _scores_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _softmax(
    scores: Float[Array, "B H T S"], dtype: jnp.dtype, keep: bool
) -> Float[Array, "B H T S"]:
    """Softmax in float32, rounded to `dtype`; the rounded weights are all the gradient needs."""
    return jax.nn.softmax(scores, axis=-1).astype(dtype)


def _softmax_forward(scores, dtype, keep):
    weights = _softmax(scores, dtype, keep)
    weights = checkpoint_name(weights, WEIGHTS) if keep else weights
    return weights, weights


def _softmax_backward(dtype, keep, weights, grad):
    w, g = weights.astype(jnp.float32), grad.astype(jnp.float32)
    return (w * (g - jnp.sum(w * g, axis=-1, keepdims=True)),)


_softmax.defvjp(_softmax_forward, _softmax_backward)


def _attend(q, k, v, visible, scale, bias, rate, key, keep=False):
    """Attention with whole score matrices; `visible` broadcasts to [B, H, T, S].

    `keep`: let the backward pass have the weights, by remat's policy.
    """
    scores = _scores(q, k) * scale
    if bias is not None:
        scores = scores + bias[None].astype(jnp.float32)
    if visible is not None:
        scores = jnp.where(visible, scores, INVISIBLE)
    weights = dropout(_softmax(scores, v.dtype, keep), rate, key)
    return jnp.einsum("bhts,bshk->bthk", weights, v)


def _by_query_blocks(q, k, v, mask, scale, bias, rate, key, block):
    """All keys for one block of queries after the other; scores live for one block only."""
    (batch, queries, heads, width), keys = q.shape, k.shape[1]
    size = min(queries, block or max(8, BLOCK_SCORES // keys))
    count = -(-queries // size)
    rows = _blocks_of(q, count, size)
    segments = None if mask.segments is None else _blocks_of(mask.segments[0], count, size)
    # Gradients of keys and values add up over blocks: in float32.
    k32, v32 = k.astype(jnp.float32), v.astype(jnp.float32)

    def one(carry, scanned):
        i, q, segment = scanned
        part = mask if segment is None else mask._replace(segments=(segment, mask.segments[1]))
        visible = _visible(part, mask.first + i * size, size, keys)
        part_bias = None if bias is None else _block_bias(bias, i * size, size, queries, keys)
        k, v = k32.astype(q.dtype), v32.astype(q.dtype)
        return carry, _attend(q, k, v, visible, scale, part_bias, rate, fold(key, i))

    scanned = (jnp.arange(count), rows, segments)
    _, out = jax.lax.scan(jax.checkpoint(one, prevent_cse=False), None, scanned)
    out = jnp.moveaxis(out, 0, 1).reshape(batch, count * size, heads, width)
    return out[:, :queries]


def _blocks_of(x: Array, count: int, size: int) -> Array:
    """[B, T, ...] padded and cut into [count, B, size, ...]."""
    padding = [(0, 0), (0, count * size - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    blocks = jnp.pad(x, padding).reshape(x.shape[0], count, size, *x.shape[2:])
    return jnp.moveaxis(blocks, 1, 0)


def _block_bias(bias, first, size, queries, keys):
    """The rows `first` to `first + size` of the bias matrix; rows past its end are any numbers."""
    missing = -queries % size
    if bias.ndim == 3:
        bias = jnp.pad(bias, ((0, 0), (0, missing), (0, 0)))
        return jax.lax.dynamic_slice_in_dim(bias, first, size, axis=1)
    # Row t reads from T - 1 - t on: the block's last row begins earliest.
    bias = jnp.pad(bias, ((0, 0), (missing, 0)))
    start = queries + missing - size - first
    return bias_matrix(jax.lax.dynamic_slice_in_dim(bias, start, size + keys - 1, axis=1), size)


def _local(q, k, v, mask, scale, rate, key, block):
    """Windowed attention: every block of queries sees its own keys and the two blocks beside it."""
    batch, length, heads, width = q.shape
    size = max(mask.window, block or LOCAL_BLOCK)
    count = -(-length // size)
    place = jnp.arange(3 * size)[None, :] - size
    near = jnp.abs(place - jnp.arange(size)[:, None]) <= mask.window
    inside = jnp.ones((batch, length), bool) if mask.keys is None else mask.keys

    keys_of_blocks = None if key is None else jax.vmap(fold, (None, 0))(key, jnp.arange(count))

    def one(q, k, v, visible, key):
        return _attend(q, k, v, visible, scale, None, rate, key)

    def compute(q, k, v):
        queries = _blocks_of(q, count, size)
        keys, values = (_with_neighbours(x, count, size) for x in (k, v))
        visible = near & _with_neighbours(inside, count, size)[:, :, None, None, :]
        if mask.segments is not None:
            own = _blocks_of(mask.segments[0], count, size)
            visible &= jax.vmap(_same_segment)(own, _with_neighbours(mask.segments[1], count, size))
        # Blocks and rows stay axes of their own: as one axis, rows would not stay divided.
        out = jax.vmap(one)(queries, keys, values, visible, keys_of_blocks)
        return jnp.moveaxis(out, 0, 1).reshape(batch, count * size, heads, width)[:, :length]

    return jax.checkpoint(compute)(q, k, v)


def _with_neighbours(x: Array, count: int, size: int) -> Array:
    """[B, T, ...] as [count, B, 3 size, ...]: the block before, the block itself, the one after."""
    blocks = jnp.pad(_blocks_of(x, count, size), [(1, 1)] + [(0, 0)] * x.ndim)
    return jnp.concatenate([blocks[:-2], blocks[1:-1], blocks[2:]], axis=2)
