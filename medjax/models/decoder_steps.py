"""Decoders token by token: the prompt once, then single tokens, with what rows share computed once.

A row's cache has two parts: what all rows begin with (`share`), and the row's own prompt (`start`)
with the tokens that are written after it (`step`). Prompts stand at the left of their slots, shared
tokens at the right of theirs, so that positions run on from one to the other.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from medjax.models.attention import Mask, attention
from medjax.models.cache import (
    KeyValues,
    attend,
    by_slot,
    key_values,
    visibility_bias,
    with_room,
    write,
)
from medjax.models.config import Compute, DecoderConfig
from medjax.models.decoder import angles_of, attention_scales, embedded, norm, sublayers
from medjax.models.held import is_int8, joined, turned
from medjax.models.model import Batch, Params, Steps


class Shared(NamedTuple):
    """What all rows begin with."""

    layers: tuple[KeyValues, ...]
    """Of each layer, P slots of one row."""
    empty: Int[Array, ""]
    """Slots at the front that hold nothing."""


class Cache(NamedTuple):
    """What the steps read; only `own` changes."""

    own: tuple[KeyValues, ...]
    """Of each layer: the prompt's S slots, then those of the tokens written, slot S + t K + k being
    hypothesis k's position t."""
    filled: Bool[Array, "B S"]
    """Slots of the prompt that hold a token."""
    shared: Shared | None
    first: Int[Array, " B"]
    """Position of the first token that is written: what stands before it, counted."""


def build_steps(config: DecoderConfig, compute: Compute) -> Steps:
    """The steps of a decoder."""
    functions = (prepare, start, step, share)
    return Steps(*(functools.partial(f, config, compute) for f in functions))


def prepare(config: DecoderConfig, compute: Compute, params: Params) -> Params:
    """Weights for the steps: matrices cast; layers apart, turned, those of one input joined."""

    def cast(path, leaf):
        is_matrix = path[-1].key in ("kernel", "word", "position", "lm_head")
        return leaf.astype(compute.dtype) if is_matrix and not is_int8(leaf) else leaf

    def apart(layer):
        attention, mlp = layer["attention"], layer["mlp"]
        if not config.is_gpt2:
            attention["qkv"] = _joined(*(attention.pop(name) for name in "qkv"))
            mlp["gate_up"] = _joined(mlp.pop("gate"), mlp.pop("up"))
        return turned(layer)

    params = jax.tree.map_with_path(cast, params, is_leaf=is_int8)
    stacked = params["layers"] | {"scale": jnp.asarray(attention_scales(config))}
    count = config.num_hidden_layers
    layers = [apart(jax.tree.map(lambda p, i=i: p[i], stacked)) for i in range(count)]
    return {**params, "layers": layers}


def _joined(*projections: Params) -> Params:
    """Projections of the same input as one."""
    found = {"kernel": joined([own["kernel"] for own in projections])}
    if "bias" in projections[0]:
        found["bias"] = jnp.concatenate([own["bias"].reshape(-1) for own in projections])
    return found


def share(
    config: DecoderConfig,
    compute: Compute,
    prepared: Params,
    ids: Int[Array, " P"],
    filled: Bool[Array, " P"],
) -> Shared:
    """Computes what all rows begin with.

    Args:
      ids: the tokens at the right, whatever fills up at the left.
      filled: which of them are tokens.
    """
    free = jnp.sum(~filled)
    positions = jnp.maximum(jnp.arange(len(ids)) - free, 0)[None]
    layers = _prefill(config, compute, prepared, ids[None], positions, filled[None], None)
    return Shared(layers, free)


def start(
    config: DecoderConfig,
    compute: Compute,
    prepared: Params,
    batch: Batch,
    length: int,
    beams: int,
    shared: Shared | None = None,
) -> Cache:
    """Computes the prompts, all but the token that the first step is given."""
    ids, filled = batch["input_ids"], batch["attention_mask"].astype(bool)
    before = _before(shared)
    positions = before + jnp.arange(ids.shape[1])[None]
    prompt = _prefill(config, compute, prepared, ids, positions, filled, shared)
    own = tuple(with_room(layer, length * beams) for layer in prompt)
    return Cache(own, filled, shared, before + jnp.sum(filled, axis=1))


