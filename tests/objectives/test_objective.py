"""Objectives with small models: what fits together, what the loss counts, what a note can see."""

import functools
import re
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy import special

from medjax.config import UserError
from medjax.models import Model, build_model
from medjax.models.config import BertConfig, Compute, ModernBertConfig, T5Config
from medjax.objectives import MaskedLmConfig, Objective, SpanCorruptionConfig, build_objective

from .conftest import make_blocks, make_vocabulary
from .test_span_corruption import marked
from .test_vocabulary_loss import collectives

FLOAT32 = Compute(dtype="float32")
T5 = T5Config(vocab_size=210, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
BERT = {
    "vocab_size": 210,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
}
SPANS = SpanCorruptionConfig(inputs_length=48, note_attention="notes", loss_chunk=5)
MASKS = MaskedLmConfig(sequence_length=64, note_attention="notes", loss_chunk=6, z_loss=1e-3)


class Case(NamedTuple):
    model: Model
    params: dict
    objective: Objective
    blocks: np.ndarray
    keys: jax.Array


@functools.cache
def make_case(name):
    model_config, config = {
        "t5": (T5, SPANS),
        "bert": (BertConfig(**BERT), MASKS),
        "modernbert": (ModernBertConfig(**BERT | {"num_hidden_layers": 2}), MASKS),
    }[name]
    vocabulary = make_vocabulary()
    model = build_model(model_config, FLOAT32)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.3, s.shape), s.dtype), model.specs)
    objective = build_objective(config, model, vocabulary)
    blocks = make_blocks(vocabulary, 8, objective.block_length)
    return Case(model, params, objective, blocks, jax.random.split(jax.random.key(1), 8))


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_loss_is_that_of_the_models_logits(name):
    """Sums, hits and bytes from `apply`'s full logits, for both ways to hide tokens."""
    model, params, objective, blocks, keys = make_case(name)
    marks = marked(8, objective.block_length, 5, share=0.15)

    @jax.jit
    def run(params):
        batches = objective.corrupt(keys, blocks), objective.words(blocks, marks)
        return [(b, objective.loss(params, b), model.apply(params, b).logits) for b in batches]

    for batch, sums, logits in jax.device_get(run(params)):
        if "positions" in batch:
            logits = np.take_along_axis(logits, batch["positions"][:, :, None], axis=1)
        labels, weights = batch["labels"], batch["weights"]
        of_label = np.take_along_axis(logits, labels[:, :, None], axis=2)[:, :, 0]
        losses = special.logsumexp(logits, axis=2) - of_label
        assert sums["loss"] == pytest.approx((losses * weights).sum(), rel=1e-5)
        assert sums["weight"] == weights.sum()
        assert sums["correct"] == ((logits.argmax(axis=2) == labels) * weights).sum()
        assert (sums["z_loss"] > 0) == (name == "bert")  # as configured
    assert sums["weight"] == np.count_nonzero(marks)
    assert sums["bytes"] == marks.sum() - np.count_nonzero(marks)


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_one_compilation_for_all_steps(name):
    _, params, objective, blocks, _ = make_case(name)
    count = 0

    @jax.jit
    def step(params, blocks, number):
        nonlocal count
        count += 1
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(number), jnp.arange(8))
        batch = objective.corrupt(keys, blocks)
        value, gradient = jax.value_and_grad(lambda p: objective.loss(p, batch)["loss"])(params)
        return value, jax.tree.map(lambda p, g: p - 1e-4 * g, params, gradient)

    losses = []
    for number in range(4):
        value, params = step(params, np.roll(blocks, number, axis=1), number)
        losses.append(float(value))
    assert count == 1
    assert len(set(losses)) == 4 and np.isfinite(losses).all()


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_devices_change_nothing(name):
    """Rows over eight devices: the same examples without any communication, the same loss."""
    _, params, objective, blocks, keys = make_case(name)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4, 1), ("data", "fsdp", "tensor"))
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    placed = jax.device_put((keys, blocks), rows)
    corrupt = jax.jit(objective.corrupt).lower(*placed).compile()
    assert not collectives(corrupt.as_text())
    batch, expected = corrupt(*placed), jax.jit(objective.corrupt)(keys, blocks)
    for key, values in expected.items():
        np.testing.assert_array_equal(batch[key], values)
    whole = jax.device_put(params, NamedSharding(mesh, P()))
    loss = jax.jit(objective.loss).lower(whole, batch).compile()
    for key, value in jax.jit(objective.loss)(params, expected).items():
        assert float(loss(whole, batch)[key]) == pytest.approx(float(value), rel=1e-5)
    for _, result in collectives(loss.as_text()):  # the table and the sums, nothing of the rows
        assert re.fullmatch(r"f32\[256,16\].*|\(?(f32\[\](, )?)+\)?", result)


@pytest.mark.parametrize("name", ["t5", "bert", "modernbert"])
def test_a_note_sees_no_other(name):
    """Other tokens in the first note leave the states of all later notes as they are."""
    model, params, objective, blocks, keys = make_case(name)
    separator, other = make_vocabulary().separator_id, 50
    blocks = np.where(blocks == separator, other, blocks)
    blocks[:, [20, 40]] = separator
    changed = blocks.copy()
    changed[:, :19] = np.roll(blocks[:, :19], 1, axis=0)

    @jax.jit
    def run(blocks):
        batch = objective.corrupt(keys, blocks)
        return batch, model.hidden(params, batch)

    (batch, before), (_, after) = jax.device_get((run(blocks), run(changed)))
    note = batch.get("decoder_segment_ids", batch["segment_ids"])
    assert set(np.unique(note)) == {1, 2, 3}
    np.testing.assert_allclose(before[note > 1], after[note > 1], atol=1e-5)
    assert np.abs(before[note == 1] - after[note == 1]).max() > 1e-2


# --- what does not fit ---------------------------------------------------------------------------


def refused(model_config, config, vocabulary=None, match=""):
    model = build_model(model_config, FLOAT32)
    with pytest.raises(UserError, match=match):
        build_objective(config, model, vocabulary or make_vocabulary())


def test_what_does_not_fit_is_refused():
    refused(
        BertConfig(**BERT), SPANS, match="needs an encoder-decoder, but model.model_type is bert"
    )
    refused(T5, MASKS, match="needs an encoder with a masked-LM head, but model.model_type is t5")
    few = make_vocabulary(sentinels=2)
    refused(T5, SPANS, few, match="inputs_length 48 .* cuts out 3 spans, .* has 2 sentinels")
    none = make_vocabulary()._replace(mask_id=None)
    refused(BertConfig(**BERT), MASKS, none, match="no mask token")
    too_long = MASKS.model_copy(update={"sequence_length": 66})
    refused(
        BertConfig(model_type="roberta", pad_token_id=0, **BERT),
        too_long,
        match="sequence_length 66 is more than the 65 positions",
    )
    large = make_vocabulary(size=211)
    refused(T5, SPANS, large, match="vocab_size 210 is less than the tokenizer's 211 ids")


def test_configuration_needs_no_jax():
    program = (
        "import sys; from medjax.objectives import ObjectiveConfig, MaskedLmConfig; "
        "sys.exit('jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
