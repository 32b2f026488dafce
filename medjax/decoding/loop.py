"""The loop that all decoding shares: one `lax.while_loop` over a struct, ended when rows are done.

A Search says what the hypotheses' next tokens are, given the model's scores: greedily or drawn
(`sample.py`), or by beam search (`beam.py`), among those that a constraint (`constrain.py`) allows.
The loop keeps the model's cache and which slots of it each hypothesis reads. Rows never look at
each other, so they can be divided over devices, and rows that fill up a batch are done before they
begin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int

from medjax.decoding import constrain
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
    start: Callable[[Int[Array, " B"]], Any]
    """start(numbers of the rows) -> state."""
    advance: Callable[..., Choice]
    """advance(state, logits [B, K, V], position, bias) -> Choice; position counts the new tokens
    from 0; bias [B, K, V], or 0, is what a constraint adds to the hypotheses' scores."""
    done: Callable[[Any], Bool[Array, " B"]]
    """Rows whose result is settled, whatever `advance` does to their state."""
    tokens: Callable[[Any], Int[Array, "B T"]]
    """The result; whatever follows the end token is to be cut off."""


class Start(NamedTuple):
    """What the rows of a batch begin with."""

    batch: Batch
    """`input_ids`, `attention_mask` and what else the model takes."""
    ids: Int[Array, " B"]
    """The first token that is fed: T5's start token, the last one of a decoder's prompt."""
    numbers: Int[Array, " B"]
    """Of the rows; -1: a row that fills up the batch and is not decoded."""
    constraint: Any = None
    """Tables of `constrain.py`; none: all tokens are allowed."""
    shared: Any = None
    """Of a decoder: what `Steps.share` gave."""


@struct.dataclass
class State:
    """What the loop carries."""

    position: Int[Array, ""]
    ids: Int[Array, "B K"]
    slots: Int[Array, "B K T"]
    cache: Any
    search: Any
    constraint: Any


def decode(
    model: Model, search: Search, prepared: Params, start: Start, length: int
) -> Int[Array, "B T"]:
    """Up to `length` tokens for every row of the batch.

    Args:
      prepared: `model.steps.prepare(params)`.
    """
    rows = len(start.ids)
    tables, size = start.constraint, model.config.vocab_size
    shared = () if start.shared is None else (start.shared,)

    def unfinished(state: State) -> Bool[Array, ""]:
        done = search.done(state.search) | (start.numbers < 0)
        return (state.position < length) & ~jnp.all(done)

    def body(state: State) -> State:
        seen = visible(state.slots, state.position)
        hidden, cache = model.steps.step(prepared, state.cache, state.ids, state.position, seen)
        scores = logits(model.head(prepared, hidden), size)
        left, bias, place = length - state.position, 0.0, state.constraint
        if tables is not None:
            bias = constrain.bias(tables, place, left, size)
        choice = search.advance(state.search, scores, state.position, bias)
        slots = state.slots
        if choice.parents is not None:
            slots = follow(slots, choice.parents, state.position)
        if tables is not None:
            place = constrain.follow(tables, place, choice.parents, choice.ids, left)
        return State(state.position + 1, choice.ids, slots, cache, choice.state, place)

    state = State(
        position=jnp.int32(0),
        ids=jnp.broadcast_to(start.ids[:, None], (rows, search.beams)),
        slots=own_slots(rows, search.beams, length),
        cache=model.steps.start(prepared, start.batch, length, search.beams, *shared),
        search=search.start(start.numbers),
        constraint=None if tables is None else constrain.start(tables, rows, search.beams),
    )
    return search.tokens(jax.lax.while_loop(unfinished, body, state).search)