def _before(shared: Shared | None) -> Int[Array, ""]:
    """Tokens that all rows begin with."""
    if shared is None:
        return jnp.int32(0)
    return shared.layers[0].keys.shape[1] - shared.empty


def _prefill(config, compute, prepared, ids, positions, filled, shared):
    """Keys and values of every layer for tokens that see those before them, and what is shared."""
    places = 0 if shared is None else shared.layers[0].keys.shape[1]
    if shared is not None:
        seen = jnp.arange(places) >= shared.empty
        seen = jnp.broadcast_to(seen, (ids.shape[0], places))
        filled = jnp.concatenate([seen, filled], axis=1)
    x, found = embedded(config, compute, prepared, ids, positions), []
    groups = config.num_attention_heads // config.key_value_heads
    kinds = _kinds(config, positions)
    for i, layer in enumerate(prepared["layers"]):
        window, angles = kinds[i % len(kinds)]
        mask = Mask(filled, None, True, None if window is None else window - 1, places)

        def attend_all(q, k, v, i=i, mask=mask):
            found.append(key_values(k, v))
            if shared is not None:
                k, v = (
                    jnp.concatenate([jnp.broadcast_to(old, (len(ids), *old.shape[1:])), new], 1)
                    for old, new in zip(by_slot(shared.layers[i]), (k, v), strict=True)
                )
            k, v = (jnp.repeat(each, groups, axis=2) for each in (k, v))
            return attention(q, k, v, mask, scale=1.0, implementation=compute.attention)

        x = sublayers(config, layer, x, angles, attend_all)
    return tuple(found)


def _kinds(config: DecoderConfig, positions: Int[Array, "B T"]):
    """Of each layer of the pattern: the tokens that it sees (none: all), the rotary angles."""
    return [
        (None if kind else config.sliding_window, angles_of(config, positions, kind))
        for kind in config.pattern
    ]


@jax.named_scope("decoder_step")
def step(
    config: DecoderConfig,
    compute: Compute,
    prepared: Params,
    cache: Cache,
    ids: Int[Array, "B K"],
    position: Int[Array, ""],
    visible: Bool[Array, "B K T K"],
) -> tuple[Float[Array, "B K D"], Cache]:
    """The final states for one token of each hypothesis; layers are never scanned."""
    positions = (cache.first + position)[:, None]
    kinds = _kinds(config, positions)
    biases = [_biases(cache, position, visible, window) for window, _ in kinds]
    x, own = embedded(config, compute, prepared, ids, positions), []
    for i, layer in enumerate(prepared["layers"]):
        angles, bias = kinds[i % len(kinds)][1], biases[i % len(kinds)]

        def attend_one(q, k, v, i=i, bias=bias):
            past = write(cache.own[i], k, v, cache.filled.shape[1] + position * ids.shape[1])
            own.append(past)
            parts = [past]
            if cache.shared is not None:
                parts.append(cache.shared.layers[i])
            return attend(q, list(zip(parts, bias, strict=True)))

        x = sublayers(config, layer, x, angles, attend_one)
    return norm(config, x, prepared["norm"]), cache._replace(own=tuple(own))


def _biases(
    cache: Cache,
    position: Int[Array, ""],
    visible: Bool[Array, "B K T K"],
    window: int | None,
) -> list[Float[Array, "B K 1 S"]]:
    """What hides the slots that a token does not see, of each part of the cache."""
    now = cache.first + position

    def near(places: Int[Array, "B S"]) -> Bool[Array, "B S"]:
        back = now[:, None] - places
        return back >= 0 if window is None else (back >= 0) & (back < window)

    rows, beams, length, _ = visible.shape
    recent = near(cache.first[:, None] + jnp.arange(length))
    own = (visible & recent[:, None, :, None]).reshape(rows, beams, 1, -1)
    before = _before(cache.shared)
    prompt = cache.filled & near(before + jnp.arange(cache.filled.shape[1])[None])
    prompt = jnp.broadcast_to(prompt[:, None, None], (rows, beams, 1, prompt.shape[1]))
    found = [jnp.concatenate([prompt, own], axis=-1)]
    if cache.shared is not None:
        slots = jnp.arange(cache.shared.layers[0].keys.shape[1]) - cache.shared.empty
        found.append((near(slots[None]) & (slots >= 0))[:, None, None])
    return [visibility_bias(seen) for seen in found]
