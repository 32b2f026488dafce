"""Matrices held in fewer bits: the products are those of what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import generate
from medjax.hub.folder import load_pretrained, save_pretrained
from medjax.models import build_model
from medjax.models.config import Compute
from medjax.models.held import hold, is_int8
from tests.models.tiny import CONFIGS, make_batch, make_params


def held_params(model, held):
    """(float32 parameters, the same as held, float32 parameters of what those stand for)."""
    import qwix

    specs, plain = flatten_dict(model.specs, sep="/"), make_params(model.specs)
    flat = flatten_dict(jax.tree.map(jnp.asarray, plain), sep="/")
    own = {path: hold(path, specs[path], value, held) for path, value in flat.items()}
    stands = {
        path: qwix.dequantize(value) if is_int8(value) else value.astype(jnp.float32)
        for path, value in own.items()
    }
    return plain, unflatten_dict(own, sep="/"), unflatten_dict(stands, sep="/")


@pytest.mark.parametrize(
    "name", ["t5_v1_1", pytest.param("gemma3", marks=pytest.mark.long), "gpt2", "bert"]
)
def test_int8_products_are_those_of_the_rounded_matrices(name):
    model = build_model(CONFIGS[name], Compute(dtype="float32"))
    plain, own, stands = held_params(model, "int8")
    moved = [
        (path, int8, flatten_dict(plain, sep="/")[path])
        for path, int8 in flatten_dict(own, sep="/", is_leaf=lambda _, x: is_int8(x)).items()
        if is_int8(int8)
    ]
    assert len(moved) >= 4 and all(path.endswith("kernel") for path, _, _ in moved)
    for path, int8, value in moved:
        spec = flatten_dict(model.specs, sep="/")[path]
        assert int8.qvalue.dtype == jnp.int8
        inputs = tuple(1 if 1 <= i <= spec.rows else n for i, n in enumerate(spec.shape))
        assert int8.scale.shape == inputs
        error = np.abs(np.asarray(int8.qvalue * int8.scale) - value)
        assert (error <= np.asarray(int8.scale) * 0.501).all()
    batch = make_batch(CONFIGS[name])
    run = jax.jit(model.apply)
    got, want = (run(params, batch).logits for params in (own, stands))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    if name == "bert":
        return
    rows = [np.array([5, 6, 7, 8], np.int32), np.array([9, 4], np.int32)]
    start = {"start_id": 0} if name.startswith("t5") else {}
    decoding = DecodingConfig(max_new_tokens=6)
    texts = [generate(model, params, rows, decoding, [1], **start) for params in (own, stands)]
    for first, second in zip(*texts, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("held", ["bfloat16", "int8"])
def test_a_folder_is_loaded_as_asked(tmp_path, held):
    model = build_model(CONFIGS["qwen3"], Compute(dtype="float32"))
    params = jax.tree.map(jnp.asarray, make_params(model.specs))
    save_pretrained(tmp_path / "m", model, params)
    _, loaded = load_pretrained(tmp_path / "m", Compute(dtype="float32"), held=held)
    _, own, _ = held_params(model, held)
    jax.tree.map(np.testing.assert_array_equal, loaded, own)
    assert loaded["embeddings"]["word"].dtype == jnp.float32
