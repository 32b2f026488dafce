"""The loop that all decoding shares: one `lax.while_loop` over a struct, ended when rows are done.

A Search says what the hypotheses' next tokens are, given the model's scores: greedily
(`sample.py`), or by beam search (`beam.py`). The loop keeps the model's cache and which slots of it
each hypothesis reads. Rows never look at each other, so they can be divided over devices, and rows
that fill up a batch are done before they begin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from medjax.decoding.cache import follow, own_slots, visible
from medjax.models.model import Batch, Model, Params, logits


class Choice(NamedTuple):
    """What a Search decides at one position, for K hypotheses a row."""

    state: Any
    ids: Int[Array, "B K"]
    """The hypotheses' tokens."""
    parents: Int[Array, "B K"] | None
    """The hypothesis that each one goes on from; none: from itself."""


class Search(NamedTuple):
    """A way to choose tokens: pure functions of a state of its own."""

    beams: int
    start: Callable[[int], Any]
    """start(rows) -> state."""
    advance: Callable[[Any, Float[Array, "B K V"], Int[Array, ""]], Choice]
    """advance(state, logits, position) -> Choice; position counts the new tokens from 0."""
    done: Callable[[Any], Bool[Array, " B"]]
    """Rows whose result is settled, whatever `advance` does to their state."""
    tokens: Callable[[Any], Int[Array, "B T"]]
    """The result; whatever follows the end token is to be cut off."""


@struct.dataclass
class State:
    """What the loop carries."""

    position: Int[Array, ""]
    ids: Int[Array, "B K"]
    slots: Int[Array, "B K T"]
    cache: Any
    search: Any


def decode(
    model: Model, search: Search, prepared: Params, batch: Batch, length: int, start_id: int
) -> Int[Array, "B T"]:
    """Up to `length` tokens for every row of the batch.

    Args:
      prepared: `model.steps.prepare(params)`.
      batch: `input_ids`, `attention_mask` and what else the model takes; rows without any token
        in their mask are not decoded.
    """
    rows = batch["input_ids"].shape[0]
    filler = ~jnp.any(batch["attention_mask"] != 0, axis=1)

    def unfinished(state: State) -> Bool[Array, ""]:
        return (state.position < length) & ~jnp.all(search.done(state.search) | filler)

    def body(state: State) -> State:
        seen = visible(state.slots, state.position)
        hidden, cache = model.steps.step(prepared, state.cache, state.ids, state.position, seen)
        scores = logits(model.head(prepared, hidden), model.config.vocab_size)
        choice = search.advance(state.search, scores, state.position)
        slots = state.slots
        if choice.parents is not None:
            slots = follow(slots, choice.parents, state.position)
        return State(state.position + 1, choice.ids, slots, cache, choice.state)

    state = State(
        position=jnp.int32(0),
        ids=jnp.full((rows, search.beams), start_id, jnp.int32),
        slots=own_slots(rows, search.beams, length),
        cache=model.steps.start(prepared, batch, length, search.beams),
        search=search.start(rows),
    )
    return search.tokens(jax.lax.while_loop(unfinished, body, state).search)
