"""ModernBERT (Warner et al. 2024): rotary positions, pre-norm, gated GELU, local attention.

Every `global_attn_every_n_layers`-th layer attends to all tokens, the others to a window; the two
kinds have rotary angles of their own. The pattern is what the scan repeats, so that local layers
stay cheap. The first layer's attention has no norm, since the embeddings come normed: its norms
are stacked over one layer less.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.config import UserError
from medjax.models.attention import attention, batch_mask
from medjax.models.config import Compute, ModernBertConfig
from medjax.models.layers import (
    ACTIVATIONS,
    dropout,
    embed,
    fold,
    layer_norm,
    linear,
    linear_specs,
    norm_specs,
    rotary,
    rotate,
    scan_layers,
    vocabulary_bias_spec,
    vocabulary_spec,
)
from medjax.models.model import Batch, Head, Model, Params, assemble
from medjax.models.spec import truncated_normal


def build(config: ModernBertConfig, compute: Compute, parts: Sequence[str]) -> Model:
    """The Model of a ModernBERT configuration."""
    hidden_ = functools.partial(hidden, config, compute)
    head_ = functools.partial(head, config) if "lm_head" in parts else None
    return assemble(config, compute, specs(config, parts), hidden_, head_)


def specs(config: ModernBertConfig, parts: Sequence[str]) -> Params:
    """Every weight: shape, axes and initial value (Megatron's scheme, cut off)."""
    width, std = config.hidden_size, config.initializer_range
    cut = functools.partial(truncated_normal, cutoff=config.initializer_cutoff_factor)
    out = cut(std / math.sqrt(2.0 * config.num_hidden_layers))
    norm = norm_specs(width, bias=config.norm_bias)
    word = vocabulary_spec(config.vocab_size, width, cut(std))
    tree: Params = {
        "embeddings": {"word": word, "norm": norm},
        "layers": _layer_specs(config, cut(std), out),
        "norm": norm,
    }
    if "lm_head" in parts:
        embed, same = [("embed", width)], [(None, width)]
        dense = linear_specs(embed, same, out, bias=config.classifier_bias)
        tree["lm_head"] = {"dense": dense, "norm": norm}
        if config.decoder_bias:
            tree["lm_head"]["bias"] = vocabulary_bias_spec(config.vocab_size)
        if not config.tie_word_embeddings:
            tree["lm_head"]["table"] = vocabulary_spec(config.vocab_size, width, out)
    return tree


def _layer_specs(config: ModernBertConfig, inward, outward) -> Params:
    width, layers = config.hidden_size, config.num_hidden_layers
    embed, mlp = [("embed", width)], [("mlp", config.intermediate_size)]
    split = [("heads", config.num_attention_heads), ("kv", width // config.num_attention_heads)]
    bias = config.attention_bias
    attention = {
        "norm": norm_specs(width, layers - 1, bias=config.norm_bias),
        "qkv": linear_specs(embed, [(None, 3), *split], inward, layers, bias),
        "o": linear_specs(split, embed, outward, layers, bias),
    }
    bias = config.mlp_bias
    mlp = {
        "norm": norm_specs(width, layers, bias=config.norm_bias),
        "gate_up": linear_specs(embed, [(None, 2), *mlp], inward, layers, bias),
        "down": linear_specs(mlp, embed, outward, layers, bias),
    }
    return {"attention": attention, "mlp": mlp}


def hidden(
    config: ModernBertConfig,
    compute: Compute,
    params: Params,
    batch: Batch,
    *,
    key: Array | None = None,
) -> Float[Array, "B T D"]:
    """The final states."""
    with jax.named_scope("embeddings"):
        x = embed(params["embeddings"]["word"], batch["input_ids"])
        x = layer_norm(x, params["embeddings"]["norm"], config.norm_eps).astype(compute.dtype)
        x = dropout(x, config.embedding_dropout, fold(key, 0))

    wide = _block(config, compute, batch, config.global_rope_theta, None)
    near = _block(config, compute, batch, config.local_rope_theta, config.local_attention // 2)
    pattern = [wide] + [near] * (config.global_attn_every_n_layers - 1)
    layers = _with_first_norm(params["layers"])
    x = scan_layers(pattern, x, layers, compute, fold(key, 1))
    return layer_norm(x, params["norm"], config.norm_eps)


def head(config: ModernBertConfig, params: Params, hidden: Float[Array, "*B D"]) -> Head:
    """The masked-LM head's transformation, before the vocabulary."""
    own = params["lm_head"]
    x = ACTIVATIONS[config.classifier_activation](linear(hidden, own["dense"]))
    x = layer_norm(x, own["norm"], config.norm_eps)
    table = params["embeddings"]["word"] if config.tie_word_embeddings else own["table"]
    return Head(x, table, own.get("bias"))


def _with_first_norm(layers: Params) -> Params:
    """Layers with a norm for the first one too, and `first`, which says not to use it."""
    norms = layers["attention"]["norm"]
    norms = jax.tree.map(lambda p: jnp.concatenate([jnp.ones_like(p[:1]), p]), norms)
    first = jnp.arange(norms["scale"].shape[0]) == 0
    return {**layers, "attention": {**layers["attention"], "norm": norms, "first": first}}


def _block(config, compute, batch, theta, window):
    """A layer as a function of state, parameters and key, for one kind of attention."""
    ids, mask = batch["input_ids"], batch_mask(batch, window=window)
    if ids.shape[1] > config.max_length:
        raise UserError(
            f"an input of {ids.shape[1]} tokens is longer than max_position_embeddings, "
            f"{config.max_length}; shorten the blocks"
        )
    positions = batch.get("position_ids", jnp.arange(ids.shape[1])[None])
    angles = rotary(positions, theta, config.hidden_size // config.num_attention_heads)

    def block(x, layer, key):
        x = x + _attention(config, compute, mask, angles, layer["attention"], x, key)
        return x + _mlp(config, layer["mlp"], x, fold(key, 2))

    return block


@jax.named_scope("attention")
def _attention(config, compute, mask, angles, params, x, key):
    normed = jnp.where(params["first"], x, layer_norm(x, params["norm"], config.norm_eps))
    q, k, v = jnp.unstack(linear(normed, params["qkv"]), axis=-3)
    y = attention(
        rotate(q, angles),
        rotate(k, angles),
        v,
        mask,
        scale=(config.hidden_size // config.num_attention_heads) ** -0.5,
        rate=config.attention_dropout,
        key=fold(key, 0),
        implementation=compute.attention,
    )
    return dropout(linear(y, params["o"], n_in=2), config.attention_dropout, fold(key, 1))


@jax.named_scope("mlp")
def _mlp(config, params, x, key):
    normed = layer_norm(x, params["norm"], config.norm_eps)
    gated, up = jnp.unstack(linear(normed, params["gate_up"]), axis=-2)
    y = ACTIVATIONS[config.hidden_activation](gated) * up
    return linear(dropout(y, config.mlp_dropout, key), params["down"])
