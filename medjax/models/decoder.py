"""Decoders: Llama 3, Mistral, Qwen3 and Gemma 3 (text), a causal stack of pre-norm layers.

All have RMS norm, rotary positions, grouped keys and values, and a gated feed-forward layer. The
configuration says what varies: Qwen3 and Gemma norm queries and keys of each head; Gemma norms what
a sublayer gives too, counts its norms' weights from one, scales embeddings, and has global layers
among sliding ones; Llama 3 stretches its rotary frequencies; Mistral may attend to a window alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.config import UserError
from medjax.models.attention import attention, batch_mask
from medjax.models.config import Compute, DecoderConfig
from medjax.models.layers import (
    ACTIVATIONS,
    embed,
    fold,
    linear,
    linear_specs,
    norm_specs,
    rms_norm,
    rotary_angles,
    rotate,
    scan_layers,
    vocabulary_spec,
)
from medjax.models.model import Batch, Head, Model, Params, assemble
from medjax.models.spec import normal


def build(config: DecoderConfig, compute: Compute, parts: Sequence[str]) -> Model:
    """The Model of a decoder's configuration."""
    hidden_ = functools.partial(hidden, config, compute)
    tree = specs(config, parts)
    if "lm_head" not in parts:
        return assemble(config, compute, tree, hidden_, None)
    from medjax.models.decoder_steps import build_steps

    head_ = functools.partial(head, config)
    return assemble(config, compute, tree, hidden_, head_, steps=build_steps(config, compute))


def specs(config: DecoderConfig, parts: Sequence[str]) -> Params:
    """Every weight: shape, axes and initial value."""
    init = normal(config.initializer_range)
    word = vocabulary_spec(config.vocab_size, config.hidden_size, init)
    scale = 0.0 if config.is_gemma else 1.0
    tree: Params = {
        "embeddings": {"word": word},
        "layers": _layer_specs(config, init, scale),
        "norm": norm_specs(config.hidden_size, scale=scale),
    }
    if "lm_head" in parts and not config.tie_word_embeddings:
        tree["lm_head"] = word
    return tree


def _layer_specs(config: DecoderConfig, init, scale: float) -> Params:
    width, layers, size = config.hidden_size, config.num_hidden_layers, config.head_size
    embed, mlp = [("embed", width)], [("mlp", config.intermediate_size)]
    queries = [("heads", config.num_attention_heads), ("kv", size)]
    keys = [("heads", config.key_value_heads), ("kv", size)]
    linear = functools.partial(linear_specs, init=init, layers=layers)
    bias, norm = config.attention_bias, norm_specs(width, layers, scale=scale)
    attention = {
        "norm": norm,
        "q": linear(embed, queries, bias=bias),
        "k": linear(embed, keys, bias=bias),
        "v": linear(embed, keys, bias=bias),
        "o": linear(queries, embed, bias=bias),
    }
    feed_forward = {
        "norm": norm,
        "gate": linear(embed, mlp, bias=config.mlp_bias),
        "up": linear(embed, mlp, bias=config.mlp_bias),
        "down": linear(mlp, embed, bias=config.mlp_bias),
    }
    if config.norms_heads:
        of_head = norm_specs(size, layers, scale=scale)
        attention |= {"q_norm": of_head, "k_norm": of_head}
    if config.is_gemma:
        attention["post_norm"] = feed_forward["post_norm"] = norm
    return {"attention": attention, "mlp": feed_forward}


def hidden(
    config: DecoderConfig,
    compute: Compute,
    params: Params,
    batch: Batch,
    *,
    key: Array | None = None,
) -> Float[Array, "B T D"]:
    """The final states; each token's depends on itself and those before it."""
    length = batch["input_ids"].shape[1]
    if length > config.max_length:
        raise UserError(
            f"an input of {length} tokens is longer than max_position_embeddings, "
            f"{config.max_length}; shorten the blocks"
        )
    x = embedded(config, compute, params, batch["input_ids"])
    pattern = [_block(config, compute, batch, is_global) for is_global in config.pattern]
    x = scan_layers(pattern, x, params["layers"], compute, key)
    return norm(config, x, params["norm"])


@jax.named_scope("embeddings")
def embedded(config: DecoderConfig, compute: Compute, params: Params, ids: Array) -> Array:
    """The first states of tokens."""
    x = embed(params["embeddings"]["word"], ids).astype(compute.dtype)
    return x * jnp.asarray(math.sqrt(config.hidden_size), x.dtype) if config.is_gemma else x


