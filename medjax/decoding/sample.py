"""One hypothesis a row: the best tokens, or drawn ones; and the best scores, for all searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from medjax.decoding.loop import Choice, Search

BLOCK = 128  # scores whose maximum is taken before the best are looked for


@struct.dataclass
class Written:
    """What has been written so far."""

    tokens: Int[Array, "B T"]
    done: Bool[Array, " B"]
    numbers: Int[Array, " B"]
    """Of the rows."""


def greedy(length: int, end_ids: Sequence[int]) -> Search:
    """Always the token with the highest score."""
    return _one_by_one(length, end_ids, lambda scores, numbers, position: best(scores, 1)[1][:, 0])


def drawn(
    length: int,
    end_ids: Sequence[int],
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Search:
    """Tokens drawn by their probabilities, of the best ones if so wished.

    A row's tokens depend on seed, its number, and its scores alone.
    """
    key = jax.random.key(seed)

    def draw(number: Array, scores: Float[Array, " V"], position: Array) -> Int[Array, ""]:
        own = jax.random.fold_in(jax.random.fold_in(key, number), position)
        return jax.random.categorical(own, scores)

    def choose(scores, numbers, position):
        scores = scores / temperature
        if top_k is not None:
            lowest = best(scores, min(top_k, scores.shape[-1]))[0][:, -1:]
            scores = jnp.where(scores >= lowest, scores, -jnp.inf)
        if top_p is not None:
            scores = jnp.where(scores >= _nucleus(scores, top_p), scores, -jnp.inf)
        return jax.vmap(draw, (0, 0, None))(numbers, scores, position)

    return _one_by_one(length, end_ids, choose)


def _nucleus(scores: Float[Array, "B V"], share: float) -> Float[Array, "B 1"]:
    """The highest threshold above which tokens make up this share of the probability.

    Found by halving in place of sorting: 40 sums over the vocabulary.
    """
    weights = jax.nn.softmax(scores, axis=-1)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        enough = jnp.sum(jnp.where(weights >= middle, weights, 0), -1, keepdims=True) >= share
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    most = jnp.max(weights, axis=-1, keepdims=True)
    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(most), 2 * most))
    lowest = jnp.min(jnp.where(weights >= low, weights, jnp.inf), axis=-1, keepdims=True)
    return jnp.min(jnp.where(weights >= lowest, scores, jnp.inf), axis=-1, keepdims=True)


def _one_by_one(length: int, end_ids: Sequence[int], choose: Callable) -> Search:
    """One hypothesis: choose(scores [B, V], numbers [B], position) -> ids [B]."""
    fill = end_ids[0] if end_ids else 0

    def start(numbers: Int[Array, " B"]) -> Written:
        tokens = jnp.full((len(numbers), length), fill, jnp.int32)
        return Written(tokens, jnp.zeros(len(numbers), bool), numbers)

    def advance(state: Written, scores: Float[Array, "B 1 V"], position: Array, bias) -> Choice:
        ids = choose((scores + bias)[:, 0], state.numbers, position)
        ids = jnp.where(state.done, fill, ids)[:, None]
        tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, ids, position, axis=1)
        done = state.done | is_end(ids[:, 0], end_ids)
        return Choice(state.replace(tokens=tokens, done=done), ids, None)

    return Search(1, start, advance, lambda state: state.done, lambda state: state.tokens)


def is_end(ids: Int[Array, "*B"], end_ids: Sequence[int]) -> Bool[Array, "*B"]:
    """Which tokens end an output."""
    found = jnp.zeros(ids.shape, bool)
    for end in end_ids:
        found = found | (ids == end)
    return found


def best(scores: Float[Array, "B N"], count: int) -> tuple[Float[Array, "B k"], Int[Array, "B k"]]:
    """The `count` highest scores of each row, falling, and their places; first come of equals.

    They lie in the `count` blocks with the highest maxima, so that only the maxima are sorted and
    those blocks: over a vocabulary many times as fast on CPU as `lax.top_k`, or as an argmax.
    """
    rows, size = scores.shape
    if size <= BLOCK * count:
        return jax.lax.top_k(scores, count)
    scores = jnp.pad(scores, ((0, 0), (0, -size % BLOCK)), constant_values=-jnp.inf)
    blocks = scores.reshape(rows, -1, BLOCK)
    chosen = jnp.sort(jax.lax.top_k(jnp.max(blocks, axis=-1), count)[1], axis=-1)
    inside = jnp.take_along_axis(blocks, chosen[..., None], axis=1).reshape(rows, -1)
    values, places = jax.lax.top_k(inside, count)
    return values, jnp.take_along_axis(chosen, places // BLOCK, axis=1) * BLOCK + places % BLOCK
