"""Causal language modelling: every token of a block is to be said from those before it.

A block holds one token more than the model reads, so that each token read has one to predict. With
notes kept apart, a note is read on its own from position 0, and its first token is not predicted.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from medjax.data.tokenize import Vocabulary
from medjax.models.model import Batch
from medjax.objectives.blocks import note_positions, note_segments
from medjax.objectives.config import CausalLmConfig


def corrupt(
    keys: Array, blocks: Int[Array, "B L1"], *, config: CausalLmConfig, vocabulary: Vocabulary
) -> Batch:
    """`input_ids`, `labels`, `weights` [B, L] of blocks of L + 1 tokens; nothing is drawn."""
    del keys
    inputs, labels = blocks[:, :-1], blocks[:, 1:]
    batch = {"input_ids": inputs, "labels": labels}
    if config.note_attention == "blocks":
        return batch | {"weights": jnp.ones(labels.shape, jnp.float32)}
    segments = jax.vmap(note_segments, (0, None))(blocks, vocabulary.separator_id)
    own = segments[:, :-1]
    return batch | {
        "weights": (own == segments[:, 1:]).astype(jnp.float32),
        "segment_ids": own,
        "position_ids": jax.vmap(note_positions)(own),
    }
