"""Masked language modelling (BERT, RoBERTa, ModernBERT) on the device, with static shapes.

Of a row's n tokens that are no special ones, round(rate * n) are predicted, drawn anew for each
example. Logits are made at these positions only: `positions` [B, M] has room for the largest
number that a row can have, and a weight of 0 marks what a row does not use.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from medjax.data.tokenize import Vocabulary
from medjax.objectives.blocks import (
    note_positions,
    note_segments,
    place,
    shift_right,
    whole_runs,
    words_cap,
)
from medjax.objectives.config import MaskedLmConfig

Batch = dict[str, Array]
LAST = np.iinfo(np.int32).max


def num_predictions(config: MaskedLmConfig) -> int:
    """Room for predictions in a row: what a row without special tokens has, to a multiple of 8."""
    most = max(1, round(config.mask_rate * config.sequence_length))
    return min(config.sequence_length, 8 * math.ceil(most / 8))


def corrupt(
    keys: Array, blocks: Int[Array, "B L"], config: MaskedLmConfig, vocabulary: Vocabulary
) -> Batch:
    """Training examples: each row's masks from its own key."""
    room = num_predictions(config)

    def row(key, block):
        of_choice, of_replacement = jax.random.split(key)
        chosen = choose(of_choice, block, config, vocabulary)
        inputs = replace(of_replacement, block, chosen, config.replacement, vocabulary)
        return _example(block, inputs, chosen, room) | _notes(config, block, vocabulary)

    return jax.vmap(row)(keys, blocks)


def words(
    blocks: Int[Array, "B L"],
    marks: Int[Array, "B L"],
    config: MaskedLmConfig,
    vocabulary: Vocabulary,
) -> Batch:
    """Examples in which exactly the tokens with marks > 0 are masked, run by run.

    From the first run on that would exceed `words_cap` tokens, a row is left as it is.
    """
    cap = words_cap(blocks.shape[1])

    def row(block, marks):
        chosen = whole_runs(marks > 0, cap, cap)
        inputs = jnp.where(chosen, vocabulary.mask_id, block)
        found = _example(block, inputs, chosen, cap) | _notes(config, block, vocabulary)
        return found | {"bytes": (marks - 1)[found["positions"]]}

    return jax.vmap(row)(blocks, marks.astype(jnp.int32))


def choose(
    key: Array, block: Int[Array, " L"], config: MaskedLmConfig, vocabulary: Vocabulary
) -> Bool[Array, " L"]:
    """True for the tokens of one row that are to be predicted.

    Words (single tokens, unless `whole_word`) are taken in random order until the next would bring
    their tokens over round(rate * candidates): all of that number where words are single tokens,
    and with `whole_word` up to one word less, never a part of a word.
    """
    length = block.shape[0]
    position = jnp.arange(length, dtype=jnp.int32)
    is_special = np.zeros(vocabulary.size, bool)
    is_special[vocabulary.special_ids] = True
    candidate = ~jnp.asarray(is_special)[block]
    begins = candidate
    if config.whole_word:
        continues = jnp.asarray(vocabulary.continues_word)[block] & shift_right(candidate, False)
        begins = candidate & ~continues
    # A word's rank: random bits above, its place below, so that no two words share one.
    word = jax.lax.cummax(jnp.where(begins, position, 0))
    place_bits = (length - 1).bit_length()
    random = jax.random.bits(key, (length,), jnp.uint32) >> (place_bits + 1)
    rank = (random[word].astype(jnp.int32) << place_bits) | word
    rank = jnp.where(candidate, rank, LAST)
    number = jnp.round(config.mask_rate * jnp.sum(candidate)).astype(jnp.int32)
    number = jnp.clip(number, 1, num_predictions(config))
    first_left_out = jnp.append(jnp.sort(rank), LAST)[number]
    return rank < first_left_out


def replace(
    key: Array,
    block: Int[Array, " L"],
    chosen: Bool[Array, " L"],
    replacement: str,
    vocabulary: Vocabulary,
) -> Int[Array, " L"]:
    """The row with what stands for the chosen tokens: see `MaskedLmConfig.replacement`."""
    if replacement == "mask":
        return jnp.where(chosen, vocabulary.mask_id, block)
    of_kind, of_token = jax.random.split(key)
    ordinary = np.setdiff1d(np.arange(vocabulary.size), vocabulary.special_ids)
    index = jax.random.randint(of_token, block.shape, 0, ordinary.size)
    random = jnp.asarray(ordinary, jnp.int32)[index]
    kind = jax.random.uniform(of_kind, block.shape)
    new = jnp.where(kind < 0.8, vocabulary.mask_id, jnp.where(kind < 0.9, random, block))
    return jnp.where(chosen, new, block)


def _example(block, inputs, chosen, room: int) -> Batch:
    """input_ids [L]; positions, labels and weights [M] of the chosen tokens, in their order."""
    place_of = jnp.cumsum(chosen, dtype=jnp.int32) - 1
    position = jnp.arange(block.shape[0], dtype=jnp.int32)
    positions = place(chosen, place_of, position, jnp.zeros(room, jnp.int32))
    return {
        "input_ids": inputs,
        "positions": positions,
        "labels": block[positions],
        "weights": (jnp.arange(room) <= place_of[-1]).astype(jnp.float32),
    }


def _notes(config: MaskedLmConfig, block: Int[Array, " L"], vocabulary: Vocabulary) -> Batch:
    """What keeps notes apart, where they are."""
    if config.note_attention == "blocks":
        return {}
    segments = note_segments(block, vocabulary.separator_id)
    return {"segment_ids": segments, "position_ids": note_positions(segments)}
