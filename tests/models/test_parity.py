"""Every family against transformers' torch models: states, logits, loss, gradients, one step.

The reference values were written by scripts/make_fixtures.py. Where torch is installed, the same
check also runs on random configurations made on the spot (many of them with --long).
"""

import importlib.util
import json
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from medjax.hub.config import from_hf
from medjax.hub.names import (
    architecture,
    from_hf_tensors,
    stored_parts,
    stored_tying,
    to_hf_tensors,
)
from medjax.models import build_model
from medjax.models.bert import pool
from medjax.models.config import Compute

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = sorted((ROOT / "tests" / "fixtures").glob("*.safetensors"))
LIVE = range(60 if importlib.util.find_spec("torch") else 0)
LIVE_SHORT = 2  # of these, without --long

sys.path.insert(0, str(ROOT / "scripts"))
from make_fixtures import ADAMW, CAUSAL, random_case, reference  # noqa: E402


def cases():
    """The fixtures and, with torch, seeds of random configurations."""
    yield from (pytest.param(path, id=path.stem) for path in FIXTURES)
    for seed in LIVE:
        marks = [pytest.mark.long] if seed >= LIVE_SHORT else []
        yield pytest.param(seed, id=f"live-{seed}", marks=marks)


@pytest.mark.parametrize("case", list(cases()))
def test_equals_torch(case):
    if isinstance(case, int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays, facts = reference(*random_case(case), case)
    else:
        with safe_open(case, "np") as file:
            facts = {name: json.loads(text) for name, text in file.metadata().items()}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    check(arrays, facts)


def check(arrays, facts):
    """Compares one case; names are those of scripts/make_fixtures.py."""
    weights, inputs, gradients = (
        {k.removeprefix(kind): v for k, v in arrays.items() if k.startswith(kind)}
        for kind in ("weight.", "input.", "gradient.")
    )
    config = stored_tying(from_hf(facts["config"]), weights.get, weights)
    parts = stored_parts(config, weights)
    assert architecture(config, parts) == facts["architecture"]
    model = build_model(config, Compute(dtype="float32", unroll=1), parts)
    params, missing, unused = from_hf_tensors(weights.get, weights, config, parts)
    assert not missing and not unused

    batch = {name: jnp.asarray(value, jnp.int32) for name, value in inputs.items()}
    is_decoder = "decoder_input_ids" in batch
    real = inputs["decoder_attention_mask" if is_decoder else "attention_mask"] == 1
    if "logits" not in arrays:
        hidden = jax.jit(model.hidden)(params, batch)
        close(hidden, arrays["hidden"], real)
        if "pooled" in arrays:
            close(pool(params, hidden), arrays["pooled"])
        return

    labels = jnp.asarray(arrays["labels"])
    if facts["architecture"].endswith(CAUSAL):  # each token is to say the next one
        labels = jnp.roll(labels, -1, axis=1)
    run = jax.jit(jax.value_and_grad(make_loss(model, labels), has_aux=True))
    (loss, output), grads = run(params, batch)
    close(output.hidden, arrays["hidden"], real)
    close(output.logits, arrays["logits"], real)
    if is_decoder:
        encoded = jax.jit(model.encode)(params, batch)
        close(encoded, arrays["encoded"], inputs["attention_mask"] == 1)
    assert loss == pytest.approx(float(arrays["loss"]), rel=1e-3)
    check_gradients(to_hf_tensors(grads, config, parts), gradients)

    (_, output), _ = run(adamw_step(params, grads), batch)
    close(output.logits, arrays["logits_after_step"], real, tolerance=1e-3)


def make_loss(model, labels):
    """Mean cross-entropy over labels that are not -100, and the output beside it."""

    def loss(params, batch):
        output = model.apply(params, batch)
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(output.logits), jnp.maximum(labels, 0)[..., None], axis=-1
        )[..., 0]
        weights = (labels >= 0).astype(jnp.float32)
        return -jnp.sum(picked * weights) / jnp.sum(weights), output

    return loss


def close(ours, theirs, real=..., tolerance=1e-4):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(np.asarray(ours)[real], theirs[real], rtol=1e-4, atol=tolerance)


def check_gradients(ours, theirs):
    unused_by_torch = set(ours) - set(theirs)  # the second of two biases
    assert all(name.endswith("bias") for name in unused_by_torch) and set(theirs) <= set(ours)
    for name, expected in theirs.items():
        difference = np.linalg.norm(ours[name] - expected)
        assert difference <= 1e-3 * np.linalg.norm(expected) + 1e-6, name


def adamw_step(params, grads):
    """The first step of AdamW, whose moments cancel."""

    def step(p, g):
        direction = g / (np.abs(g) + ADAMW["eps"]) + ADAMW["weight_decay"] * p
        return p - ADAMW["lr"] * direction

    return jax.tree.map(step, params, grads)
