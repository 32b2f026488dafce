"""Tiny models with random parameters, one for each thing that the stored form can differ in."""

import jax
import numpy as np

from medjax.models.config import BertConfig, Compute, DecoderConfig, ModernBertConfig, T5Config
from medjax.models.model import build_model

_BERT = {
    "vocab_size": 150,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
_DECODER = {
    "vocab_size": 150,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
_T5 = {"vocab_size": 150, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 2}

CONFIGS = {
    "t5": T5Config(**_T5),
    "t5_v1_1": T5Config(
        **_T5, num_decoder_layers=3, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "bert": BertConfig(**_BERT),
    "bert_untied": BertConfig(**_BERT, tie_word_embeddings=False),
    "roberta": BertConfig(**_BERT, model_type="roberta", type_vocab_size=1),
    "megatron": BertConfig(**_BERT, model_type="megatron-bert"),
    "modernbert": ModernBertConfig(
        vocab_size=150,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        local_attention=8,
    ),
    "llama": DecoderConfig(
        **_DECODER, rope_scaling={"rope_type": "llama3", "factor": 4.0}, attention_bias=True
    ),
    "gemma3": DecoderConfig(
        **_DECODER | {"model_type": "gemma3_text", "num_hidden_layers": 3, "head_dim": 6},
        sliding_window=4,
        global_attn_every_n_layers=2,
    ),
}
CONFIGS["gpt2"] = DecoderConfig(**_DECODER | {"model_type": "gpt2", "num_key_value_heads": None})
FLOAT32 = Compute(dtype="float32")


def tiny_model(name="bert", parts=("lm_head",), seed=0):
    """A model and NumPy parameters without a structure that could hide a mistake."""
    model = build_model(CONFIGS[name], FLOAT32, parts)
    rng = np.random.default_rng(seed)

    def draw(spec):
        value = np.zeros(spec.shape, np.float32)
        real = tuple(slice(size) for size in spec.unpadded)
        value[real] = rng.normal(size=spec.unpadded)
        return value

    return model, jax.tree.map(draw, model.specs)


def assert_same(params, expected):
    """Equal trees of equal arrays, bit for bit."""
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