def head(config: DecoderConfig, params: Params, hidden: Float[Array, "*B D"]) -> Head:
    """States ready for the vocabulary."""
    tied = config.tie_word_embeddings
    return Head(hidden, params["embeddings"]["word"] if tied else params["lm_head"], None)


def _block(config: DecoderConfig, compute: Compute, batch: Batch, is_global: bool):
    """A layer as a function of state, parameters and key, for one kind of attention."""
    window = None if is_global else config.sliding_window - 1
    mask = batch_mask(batch, causal=True, window=window)
    positions = batch.get("position_ids", jnp.arange(batch["input_ids"].shape[1])[None])
    angles = rotary_angles(positions, jnp.asarray(frequencies(config, is_global)))

    def block(x, layer, key):
        attend = functools.partial(_attention, config, compute, mask, key)
        return sublayers(config, layer, x, angles, attend)

    return block


def sublayers(
    config: DecoderConfig,
    layer: Params,
    x: Float[Array, "B T D"],
    angles: tuple[Array, Array],
    attend: Callable[..., Array],
) -> Float[Array, "B T D"]:
    """A layer, given what attends: attend(q [B, T, H, K], k [B, T, G, K], v) -> [B, T, H, K]."""
    params = layer["attention"]
    with jax.named_scope("attention"):
        y = attend(*_projections(config, params, x, angles))
        x = x + _post_norm(config, linear(y, params["o"], n_in=2), params)
    return x + _post_norm(config, _mlp(config, layer["mlp"], x), layer["mlp"])


def frequencies(config: DecoderConfig, is_global: bool) -> Float[np.ndarray, " K/2"]:
    """Rotary frequencies; scaled ones (as of Llama 3.1, or linear) are for global layers."""
    size, scaling = config.head_size, config.rope_scaling
    theta = config.rope_theta
    if not is_global and config.rope_local_base_freq is not None:
        theta, scaling = config.rope_local_base_freq, None
    plain = theta ** -(np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    if scaling is None:
        return plain
    if scaling.rope_type == "linear":
        return plain / np.float32(scaling.factor)
    turns = scaling.original_max_position_embeddings * plain / (2 * np.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return ((1 - share) * plain / scaling.factor + share * plain).astype(np.float32)


def _projections(config, params, x, angles):
    """Queries, keys and values, turned by their positions."""
    normed = norm(config, x, params["norm"])
    if "qkv" in params:  # of `decoder_steps.prepare`
        heads, groups = config.num_attention_heads, config.key_value_heads
        joined = linear(normed, params["qkv"]).reshape(*x.shape[:2], -1, config.head_size)
        q, k, v = jnp.split(joined, [heads, heads + groups], axis=2)
    else:
        q, k, v = (linear(normed, params[name]) for name in "qkv")
    if config.norms_heads:
        q, k = norm(config, q, params["q_norm"]), norm(config, k, params["k_norm"])
    return rotate(q, angles), rotate(k, angles), v


def _attention(config, compute, mask, key, q, k, v):
    """Attention within the rows."""
    groups = config.num_attention_heads // config.key_value_heads
    return attention(
        q,
        *(jnp.repeat(each, groups, axis=2) for each in (k, v)),
        mask,
        scale=config.attention_scale,
        rate=config.attention_dropout,
        key=fold(key, 0),
        implementation=compute.attention,
    )


@jax.named_scope("mlp")
def _mlp(config, params, x):
    normed = norm(config, x, params["norm"])
    if "gate_up" in params:
        gate, up = jnp.split(linear(normed, params["gate_up"]), 2, axis=-1)
    else:
        gate, up = linear(normed, params["gate"]), linear(normed, params["up"])
    return linear(ACTIVATIONS[config.hidden_act](gate) * up, params["down"])


def norm(config: DecoderConfig, x: Array, params: Params) -> Array:
    """RMS norm; Gemma's weights count from one."""
    scale = params["scale"]
    return rms_norm(x, {"scale": 1.0 + scale if config.is_gemma else scale}, config.rms_norm_eps)


def _post_norm(config: DecoderConfig, y: Array, params: Params) -> Array:
    return norm(config, y, params["post_norm"]) if config.is_gemma else y
