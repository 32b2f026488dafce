"""Causal language modelling: every token but the first, from those before it, note by note."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.config import UserError
from medjax.models import build_model
from medjax.models.config import BertConfig, Compute, DecoderConfig
from medjax.objectives import CausalLmConfig, build_objective
from tests.models.tiny import make_params

from .conftest import SEPARATOR, make_blocks

CONFIG = DecoderConfig(
    vocab_size=210,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=64,
)


def case(vocabulary, **options):
    model = build_model(CONFIG, Compute(dtype="float32"))
    objective = build_objective(CausalLmConfig(sequence_length=40, **options), model, vocabulary)
    blocks = jnp.asarray(make_blocks(vocabulary, 3, objective.block_length))
    batch = objective.corrupt(jax.random.split(jax.random.key(0), 3), blocks)
    return jax.jit(model.apply), make_params(model.specs), objective, blocks, batch


def nats(run, params, ids):
    """Of every token but the first, given those before it; what follows them, they do not see."""
    filled = np.zeros(40, np.int32)
    filled[: len(ids) - 1] = ids[:-1]
    scores = np.asarray(jax.nn.log_softmax(run(params, {"input_ids": filled[None]}).logits[0]))
    return -scores[np.arange(len(ids) - 1), ids[1:]]


def test_every_token_is_predicted_from_those_before_it(vocabulary):
    run, params, objective, blocks, batch = case(vocabulary)
    assert objective.block_length == 41 and objective.words is None
    np.testing.assert_array_equal(batch["input_ids"], blocks[:, :-1])
    np.testing.assert_array_equal(batch["labels"], blocks[:, 1:])
    sums = jax.jit(objective.loss)(params, batch)
    expected = sum(float(nats(run, params, block).sum()) for block in blocks)
    assert float(sums["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(sums["weight"]) == 3 * 40


def test_a_note_is_read_on_its_own(vocabulary):
    run, params, objective, blocks, batch = case(vocabulary, note_attention="notes")
    sums, expected, count = jax.jit(objective.loss)(params, batch), 0.0, 0
    for block in np.asarray(blocks):
        ends = np.flatnonzero(block == SEPARATOR) + 1
        for note in np.split(block, ends):
            if len(note) > 1:
                expected += float(nats(run, params, note).sum())
                count += len(note) - 1
    assert float(sums["weight"]) == count < 3 * 40
    assert float(sums["loss"]) == pytest.approx(expected, rel=1e-4)


def test_what_does_not_fit(vocabulary):
    bert = build_model(BertConfig(vocab_size=210))
    with pytest.raises(UserError, match="needs a decoder, but model.model_type is bert"):
        build_objective(CausalLmConfig(), bert, vocabulary)
    with pytest.raises(UserError, match="1024 is more than the 64 positions"):
        build_objective(CausalLmConfig(), build_model(CONFIG), vocabulary)
