"""Tiny configurations and batches of every family for the tests."""

import jax
import jax.numpy as jnp
import numpy as np

from medjax.models.config import BertConfig, DecoderConfig, ModernBertConfig, T5Config
from medjax.models.spec import path_name

BERT = dict(
    vocab_size=99,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
)
DECODER = dict(
    vocab_size=99,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=40,
)
T5 = dict(vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
CONFIGS = {
    "t5": T5Config(**T5),
    "t5_v1_1": T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "bert": BertConfig(**BERT),
    "roberta": BertConfig(**BERT, model_type="roberta"),
    "megatron": BertConfig(**BERT, model_type="megatron-bert"),
    "modernbert": ModernBertConfig(
        **BERT | {"num_hidden_layers": 5},
        global_attn_every_n_layers=2,
        local_attention=6,
    ),
}


CONFIGS |= {
    "gpt2": DecoderConfig(
        **DECODER | {"num_key_value_heads": None},
        model_type="gpt2",
        scale_attn_by_inverse_layer_idx=True,
    ),
    "qwen3": DecoderConfig(**DECODER, model_type="qwen3", head_dim=6),
    "gemma3": DecoderConfig(
        **DECODER | {"num_hidden_layers": 5},
        model_type="gemma3_text",
        head_dim=6,
        sliding_window=5,
        global_attn_every_n_layers=3,
    ),
}


LENGTH, TARGET_LENGTH = 28, 18


def make_params(specs, seed=0):
    """Random parameters of moderate size, made by NumPy: nothing is compiled."""
    numbers = np.random.default_rng(seed)

    def draw(path, spec):
        values = numbers.normal(0.0, 0.1, spec.shape).astype(np.float32)
        real = np.zeros(spec.shape, bool)
        real[tuple(slice(n) for n in spec.unpadded)] = True
        return jnp.asarray(np.where(real, values + path_name(path).endswith("scale"), 0.0))

    return jax.tree.map_with_path(draw, specs)


def make_batch(config, real=(LENGTH, 20), seed=0):
    """A row for each of `real` tokens, padded to LENGTH; the decoder has two thirds of that."""
    batch = _row_ids(real, LENGTH, seed)
    if config.model_type == "t5":
        targets = _row_ids([n * TARGET_LENGTH // LENGTH for n in real], TARGET_LENGTH, seed + 1)
        batch |= {f"decoder_{name}": value for name, value in targets.items()}
    return batch


def _row_ids(real, length, seed):
    ids = np.random.default_rng(seed).integers(4, 99, (len(real), length))
    mask = np.arange(length)[None] < np.array(real)[:, None]
    ids = np.where(mask, ids, 1)
    return {"input_ids": jnp.int32(ids), "attention_mask": jnp.int32(mask)}
