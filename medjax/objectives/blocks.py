"""What both objectives do with one row of raw tokens: a block cut from the concatenated notes.

Everything takes one row and has static shapes; `span_corruption.py` and `masked_lm.py` map it over
the batch.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

# The part of a block that the `words` evaluation may hide, in tokens. `data/word_spans.py` hides
# 15% of the words; at 1.7 tokens a word, one block of 128 in ten thousand has more than this.
WORDS_SHARE = 0.4


def words_cap(block_length: int) -> int:
    """How many tokens of a block `words` hides at most: a multiple of 8 where there is room."""
    return min(block_length, 8 * math.ceil(WORDS_SHARE * block_length / 8))


def note_segments(block: Int[Array, " L"], separator_id: int) -> Int[Array, " L"]:
    """The note of each token, counted from 1; a note ends with its separator."""
    ends = (block == separator_id).astype(jnp.int32)
    return 1 + jnp.cumsum(ends) - ends


def note_positions(segments: Int[Array, " L"]) -> Int[Array, " L"]:
    """The position of each token in its own note, from 0."""
    position = jnp.arange(segments.shape[0], dtype=jnp.int32)
    is_first = segments != shift_right(segments, 0)
    return position - jax.lax.cummax(jnp.where(is_first, position, 0))


def shift_right(x: Array, first: int | bool) -> Array:
    """x moved one place to the right, `first` in front."""
    return jnp.concatenate([jnp.full((1,), first, x.dtype), x[:-1]])


def run_starts(mask: Bool[Array, " L"]) -> Bool[Array, " L"]:
    """The first token of every run of True."""
    return mask & ~shift_right(mask, False)


def whole_runs(mask: Bool[Array, " L"], max_tokens: int, max_runs: int) -> Bool[Array, " L"]:
    """The longest beginning of `mask`, in whole runs, that keeps within both limits."""
    is_last = mask & ~shift_right(mask[::-1], False)[::-1]
    tokens = jnp.cumsum(mask, dtype=jnp.int32)
    at_end_of_run = jax.lax.cummin(jnp.where(is_last, tokens, mask.shape[0]), reverse=True)
    runs = jnp.cumsum(run_starts(mask), dtype=jnp.int32)
    return mask & (at_end_of_run <= max_tokens) & (runs <= max_runs)


def place(chosen: Bool[Array, " L"], where: Int[Array, " L"], values: Array, into: Array) -> Array:
    """`into` with into[where] = values for what is chosen; places past its end fall away."""
    return into.at[jnp.where(chosen, where, into.shape[0])].set(values, mode="drop")
