"""Low-rank pairs: applied beside the kernels, merged into them, none of them forgotten."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from medjax.config import UserError
from medjax.models import build_model
from medjax.models.config import Compute
from medjax.models.lora import lora_specs, merged, pairs, with_lora
from medjax.models.spec import init_params
from tests.models.tiny import CONFIGS, make_batch, make_params

TARGETS = {"modernbert": ["qkv", "o", "gate_up", "down"], "t5": ["q", "k", "v", "o", "up", "down"]}
TARGETS["gpt2"] = ["qkv", "o", "up", "down"]


def model_of(name):
    model = build_model(CONFIGS[name], Compute(dtype="float32"))
    return model, make_params(model.specs)


def targets_of(name):
    return TARGETS.get(name, TARGETS["t5"])


@pytest.mark.parametrize("name", CONFIGS)
def test_beside_the_kernels_and_merged_is_the_same(name):
    model, params = model_of(name)
    specs = lora_specs(model.specs, 3, targets_of(name))
    kernels = [p for p in flatten_dict(model.specs, sep="/") if "layers/" in p and "kernel" in p]
    expected = {p.removesuffix("/kernel") for p in kernels if "/gate/" not in p}
    assert set(pairs(specs)) == expected
    lora = make_params(specs, seed=1)
    batch, run = make_batch(CONFIGS[name]), jax.jit(model.hidden)
    beside = run(with_lora(params, lora, 0.5), batch)
    np.testing.assert_allclose(beside, run(merged(params, lora, 0.5), batch), rtol=1e-4, atol=1e-5)
    assert np.abs(beside - run(params, batch)).max() > 1e-2


def test_it_begins_at_the_published_model():
    model, params = model_of("bert")
    lora = init_params(lora_specs(model.specs, 4, ["q", "v"]), jax.random.key(0))
    after = merged(params, lora, 2.0)
    jax.tree.map(np.testing.assert_array_equal, after, params)
    first, second = pairs(lora)["layers/attention/q"]
    assert first.shape == (2, 32, 4) and second.shape == (2, 4, 32)
    assert 0 < np.abs(first).max() <= 32**-0.5 and not second.any()


def test_a_projection_that_no_layer_has():
    model, _ = model_of("bert")
    with pytest.raises(UserError, match=r"projection qkv; there are down, k, o, q, up, v"):
        lora_specs(model.specs, 4, ["q", "qkv"])
