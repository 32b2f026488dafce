"""The example in `medjax.__doc__`, and that its names come lazily."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax.models.config import BertConfig

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=8,
)


def test_build_save_load_apply(tmp_path):
    model = medjax.build_model(CONFIG, medjax.Compute(dtype="float32"))
    params = jax.jit(model.init)(jax.random.key(0))
    medjax.save_pretrained(tmp_path / "m", model, params)
    again, loaded = medjax.load_pretrained(tmp_path / "m", medjax.Compute(dtype="float32"))
    batch = {
        "input_ids": jnp.ones((2, 5), jnp.int32),
        "attention_mask": jnp.ones((2, 5), jnp.int32),
    }
    out, expected = jax.jit(again.apply)(loaded, batch), jax.jit(model.apply)(params, batch)
    assert out.hidden.shape == (2, 5, 16) and out.logits.shape == (2, 5, 50)
    np.testing.assert_array_equal(out.logits, expected.logits)


def test_names_are_listed_and_others_refused():
    assert set(medjax.__all__) <= set(dir(medjax))
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        medjax.load_model  # noqa: B018


def test_import_is_light():
    code = "import medjax, sys; medjax.Compute(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
