"""Every published size as a configuration file, by its parameter count (nothing is allocated)."""

from pathlib import Path

import jax
import pytest

from medjax.config import Schema, load
from medjax.models import build_model, count_params
from medjax.models.config import ModelConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "model"
# Counted by transformers 5.23 on torch's meta device; a T5 v1.1's two tables both count.
PARAMETERS = {
    "bert_base": 109_514_298,
    "bert_large": 335_174_458,
    "bert_tiny": 4_386_752,
    "biomedlm": 2_594_247_680,
    "clinical_t5_base": 222_805_248,
    "clinical_t5_large": 737_537_024,
    "gatortron_base": 355_319_808,
    "gemma_3_1b": 999_885_952,
    "llama_3_2_1b": 1_235_814_400,
    "llama_tiny": 4_721_856,
    "medgemma_27b_text": 27_009_002_240,
    "mistral_nemo_12b": 12_247_782_400,
    "modernbert_base": 149_655_232,
    "modernbert_large": 395_881_664,
    "modernbert_tiny": 4_274_816,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_32b": 32_762_123_264,
    "roberta_base": 124_697_433,
    "roberta_large": 355_412_057,
    "t5_11b": 11_307_321_344,
    "t5_3b": 2_851_598_336,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_small": 60_506_624,
    "t5_tiny": 4_459_520,
    "t5_v1_1_base": 247_577_856,
    "t5_v1_1_large": 783_150_080,
    "t5_v1_1_small": 76_961_152,
    "t5_v1_1_xl": 2_849_757_184,
    "t5_v1_1_xxl": 11_135_332_352,
}


class File(Schema):
    """A file of configs/model."""

    model: ModelConfig
    """The model."""


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_parameter_count(path):
    config = load(File, [path]).model
    model = build_model(config)
    assert count_params(model.specs) == PARAMETERS[path.stem]
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    for spec, array in zip(jax.tree.leaves(model.specs), jax.tree.leaves(shapes), strict=True):
        assert spec.shape == array.shape and len(spec.axes) == len(spec.shape)
        assert 0 <= spec.rows < max(len(spec.shape), 1) and spec.decay <= (spec.rows > 0)
