"""Beam search with the rules of transformers' `generate` (5.x), so that results are the same.

Of every row the K best unfinished hypotheses go on, and the K best finished ones are kept, by log
probability over length**length_penalty. At each position the 2K best continuations are looked at
(more with several end tokens), so that K of them do not end; an ending one is kept only if it is
among the first K. At the longest length all end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from medjax.decoding.loop import Choice, Search
from medjax.decoding.sample import best, is_end

WORST = -1.0e9  # in place of minus infinity, as in transformers: sums with it stay numbers


@struct.dataclass
class Beams:
    """K running and K finished hypotheses a row, best first."""

    tokens: Int[Array, "B K T"]
    scores: Float[Array, "B K"]
    """Log probabilities of the running hypotheses."""
    finished_tokens: Int[Array, "B K T"]
    finished_scores: Float[Array, "B K"]
    """Log probabilities over length**length_penalty; WORST where there is none yet."""
    finished: Bool[Array, "B K"]
    hopeful: Bool[Array, " B"]
    """Whether a running hypothesis may still become better than a finished one; never again if
    once it could not."""


def beam_search(
    beams: int,
    length: int,
    end_ids: Sequence[int],
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
) -> Search:
    """Beam search for up to `length` tokens; the arguments are those of DecodingConfig."""
    fill = end_ids[0] if end_ids else 0
    looked_at = max(2, 1 + len(end_ids)) * beams  # so that as many do not end
    divisors = np.arange(1, length + 1) ** float(length_penalty)
    divisors = jnp.asarray(divisors, jnp.float32)

    def start(numbers: Int[Array, " B"]) -> Beams:
        rows = len(numbers)
        tokens = jnp.full((rows, beams, length), fill, jnp.int32)
        # All hypotheses are alike at first: only the continuations of one of them count.
        scores = jnp.broadcast_to(jnp.where(jnp.arange(beams) == 0, 0.0, WORST), (rows, beams))
        worst = jnp.full((rows, beams), WORST, jnp.float32)
        none = jnp.zeros((rows, beams), bool)
        return Beams(tokens, scores, tokens, worst, none, jnp.ones(rows, bool))

    def full(state: Beams) -> Bool[Array, " B"]:
        """Rows that take no more hypotheses, by early stopping."""
        return jnp.all(state.finished, axis=1) & (early_stopping is True)

    def advance(state: Beams, logits: Float[Array, "B K V"], position: Array, bias) -> Choice:
        scores, parents, ids = _continuations(state.scores, logits, bias, looked_at)
        tokens = jnp.take_along_axis(state.tokens, parents[..., None], axis=1)
        tokens = jax.lax.dynamic_update_slice_in_dim(tokens, ids[..., None], position, axis=2)
        ends = jnp.broadcast_to(position == length - 1, ids.shape)
        ends = ends | is_end(ids, end_ids)

        closed = full(state) | ~state.hopeful
        found = ends & (jnp.arange(looked_at) < beams) & ~closed[:, None]
        final = jnp.where(found, scores / divisors[position], WORST)
        merged = jnp.concatenate([state.finished_scores, final], axis=1)
        finished_scores, kept = jax.lax.top_k(merged, beams)
        finished_tokens = _pick(jnp.concatenate([state.finished_tokens, tokens], axis=1), kept)
        finished = _pick(jnp.concatenate([state.finished, found], axis=1), kept)

        running, going = jax.lax.top_k(scores + ends * WORST, beams)
        reachable = early_stopping == "never" and length_penalty > 0.0
        divisor = divisors[length - 1 if reachable else position]
        worst = jnp.where(finished, jnp.min(finished_scores, axis=1, keepdims=True), WORST)
        hopeful = state.hopeful & jnp.any(running[:, :1] / divisor > worst, axis=1)
        beams_now = Beams(
            _pick(tokens, going), running, finished_tokens, finished_scores, finished, hopeful
        )
        return Choice(beams_now, _pick(ids, going), _pick(parents, going))

    def done(state: Beams) -> Bool[Array, " B"]:
        return full(state) | ~state.hopeful

    return Search(beams, start, advance, done, lambda state: state.finished_tokens[:, 0])


def _continuations(
    scores: Float[Array, "B K"], logits: Float[Array, "B K V"], bias: Array | float, count: int
) -> tuple[Float[Array, "B N"], Int[Array, "B N"], Int[Array, "B N"]]:
    """The `count` best continuations of a row's hypotheses: log probability, hypothesis, token.

    A constraint's bias comes after the softmax, as in transformers: what is forbidden lends its
    probability to nobody.
    """
    rows, beams, size = logits.shape
    totals = jax.nn.log_softmax(logits, axis=-1) + bias + scores[..., None]
    totals, places = best(totals.reshape(rows, beams * size), count)
    return totals, places // size, places % size


def _pick(x: Array, places: Int[Array, "B K"]) -> Array:
    """Of x [B, N, ...] the entries at places of axis 1."""
    return jnp.take_along_axis(x, places.reshape(*places.shape, *(1,) * (x.ndim - 2)), axis=1)
