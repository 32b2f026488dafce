"""Decoders: Llama 3, Mistral, Qwen3, Gemma 3 (text) and GPT-2, a causal stack of pre-norm layers.

All but GPT-2 have RMS norm, rotary positions, grouped keys and values, and a gated feed-forward
layer. The configuration says what varies: Qwen3 and Gemma norm queries and keys of each head; Gemma
norms what a sublayer gives too, counts its norms' weights from one, scales embeddings, and has
global layers among sliding ones; Llama 3 stretches its rotary frequencies; Mistral may attend to a
window alone. GPT-2 has layer norm, learnt positions, biases, and no gate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medjax.config import UserError
from medjax.models.attention import attention, batch_mask
from medjax.models.config import Compute, DecoderConfig
from medjax.models.layers import (
    ACTIVATIONS,
    dropout,
    embed,
    fold,
    layer_norm,
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
from medjax.models.spec import Spec, normal


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
    init, width = normal(config.initializer_range), config.hidden_size
    word = vocabulary_spec(config.vocab_size, width, init)
    norm = functools.partial(norm_specs, width, scale=_unit(config), bias=config.is_gpt2)
    tree: Params = {
        "embeddings": {"word": word},
        "layers": _layer_specs(config, init, norm(config.num_hidden_layers)),
        "norm": norm(),
    }
    if config.is_gpt2:
        shape = (config.max_position_embeddings, width)
        tree["embeddings"]["position"] = Spec(shape, (None, "embed"), init)
    if "lm_head" in parts and not config.tie_word_embeddings:
        tree["lm_head"] = word
    return tree


def _unit(config: DecoderConfig) -> float:
    """The weight of a norm that changes nothing."""
    return 0.0 if config.is_gemma else 1.0


def _layer_specs(config: DecoderConfig, init, norm: Params) -> Params:
    width, layers, size = config.hidden_size, config.num_hidden_layers, config.head_size
    embed, mlp = [("embed", width)], [("mlp", config.intermediate_size)]
    queries = [("heads", config.num_attention_heads), ("kv", size)]
    keys = [("heads", config.key_value_heads), ("kv", size)]
    linear = functools.partial(linear_specs, layers=layers)
    bias, mlp_bias, last = config.attention_bias, config.mlp_bias, init
    if config.is_gpt2:  # what is added up over the layers begins smaller (Radford et al. 2019)
        last = normal(config.initializer_range * (2 * layers) ** -0.5)
    attention = {"norm": norm, "o": linear(queries, embed, last, bias=bias)}
    feed_forward = {
        "norm": norm,
        "up": linear(embed, mlp, init, bias=mlp_bias),
        "down": linear(mlp, embed, last, bias=mlp_bias),
    }
    if config.is_gpt2:
        attention["qkv"] = linear(embed, [(None, 3), *queries], init, bias=bias)
    else:
        attention["q"] = linear(embed, queries, init, bias=bias)
        attention |= {name: linear(embed, keys, init, bias=bias) for name in "kv"}
        feed_forward["gate"] = linear(embed, mlp, init, bias=mlp_bias)
    if config.norms_heads:
        of_head = norm_specs(size, layers, scale=_unit(config))
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
    positions = batch.get("position_ids", jnp.arange(length)[None])
    x = embedded(config, compute, params, batch["input_ids"], positions)
    x = dropout(x, config.hidden_dropout, fold(key, 0))
    pattern = [_block(config, compute, batch, positions, kind) for kind in config.pattern]
    layers = params["layers"] | {"scale": jnp.asarray(attention_scales(config))}
    x = scan_layers(pattern, x, layers, compute, fold(key, 1))
    return norm(config, x, params["norm"])


@jax.named_scope("embeddings")
def embedded(
    config: DecoderConfig,
    compute: Compute,
    params: Params,
    ids: Int[Array, "B T"],
    positions: Int[Array, "B T"],
) -> Float[Array, "B T D"]:
    """The first states of tokens."""
    x = embed(params["embeddings"]["word"], ids)
    if config.is_gpt2:
        x = x + embed(params["embeddings"]["position"], positions)
    x = x.astype(compute.dtype)
    return x * jnp.asarray(math.sqrt(config.hidden_size), x.dtype) if config.is_gemma else x


def attention_scales(config: DecoderConfig) -> Float[np.ndarray, " layers"]:
    """What the scores of each layer are multiplied by."""
    scales = np.full(config.num_hidden_layers, config.attention_scale, np.float32)
    if config.scale_attn_by_inverse_layer_idx:
        scales /= np.arange(1, config.num_hidden_layers + 1)
    return scales


def head(config: DecoderConfig, params: Params, hidden: Float[Array, "*B D"]) -> Head:
    """States ready for the vocabulary."""
    tied = config.tie_word_embeddings
    return Head(hidden, params["embeddings"]["word"] if tied else params["lm_head"], None)


def _block(
    config: DecoderConfig, compute: Compute, batch: Batch, positions: Array, is_global: bool
):
    """A layer as a function of state, parameters and key, for one kind of attention."""
    window = None if is_global else config.sliding_window - 1
    mask = batch_mask(batch, causal=True, window=window)
    angles = angles_of(config, positions, is_global)

    def block(x, layer, key):
        attend = functools.partial(_attention, config, compute, mask, fold(key, 0))
        return sublayers(config, layer, x, angles, attend, fold(key, 1))

    return block


def sublayers(
    config: DecoderConfig,
    layer: Params,
    x: Float[Array, "B T D"],
    angles: tuple[Array, Array] | None,
    attend: Callable[..., Array],
    key: Array | None = None,
) -> Float[Array, "B T D"]:
    """A layer, given what attends: attend(q [B, T, H, K], k [B, T, G, K], v) -> [B, T, H, K]; the
    queries are scaled."""
    params, rate = layer["attention"], config.hidden_dropout
    with jax.named_scope("attention"):
        q, k, v = _projections(config, params, x, angles)
        y = linear(attend(q * layer["scale"].astype(q.dtype), k, v), params["o"], n_in=2)
        x = x + dropout(_post_norm(config, y, params), rate, fold(key, 0))
    y = _post_norm(config, _mlp(config, layer["mlp"], x), layer["mlp"])
    return x + dropout(y, rate, fold(key, 1))


def angles_of(
    config: DecoderConfig, positions: Int[Array, "B T"], is_global: bool
) -> tuple[Array, Array] | None:
    """Rotary angles; none for GPT-2."""
    if config.is_gpt2:
        return None
    return rotary_angles(positions, jnp.asarray(frequencies(config, is_global)))


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
    """Queries, keys and values, turned by their positions where those are rotary."""
    normed = norm(config, x, params["norm"])
    if "qkv" in params:  # of GPT-2, or of `decoder_steps.prepare`
        heads, groups = config.num_attention_heads, config.key_value_heads
        joined = linear(normed, params["qkv"]).reshape(*x.shape[:2], -1, config.head_size)
        q, k, v = jnp.split(joined, [heads, heads + groups], axis=2)
    else:
        q, k, v = (linear(normed, params[name]) for name in "qkv")
    if config.norms_heads:
        q, k = norm(config, q, params["q_norm"]), norm(config, k, params["k_norm"])
    return (q, k, v) if angles is None else (rotate(q, angles), rotate(k, angles), v)


def _attention(config, compute, mask, key, q, k, v):
    """Attention within the rows."""
    groups = config.num_attention_heads // config.key_value_heads
    return attention(
        q,
        *(jnp.repeat(each, groups, axis=2) for each in (k, v)),
        mask,
        scale=1.0,
        rate=config.attention_dropout,
        key=key,
        implementation=compute.attention,
    )


@jax.named_scope("mlp")
def _mlp(config, params, x):
    normed = norm(config, x, params["norm"])
    activation = ACTIVATIONS[config.hidden_act]
    if config.is_gpt2:
        return linear(activation(linear(normed, params["up"])), params["down"])
    if "gate_up" in params:
        gate, up = jnp.split(linear(normed, params["gate_up"]), 2, axis=-1)
    else:
        gate, up = linear(normed, params["gate"]), linear(normed, params["up"])
    return linear(activation(gate) * up, params["down"])


def norm(config: DecoderConfig, x: Array, params: Params) -> Array:
    """RMS norm, of which Gemma's weights count from one; GPT-2's is layer norm."""
    if config.is_gpt2:
        return layer_norm(x, params, config.rms_norm_eps)
    scale = params["scale"]
    return rms_norm(x, {"scale": 1.0 + scale if config.is_gemma else scale}, config.rms_norm_eps)


def _post_norm(config: DecoderConfig, y: Array, params: Params) -> Array:
    return norm(config, y, params["post_norm"]) if config.is_gemma else y
