"""Constraints inside the decoding loop: where each hypothesis stands, what it may write next.

An automaton's tables (`automaton.py`) and, where outputs quote the row's own text, its passages
(`passages.py`) lie on the device; a state is a number, and a step is a few gathers. What a token
continues both ways ends the passage.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from medjax.decoding.automaton import Automaton
from medjax.decoding.passages import PLACES, Passages

FORBIDDEN = -1.0e9  # added to a score; finite, so that sums stay numbers
NONE = -1


class Tables(NamedTuple):
    """What a batch of rows is held to."""

    automaton: Automaton
    passages: Passages | None
    """None where the automaton has no holes."""


@struct.dataclass
class Place:
    """Where each hypothesis stands."""

    state: Int[Array, "B K"]
    places: Int[Array, "B K A"]
    """In the text, within a passage; -1: none."""


def start(tables: Tables, rows: int, beams: int) -> Place:
    """All at the beginning."""
    count = 0 if tables.passages is None else PLACES
    return Place(jnp.zeros((rows, beams), jnp.int32), jnp.full((rows, beams, count), NONE))


def bias(tables: Tables, place: Place, left: Array, size: int) -> Float[Array, "B K V"]:
    """What to add to scores so that only what is allowed is written.

    Args:
      left: tokens that may still be written.
    """
    allowed = tables.automaton.cost[_row(tables, place)] <= left
    if tables.passages is not None:
        allowed &= _may_end(tables.passages, place)[..., None]
        allowed |= _of_passage(tables, place, left, size)
    return jnp.where(allowed, 0.0, FORBIDDEN)


def follow(
    tables: Tables,
    place: Place,
    parents: Int[Array, "B K"] | None,
    ids: Int[Array, "B K"],
    left: Array,
) -> Place:
    """Where the hypotheses stand after their tokens.

    Args:
      parents: the hypotheses that they go on from; none: from themselves.
      left: as it was for `bias`.
    """
    if parents is not None:
        place = Place(
            jnp.take_along_axis(place.state, parents, axis=1),
            jnp.take_along_axis(place.places, parents[..., None], axis=1),
        )
    automaton, state = tables.automaton, place.state
    following = automaton.next[state, automaton.class_of[ids]]
    if tables.passages is None:
        return place.replace(state=jnp.maximum(following, 0))
    goes_on = automaton.cost[_row(tables, place), ids] <= left
    goes_on &= _may_end(tables.passages, place)
    within = place.places[..., 0] >= 0
    further = jnp.where(within[..., None], *_after(tables.passages, place, ids))
    after = jnp.where(within, state, automaton.after_hole[state])
    return Place(
        jnp.maximum(jnp.where(goes_on, following, after), 0),
        jnp.where(goes_on[..., None], NONE, further),
    )


def _row(tables: Tables, place: Place) -> Int[Array, "B K"]:
    """Rows of costs."""
    automaton = tables.automaton
    if tables.passages is None:
        return automaton.row_of[place.state]
    with_, without = automaton.row_of[place.state], automaton.row_without[place.state]
    return jnp.where(tables.passages.usable[:, None], with_, without)


def _may_end(passages: Passages, place: Place) -> Bool[Array, "B K"]:
    """Whether a hypothesis is not within a character of a passage."""
    own = place.places[..., 0]
    return (own < 0) | (jnp.take_along_axis(passages.open, jnp.maximum(own, 0), axis=1) == 0)


def _of_passage(tables: Tables, place: Place, left: Array, size: int) -> Bool[Array, "B K V"]:
    """Tokens that begin a passage where one may begin, or go on with one."""
    automaton, passages = tables.automaton, tables.passages
    within = place.places[..., 0] >= 0
    begins = ~within & (automaton.after_hole[place.state] >= 0)
    shape = (*within.shape, passages.first_tokens.shape[1])
    further, firsts = (
        _affordable(passages, tokens, ends, automaton.hole_cost[place.state], left, possible, size)
        for tokens, ends, possible in (
            (*_at(passages, place), within),
            (
                jnp.broadcast_to(passages.first_tokens[:, None], shape),
                jnp.broadcast_to(passages.first_ends[:, None], shape),
                begins,
            ),
        )
    )

    def mark(own: Int[Array, " M"]) -> Bool[Array, " V"]:
        return jnp.zeros(size, bool).at[own].set(True, mode="drop")

    return jax.vmap(jax.vmap(mark))(jnp.concatenate([further, firsts], axis=-1))


def _affordable(passages, tokens, ends, cost, left, possible, size):
    """Those tokens [B, K, M] after which there is room to end; `size` in the place of others."""
    rows, beams, count = tokens.shape
    opened = jnp.take_along_axis(passages.open, ends.reshape(rows, -1), axis=1)
    enough = cost[..., None] + opened.reshape(rows, beams, count) <= left
    return jnp.where((tokens >= 0) & possible[..., None] & enough, tokens, size)


def _at(passages: Passages, place: Place) -> tuple[Int[Array, "B K M"], Int[Array, "B K M"]]:
    """Tokens that go on with the passages, and the places after them."""
    rows, beams, count = place.places.shape
    own = jnp.maximum(place.places, 0)[..., None]

    def pick(table: Int[Array, "B N E"]) -> Int[Array, "B K M"]:
        found = jnp.take_along_axis(table[:, None], own, axis=2)
        return found.reshape(rows, beams, -1)

    width = passages.tokens.shape[2]
    real = jnp.repeat(place.places >= 0, width, axis=-1)
    return jnp.where(real, pick(passages.tokens), NONE), pick(passages.ends)


def _after(
    passages: Passages, place: Place, ids: Int[Array, "B K"]
) -> tuple[Int[Array, "B K A"], Int[Array, "B K A"]]:
    """The places after a token within a passage, and after one that begins it."""

    def first_places(tokens: Array, ends: Array) -> Int[Array, "B K A"]:
        """The first places at which the token stands."""
        matches = tokens == ids[..., None]
        number = jnp.cumsum(matches, axis=-1) - 1
        target = jnp.where(matches & (number < PLACES), number, PLACES)

        def put(target: Array, ends: Array) -> Int[Array, " A"]:
            return jnp.full(PLACES, NONE).at[target].set(ends, mode="drop")

        return jax.vmap(jax.vmap(put))(target, ends)

    firsts = (
        jnp.broadcast_to(x[:, None], (*ids.shape, x.shape[1]))
        for x in (passages.first_tokens, passages.first_ends)
    )
    return first_places(*_at(passages, place)), first_places(*firsts)
