"""T5 (Raffel et al. 2020): encoder and decoder with relative position biases and RMS norms.

v1.0 has ReLU feed-forward layers and a head tied to the embedding, with states scaled by
d_model**-0.5; v1.1 and Flan have gated GELU and a head of their own. Attention scores are not
scaled: the initial values are (as in Mesh TensorFlow). Without the part "decoder" (which "lm_head"
brings along) the model is the encoder alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from medjax.models.attention import Mask, attention, batch_mask, bias_matrix, uses_blocks
from medjax.models.cache import KeyValues, attend, empty, key_values, visibility_bias, write
from medjax.models.config import Compute, T5Config
from medjax.models.held import is_int8, joined, turned
from medjax.models.layers import (
    ACTIVATIONS,
    dropout,
    embed,
    fold,
    linear,
    linear_specs,
    norm_specs,
    rms_norm,
    scan_layers,
    vocabulary_spec,
)
from medjax.models.model import Batch, Head, Model, Params, Steps, assemble
from medjax.models.spec import Spec, normal


def build(config: T5Config, compute: Compute, parts: Sequence[str]) -> Model:
    """The Model of a T5 configuration."""
    encode_ = functools.partial(encode, config, compute)
    tree = specs(config, parts)
    if "decoder" not in tree:
        return assemble(config, compute, tree, encode_, None, encode=encode_)
    decode_ = functools.partial(decode, config, compute)

    def hidden(params: Params, batch: Batch, *, key: Array | None = None) -> Array:
        encoded = encode_(params, batch, key=fold(key, 0))
        return decode_(params, batch, encoded, key=fold(key, 1))

    if "lm_head" not in parts:
        return assemble(config, compute, tree, hidden, None, encode=encode_, decode=decode_)
    steps = Steps(*(functools.partial(f, config, compute) for f in (prepare, start, step)))
    head_ = functools.partial(head, config)
    return assemble(
        config, compute, tree, hidden, head_, encode=encode_, decode=decode_, steps=steps
    )


def specs(config: T5Config, parts: Sequence[str]) -> Params:
    """Every weight: shape, axes and initial value (Mesh TensorFlow's, times initializer_factor)."""
    factor = config.initializer_factor
    tree: Params = {"shared": vocabulary_spec(config.vocab_size, config.d_model, normal(factor))}
    tree["encoder"] = _stack_specs(config, config.num_layers, cross=False)
    if "decoder" in parts or "lm_head" in parts:
        tree["decoder"] = _stack_specs(config, config.decoder_layers, cross=True)
    if "lm_head" in parts and not config.tie_word_embeddings:
        # Fan-in, as in T5X; transformers 4 draws it sqrt(d_model) times as large.
        init = normal(factor * config.d_model**-0.5)
        tree["lm_head"] = vocabulary_spec(config.vocab_size, config.d_model, init)
    return tree


def _stack_specs(config: T5Config, layers: int, cross: bool) -> Params:
    factor = config.initializer_factor
    shape = (config.relative_attention_num_buckets, config.num_heads)
    init = normal(factor * config.d_model**-0.5)
    block = {"attention": _attention_specs(config, layers), "mlp": _mlp_specs(config, layers)}
    if cross:
        block["cross_attention"] = _attention_specs(config, layers)
    return {
        "relative_bias": Spec(shape, (None, "heads"), init, decay=False),
        "layers": block,
        "norm": norm_specs(config.d_model, scale=factor),
    }


def _attention_specs(config: T5Config, layers: int) -> Params:
    factor, width, inner = config.initializer_factor, config.d_model, config.d_kv * config.num_heads
    embed, heads = [("embed", width)], [("heads", config.num_heads), ("kv", config.d_kv)]
    query = normal(factor * (width * config.d_kv) ** -0.5)  # makes up for unscaled scores
    return {
        "norm": norm_specs(width, layers, scale=factor),
        "q": linear_specs(embed, heads, query, layers),
        "k": linear_specs(embed, heads, normal(factor * width**-0.5), layers),
        "v": linear_specs(embed, heads, normal(factor * width**-0.5), layers),
        "o": linear_specs(heads, embed, normal(factor * inner**-0.5), layers),
    }


def _mlp_specs(config: T5Config, layers: int) -> Params:
    factor = config.initializer_factor
    embed, mlp = [("embed", config.d_model)], [("mlp", config.d_ff)]
    up = linear_specs(embed, mlp, normal(factor * config.d_model**-0.5), layers)
    return {
        "norm": norm_specs(config.d_model, layers, scale=factor),
        **({"gate": up, "up": up} if config.gated else {"up": up}),
        "down": linear_specs(mlp, embed, normal(factor * config.d_ff**-0.5), layers),
    }


@jax.named_scope("encoder")
def encode(
    config: T5Config, compute: Compute, params: Params, batch: Batch, *, key: Array | None = None
) -> Float[Array, "B S D"]:
    """The encoder's final states."""
    stack, length = params["encoder"], batch["input_ids"].shape[1]
    mask = batch_mask(batch)
    bias = _position_bias(config, compute, stack["relative_bias"], length, bidirectional=True)

    def block(x, layer, key):
        attend = functools.partial(_attention, config, compute, layer["attention"])
        x = attend(x, None, mask, bias, fold(key, 0))
        return _mlp(config, layer["mlp"], x, fold(key, 1))

    return _stack(config, compute, params, stack, batch["input_ids"], block, key)


@jax.named_scope("decoder")
def decode(
    config: T5Config,
    compute: Compute,
    params: Params,
    batch: Batch,
    encoded: Float[Array, "B S D"],
    *,
    key: Array | None = None,
) -> Float[Array, "B T D"]:
    """The decoder's final states, before the head's scaling."""
    stack, length = params["decoder"], batch["decoder_input_ids"].shape[1]
    mask = batch_mask(batch, "decoder_", "decoder_", causal=True)
    cross_mask = batch_mask(batch, "decoder_")
    bias = _position_bias(config, compute, stack["relative_bias"], length, bidirectional=False)

    def block(x, layer, key):
        attend = functools.partial(_attention, config, compute)
        x = attend(layer["attention"], x, None, mask, bias, fold(key, 0))
        x = attend(layer["cross_attention"], x, encoded, cross_mask, None, fold(key, 1))
        return _mlp(config, layer["mlp"], x, fold(key, 2))

    return _stack(config, compute, params, stack, batch["decoder_input_ids"], block, key)


def head(config: T5Config, params: Params, hidden: Float[Array, "*B D"]) -> Head:
    """States ready for the vocabulary: scaled where the head is T5 v1.0's."""
    scale = config.d_model**-0.5 if config.scaled_head else 1.0
    table = params["shared"] if config.tie_word_embeddings else params["lm_head"]
    return Head(hidden * scale, table, None)


class Cache(NamedTuple):
    """What the decoder's steps read; only `own` changes."""

    own: tuple[KeyValues, ...]
    """Of each layer, the tokens' keys and values: slot t K + k is hypothesis k's position t."""
    source: tuple[KeyValues, ...]
    """Of each layer, the encoder's."""
    source_bias: Float[Array, "B 1 1 S"]
    """Hides the encoder's padding."""
    position_bias: Float[Array, "T H"]
    """The relative bias of a token so many positions back."""


def prepare(config: T5Config, compute: Compute, params: Params) -> Params:
    """Weights for `start` and `step`: cast; the decoder's layers apart, turned, q, k and v one."""

    def cast(path, leaf):
        is_matrix = path[-1].key in ("kernel", "shared", "lm_head")
        return leaf.astype(compute.dtype) if is_matrix and not is_int8(leaf) else leaf

    def apart(layer):
        own, mlp = layer["attention"], layer["mlp"]
        own["qkv"] = {"kernel": joined([own.pop(name)["kernel"] for name in "qkv"])}
        if config.gated:
            gate_up = [mlp.pop(name)["kernel"] for name in ("gate", "up")]
            mlp["gate_up"] = {"kernel": joined(gate_up)}
        return turned(layer)

    params = jax.tree.map_with_path(cast, params, is_leaf=is_int8)
    stack, count = params["decoder"], config.decoder_layers
    layers = [apart(jax.tree.map(lambda p, i=i: p[i], stack["layers"])) for i in range(count)]
    return {**params, "decoder": {**stack, "layers": layers}}


def start(
    config: T5Config, compute: Compute, prepared: Params, batch: Batch, length: int, beams: int
) -> Cache:
    """Runs the encoder; computes every layer's cross-attention keys and values once."""
    encoded = encode(config, compute, prepared, batch)
    stack, slots, heads = prepared["decoder"], length * beams, config.num_heads
    cross = [layer["cross_attention"] for layer in stack["layers"]]
    source = tuple(key_values(linear(encoded, p["k"]), linear(encoded, p["v"])) for p in cross)
    own = empty(encoded.shape[0], slots, heads, config.d_kv, encoded.dtype)
    mask = batch_mask(batch).keys
    mask = jnp.ones(encoded.shape[:2], bool) if mask is None else mask
    by_distance = stack["relative_bias"][_buckets(config, -np.arange(length), False)]
    return Cache((own,) * len(cross), source, visibility_bias(mask)[:, None, None], by_distance)


@jax.named_scope("decoder_step")
def step(
    config: T5Config,
    compute: Compute,
    prepared: Params,
    cache: Cache,
    ids: Int[Array, "B K"],
    position: Int[Array, ""],
    visible: Bool[Array, "B K T K"],
) -> tuple[Float[Array, "B K D"], Cache]:
    """The decoder's final states for one token of each hypothesis; layers are never scanned."""
    stack, shape = prepared["decoder"], (*ids.shape, config.num_heads, config.d_kv)
    back = position - jnp.arange(visible.shape[2])
    bias = jnp.transpose(cache.position_bias[jnp.maximum(back, 0)])
    bias = bias[:, :, None] + visibility_bias(visible)[:, :, None]
    bias = bias.reshape(*shape[:3], -1)
    x, own = embed(prepared["shared"], ids).astype(compute.dtype), []
    for layer, past, source in zip(stack["layers"], cache.own, cache.source, strict=True):
        weights = layer["attention"]
        normed = rms_norm(x, weights["norm"], config.layer_norm_epsilon)
        q, k, v = jnp.split(linear(normed, weights["qkv"]), 3, axis=-1)
        past = write(past, k.reshape(shape), v.reshape(shape), position * shape[1])
        x = x + linear(attend(q.reshape(shape), [(past, bias)]), weights["o"], n_in=2)
        weights = layer["cross_attention"]
        normed = rms_norm(x, weights["norm"], config.layer_norm_epsilon)
        y = attend(linear(normed, weights["q"]), [(source, cache.source_bias)])
        x = x + linear(y, weights["o"], n_in=2)
        x = _mlp(config, layer["mlp"], x, None)
        own.append(past)
    x = rms_norm(x, stack["norm"], config.layer_norm_epsilon)
    return x, cache._replace(own=tuple(own))


def _stack(config, compute, params, stack, ids, block, key):
    """Embedding, layers and final norm, with dropout before and after."""
    x = embed(params["shared"], ids).astype(compute.dtype)
    x = dropout(x, config.dropout_rate, fold(key, 0))
    x = scan_layers([block], x, stack["layers"], compute, fold(key, 1))
    x = rms_norm(x, stack["norm"], config.layer_norm_epsilon)
    return dropout(x, config.dropout_rate, fold(key, 2))


@jax.named_scope("attention")
def _attention(
    config: T5Config,
    compute: Compute,
    params: Params,
    x: Float[Array, "B T D"],
    encoded: Float[Array, "B S D"] | None,
    mask: Mask,
    bias: Array | None,
    key: Array | None,
) -> Float[Array, "B T D"]:
    """Attention to x itself, or to the encoder's states, with norm and residual."""
    normed = rms_norm(x, params["norm"], config.layer_norm_epsilon)
    source = normed if encoded is None else encoded
    y = attention(
        linear(normed, params["q"]),
        linear(source, params["k"]),
        linear(source, params["v"]),
        mask,
        scale=1.0,
        bias=bias,
        rate=config.dropout_rate,
        key=fold(key, 0),
        implementation=compute.attention,
    )
    return x + dropout(linear(y, params["o"], n_in=2), config.dropout_rate, fold(key, 1))


@jax.named_scope("mlp")
def _mlp(
    config: T5Config, params: Params, x: Float[Array, "B T D"], key: Array | None
) -> Float[Array, "B T D"]:
    normed = rms_norm(x, params["norm"], config.layer_norm_epsilon)
    activation = ACTIVATIONS[config.activation]
    if "gate_up" in params:
        gate, up = jnp.split(linear(normed, params["gate_up"]), 2, axis=-1)
        y = activation(gate) * up
    elif config.gated:
        y = activation(linear(normed, params["gate"])) * linear(normed, params["up"])
    else:
        y = activation(linear(normed, params["up"]))
    y = linear(dropout(y, config.dropout_rate, fold(key, 0)), params["down"])
    return x + dropout(y, config.dropout_rate, fold(key, 1))


def _position_bias(
    config: T5Config,
    compute: Compute,
    table: Float[Array, "buckets H"],
    length: int,
    bidirectional: bool,
) -> Float[Array, "H T T"] | Float[Array, "H 2T-1"]:
    """A stack's bias, computed once: whole, or by distance where attention goes in blocks."""
    buckets = _buckets(config, np.arange(1 - length, length), bidirectional)
    bias = jnp.transpose(table[buckets])
    return bias if uses_blocks(length, length, compute.attention) else bias_matrix(bias, length)


def _buckets(config: T5Config, distances: Int[np.ndarray, " N"], bidirectional: bool):
    return relative_buckets(
        distances,
        bidirectional,
        config.relative_attention_num_buckets,
        config.relative_attention_max_distance,
    )


def relative_buckets(
    distances: Int[np.ndarray, " N"], bidirectional: bool, buckets: int, max_distance: int
) -> Int[np.ndarray, " N"]:
    """Bucket of each distance (key's position minus query's), as in Mesh TensorFlow's T5.

    Half of the buckets hold one distance each, the others logarithmically growing ranges up to
    `max_distance`; a bidirectional stack uses half for either side.
    """
    first = np.zeros_like(distances)
    if bidirectional:
        buckets //= 2
        first = np.where(distances > 0, buckets, 0)
        far = np.abs(distances)
    else:
        far = np.maximum(-distances, 0)
    exact = buckets // 2
    steps = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
    steps = steps / np.float32(math.log(max_distance / exact)) * np.float32(buckets - exact)
    ranged = np.minimum(exact + steps.astype(distances.dtype), buckets - 1)
    return first + np.where(far < exact, far, ranged)
