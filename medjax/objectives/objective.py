"""An objective as pure functions of raw token blocks; `build_objective` makes it.

What it does to the tokens is in `span_corruption.py`, `masked_lm.py` and `causal_lm.py`, the loss
over the vocabulary in `vocabulary_loss.py`; here they meet the model. `training/step.py` calls the
result inside its jitted step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from medjax.config import UserError
from medjax.data.tokenize import Vocabulary
from medjax.models.model import DECODERS, Model
from medjax.objectives import causal_lm, masked_lm, span_corruption
from medjax.objectives.config import (
    CausalLmConfig,
    MaskedLmConfig,
    ObjectiveConfig,
    SpanCorruptionConfig,
)
from medjax.objectives.vocabulary_loss import vocabulary_loss

Batch = dict[str, Array]
Loss = Callable[..., dict[str, Array]]


class Objective(NamedTuple):
    """Pure functions with static shapes, to be called inside a jitted step."""

    block_length: int
    """Raw tokens in a row of the data."""
    corrupt: Callable[[Array, Array], Batch]
    """corrupt(keys [B], blocks [B, L] int32) -> batch; a row depends on its own key alone."""
    words: Callable[[Array, Array], Batch] | None
    """words(blocks [B, L], words [B, L]) -> batch that hides exactly the tokens with words > 0.

    None where nothing is hidden (causal_lm): bits per byte compare tokenizers there.

    These are the word spans drawn once on the raw text; words - 1 is the number of bytes a token
    covers. Runs for which a row has no room (`blocks.words_cap`) are neither hidden nor counted, so
    that the share of the loss's `bytes` in all says how much was. A row of zeros counts nothing.
    """
    loss: Loss
    """loss(params, batch, *, key=None) -> sums, float32 scalars: `loss` (cross-entropy in nats),
    `z_loss` (weighted), `correct`, `weight` (predicted tokens), with `words` also `bytes`.

    The gradient of `loss` is that of loss + z_loss: see `vocabulary_loss`.
    """


def loss_of_blocks(objective: Objective) -> Loss:
    """loss(params, blocks [B, L], keys [B], *, key=None): of blocks corrupted with `keys`."""

    def loss(params: Any, blocks: Array, keys: Array, *, key: Array | None = None) -> dict:
        return objective.loss(params, objective.corrupt(keys, blocks), key=key)

    return loss


def build_objective(config: ObjectiveConfig, model: Model, vocabulary: Vocabulary) -> Objective:
    """The objective of `config` for this model and tokenizer.

    Raises:
      UserError: the model's family, its lengths or the tokenizer do not fit.
    """
    if vocabulary.size > model.config.vocab_size:
        raise UserError(
            f"model.vocab_size {model.config.vocab_size} is less than the tokenizer's "
            f"{vocabulary.size} ids; set model.vocab_size to {vocabulary.size} or more"
        )
    if isinstance(config, SpanCorruptionConfig):
        return _span_corruption(config, model, vocabulary)
    if isinstance(config, CausalLmConfig):
        return _causal_lm(config, model, vocabulary)
    return _masked_lm(config, model, vocabulary)


def _span_corruption(
    config: SpanCorruptionConfig, model: Model, vocabulary: Vocabulary
) -> Objective:
    family = model.config.model_type
    if model.decode is None:
        raise UserError(
            f"objective.kind span_corruption needs an encoder-decoder, but model.model_type is "
            f"{family}; use masked_lm, or a t5"
        )
    plan = span_corruption.plan_spans(
        config.inputs_length, config.noise_density, config.mean_span_length
    )
    sentinels = len(vocabulary.sentinel_ids)
    if plan.num_spans > sentinels:
        raise UserError(
            f"objective.inputs_length {config.inputs_length} with noise_density "
            f"{config.noise_density} and mean_span_length {config.mean_span_length} cuts out "
            f"{plan.num_spans} spans, but the tokenizer has {sentinels} sentinels (<extra_id_0> "
            "...); lower inputs_length or noise_density, raise mean_span_length, or train a "
            f"tokenizer with {plan.num_spans} sentinels"
        )
    apart = config.note_attention == "notes"
    return Objective(
        block_length=plan.raw_length,
        corrupt=partial(
            span_corruption.corrupt, plan=plan, vocabulary=vocabulary, keep_notes_apart=apart
        ),
        words=partial(span_corruption.words, vocabulary=vocabulary, keep_notes_apart=apart),
        loss=partial(_loss, config, model),
    )


def _masked_lm(config: MaskedLmConfig, model: Model, vocabulary: Vocabulary) -> Objective:
    family, limit = model.config.model_type, model.config.max_length
    if family == "t5" or family in DECODERS:
        raise UserError(
            f"objective.kind masked_lm needs an encoder with a masked-LM head, but "
            f"model.model_type is {family}; use a bert, roberta, megatron-bert or modernbert (or "
            "span_corruption with a t5)"
        )
    if vocabulary.mask_id is None:
        raise UserError(
            "objective.kind masked_lm: the tokenizer has no mask token; use one that has "
            "([MASK] or <mask>), such as a WordPiece tokenizer made by train_tokenizer"
        )
    if config.sequence_length > limit:
        raise UserError(
            f"objective.sequence_length {config.sequence_length} is more than the {limit} "
            f"positions of the {family} model; lower it to {limit}, or raise "
            "model.max_position_embeddings"
        )
    return Objective(
        block_length=config.sequence_length,
        corrupt=partial(masked_lm.corrupt, config=config, vocabulary=vocabulary),
        words=partial(masked_lm.words, config=config, vocabulary=vocabulary),
        loss=partial(_loss, config, model),
    )


def _causal_lm(config: CausalLmConfig, model: Model, vocabulary: Vocabulary) -> Objective:
    family, limit = model.config.model_type, model.config.max_length
    if family not in DECODERS:
        raise UserError(
            f"objective.kind causal_lm needs a decoder, but model.model_type is {family}; use "
            f"{' or '.join(DECODERS)}, or span_corruption with a t5, masked_lm with an encoder"
        )
    if config.sequence_length > limit:
        raise UserError(
            f"objective.sequence_length {config.sequence_length} is more than the {limit} "
            f"positions of the {family} model; lower it to {limit}, or raise "
            "model.max_position_embeddings"
        )
    return Objective(
        block_length=config.sequence_length + 1,
        corrupt=partial(causal_lm.corrupt, config=config, vocabulary=vocabulary),
        words=None,
        loss=partial(_loss, config, model),
    )


def _loss(
    config: ObjectiveConfig, model: Model, params: Any, batch: Batch, *, key: Array | None = None
) -> dict[str, Array]:
    """Sums over the targets of a batch; where it has `positions`, those are made at these only."""
    hidden = model.hidden(params, batch, key=key)
    if "positions" in batch:
        hidden = jnp.take_along_axis(hidden, batch["positions"][:, :, None], axis=1)
    sums = vocabulary_loss(
        model.head(params, hidden),
        batch["labels"],
        batch["weights"],
        vocab_size=model.config.vocab_size,
        chunk=config.loss_chunk,
        z_loss=config.z_loss,
    )._asdict()
    if "bytes" in batch:
        sums["bytes"] = jnp.sum(batch["bytes"] * batch["weights"])
    return sums
