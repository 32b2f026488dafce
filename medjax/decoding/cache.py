"""Which slots of a row's cache belong to which hypothesis.

The K hypotheses (beams) of a row write into one preallocated cache: at position t, hypothesis k
writes slot (t, k), and the slot is never moved. When a hypothesis goes on from another's tokens, it
only takes over the list of the slots that those are in.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def own_slots(rows: int, beams: int, length: int) -> Int[Array, "B K T"]:
    """Every hypothesis on its own from the beginning: the slot k of position t that it reads."""
    return jnp.broadcast_to(jnp.arange(beams)[:, None], (rows, beams, length))


def visible(slots: Int[Array, "B K T"], position: Int[Array, ""]) -> Bool[Array, "B K T K"]:
    """Whether a hypothesis sees slot (t, j): its own past up to `position`."""
    _, beams, length = slots.shape
    past = jnp.arange(length) <= position
    return (slots[..., None] == jnp.arange(beams)) & past[:, None]


def follow(
    slots: Int[Array, "B K T"], parents: Int[Array, "B K"], position: Int[Array, ""]
) -> Int[Array, "B K T"]:
    """The slots after hypothesis k went on from its parent's tokens up to `position`."""
    rows, beams, length = slots.shape
    past = jnp.arange(length) <= position
    inherited = jnp.take_along_axis(slots, parents[..., None], axis=1)
    return jnp.where(past, inherited, own_slots(rows, beams, length))
