"""The cached step equals the full forward; what hypotheses see; the choice of the best scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.decoding.cache import follow, own_slots, visible
from medjax.decoding.generate import padded_batch
from medjax.decoding.sample import best
from medjax.models import build_model
from medjax.models.cache import _by_head, _by_row, attend, key_values
from medjax.models.config import Compute, DecoderConfig, T5Config
from tests.models.tiny import CONFIGS, DECODER, T5, make_batch, make_params

V1_1 = T5Config(
    **T5 | {"num_heads": 3},
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    num_decoder_layers=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=10,
)


@pytest.mark.parametrize("config", [CONFIGS["t5"], V1_1], ids=["v1.0", "v1.1"])
def test_the_cached_step_equals_the_full_forward(config):
    """Two hypotheses a row that change places half-way, as beams do."""
    model = build_model(config, Compute(dtype="float32", unroll=1))
    params, batch = make_params(model.specs), make_batch(config)
    rows, length = batch["input_ids"].shape[0], 9
    prepared = jax.jit(model.steps.prepare)(params)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    cache = jax.jit(model.steps.start, static_argnums=(2, 3))(prepared, source, length, 2)
    ids = np.random.default_rng(0).integers(4, 99, (rows, 2, length))
    slots, step, found = own_slots(rows, 2, length), jax.jit(model.steps.step), []
    for t in range(length):
        seen = visible(slots, t)
        hidden, cache = step(prepared, cache, jnp.asarray(ids[:, :, t]), t, seen)
        found.append(hidden)
        if t == 4:  # both go on from hypothesis 1
            slots = follow(slots, jnp.ones((rows, 2), jnp.int32), t)
            ids[:, 0, :5] = ids[:, 1, :5]
    full = jax.jit(model.hidden)
    for k in range(2):
        want = full(params, source | {"decoder_input_ids": jnp.asarray(ids[:, k])})
        got = jnp.stack([hidden[:, k] for hidden in found], axis=1)
        first = 5 if k == 0 else 0  # what hypothesis 0 wrote before was given up
        np.testing.assert_allclose(got[:, first:], want[:, first:], rtol=1e-4, atol=1e-5)


WINDOW = {"model_type": "mistral", "sliding_window": 5}
DECODERS = {
    "llama": DecoderConfig(**DECODER),
    "mistral": DecoderConfig(**DECODER | WINDOW),
    **{name: CONFIGS[name] for name in ("qwen3", "gemma3", "gpt2")},
}


def steps_cases():
    """Behind `--long`: a shared beginning of families whose attention is that of Llama or Gemma."""
    for name in DECODERS:
        yield name, 0
        alike = name in ("mistral", "qwen3", "gpt2")
        yield pytest.param(name, 6, marks=[pytest.mark.long] if alike else [])


@pytest.mark.parametrize(("name", "prefix_length"), list(steps_cases()))
def test_a_decoders_steps_equal_the_full_forward(name, prefix_length):
    """Rows of several lengths, what they begin with computed once; hypotheses change places."""
    config = DECODERS[name]
    model = build_model(config, Compute(dtype="float32", unroll=1))
    params, numbers = make_params(model.specs), np.random.default_rng(0)
    prefix = numbers.integers(4, 99, prefix_length)
    rows = [numbers.integers(4, 99, n) for n in (3, 7, 1)]
    ids = numbers.integers(4, 99, (3, 2, 8))
    prepared = jax.jit(model.steps.prepare)(params)
    batch = {k: jnp.asarray(v) for k, v in padded_batch(rows, np.arange(3), 8).items()}
    shared = None
    if prefix_length:  # filled up at the left
        filled = np.arange(10) >= 10 - prefix_length
        padded = jnp.asarray(np.concatenate([np.zeros(10 - prefix_length, int), prefix]))
        shared = jax.jit(model.steps.share)(prepared, padded, jnp.asarray(filled))
    start = jax.jit(model.steps.start, static_argnums=(2, 3))
    cache = start(prepared, batch, 8, 2, shared)
    slots, step, found = own_slots(3, 2, 8), jax.jit(model.steps.step), []
    for t in range(8):
        seen = visible(slots, t)
        hidden, cache = step(prepared, cache, jnp.asarray(ids[:, :, t]), t, seen)
        found.append(hidden)
        if t == 4:  # both go on from hypothesis 1
            slots = follow(slots, jnp.ones((3, 2), jnp.int32), t)
            ids[:, 0, :5] = ids[:, 1, :5]
    got, full = jnp.stack(found, axis=2), jax.jit(model.hidden)
    for row in range(3):
        for k in range(2):
            whole = np.concatenate([prefix, rows[row], ids[row, k]])
            want = full(params, {"input_ids": jnp.asarray(whole, jnp.int32)[None]})[0, -8:]
            first = 5 if k == 0 else 0  # what hypothesis 0 wrote before was given up
            np.testing.assert_allclose(got[row, k, first:], want[first:], rtol=1e-4, atol=1e-5)


def test_attention_over_parts_is_that_over_the_whole():
    """Shared heads, and a part that all rows share."""
    numbers = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(numbers.normal(size=shape), jnp.float32)  # noqa: E731
    q, own, shared = draw(3, 2, 6, 4), draw(2, 3, 5, 2, 4), draw(2, 1, 7, 2, 4)
    biases = [draw(3, 2, 1, 5), draw(3, 1, 1, 7)]
    parts = list(zip([key_values(*own), key_values(*shared)], biases, strict=True))
    whole = [jnp.concatenate([own[i], jnp.repeat(shared[i], 3, 0)], 1) for i in range(2)]
    keys, values = (jnp.repeat(x, 3, axis=2) for x in whole)
    bias = jnp.concatenate([biases[0], jnp.repeat(biases[1], 2, 1)], -1)
    scores = jnp.einsum("bqhk,bshk->bqhs", q, keys) + bias
    want = jnp.einsum("bqhs,bshk->bqhk", jax.nn.softmax(scores, -1), values)
    np.testing.assert_allclose(attend(q, parts), want, atol=1e-5)


def test_attention_by_row_equals_that_by_head():
    numbers = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(numbers.normal(size=shape), jnp.float32)  # noqa: E731
    q, cache = draw(2, 3, 4, 8), key_values(draw(2, 7, 4, 8), draw(2, 7, 4, 8))
    bias = draw(2, 3, 4, 7)
    parts = [(cache, bias)]
    np.testing.assert_allclose(_by_row(q, parts), _by_head(q, parts), atol=1e-5)


@pytest.mark.parametrize(("size", "count"), [(50, 4), (1000, 1), (1000, 7), (1024, 8)])
def test_best_equals_top_k(size, count):
    """Ties, values without a finite number, and sizes that blocks do not divide included."""
    scores = np.random.default_rng(0).integers(0, 40, (5, size)).astype(np.float32)
    scores[1] = -np.inf
    scores[2, :] = 3.0
    values, places = jax.jit(functools.partial(best, count=count))(scores)
    want = jax.lax.top_k(scores, count)
    np.testing.assert_array_equal(values, want[0])
    np.testing.assert_array_equal(places[2:], want[1][2:])
    np.testing.assert_array_equal(places[0], want[1][0])
