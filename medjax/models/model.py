"""A model as a NamedTuple of pure functions, made by `build_model` from a configuration.

A Model is closed over by jitted functions, never passed to them. The families are in `t5.py`,
`bert.py` and `modernbert.py`; each has `specs`, its forward functions and `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.models.config import DECODERS, Compute, ModelConfig
from medjax.models.matmul import by_outputs
from medjax.models.spec import init_params

Params = dict[str, Any]
Batch = dict[str, Array]
FEW_ROWS = 64  # states of which scores are computed as when tokens are written one by one


class Output(NamedTuple):
    """What a forward pass returns."""

    hidden: Float[Array, "B T D"]
    """Final states, after the last norm; of a T5 with a decoder, the decoder's."""
    logits: Float[Array, "B T V"] | None
    """Scores of exactly the configuration's vocabulary, float32; none without an LM head."""


class Head(NamedTuple):
    """The vocabulary product still to be made: logits = features @ table.T + bias."""

    features: Float[Array, "*B D"]
    table: Float[Array, "V D"]
    """Float32, with the rows that pad the vocabulary."""
    bias: Float[Array, " V"] | None


class Steps(NamedTuple):
    """Decoding token by token with a cache; K hypotheses (beams) a row share the row's cache."""

    prepare: Callable[[Params], Params]
    """prepare(params): the weights as `start`, `step` and `Model.head` read them fastest, once for
    many batches."""
    start: Callable[..., Any]
    """start(prepared, batch, length, beams) -> cache for `length` tokens; runs the encoder, or a
    decoder over the prompts, less the token that the first step is given. A decoder's takes
    `shared` as well."""
    step: Callable[..., tuple[Float[Array, "B K D"], Any]]
    """step(prepared, cache, ids [B, K], position, visible [B, K, T, K]) -> (final states, cache).

    The tokens at `position`, one for each hypothesis. `visible`: hypothesis k sees what hypothesis
    j wrote at position t, its own token at `position` included."""
    share: Callable[..., Any] | None = None
    """Decoders: share(prepared, ids [P], filled [P]) -> what all rows begin with, for `start`."""


class Model(NamedTuple):
    """A model's functions; `params` are nested dicts of float32 arrays, stacked over layers.

    A batch is a dict with the Hugging Face names. `input_ids` [B, T] (and `decoder_input_ids` for a
    T5 with a decoder) must be there. Optional: `attention_mask` (1: a token), `segment_ids` (0:
    padding, 1..: a note that attends to itself only), `position_ids` (from 0, where the family has
    positions), `token_type_ids`, and the same with `decoder_` before it. `key` turns dropout on.
    """

    config: ModelConfig
    compute: Compute
    specs: Params
    """The Spec of every parameter."""
    init: Callable[[Array], Params]
    """init(key) -> params."""
    apply: Callable[..., Output]
    """apply(params, batch, *, key=None) -> Output."""
    hidden: Callable[..., Float[Array, "B T D"]]
    """hidden(params, batch, *, key=None): `apply` without the head."""
    head: Callable[[Params, Array], Head] | None
    """head(params, hidden) -> Head: all between final states and logits; none without LM head."""
    encode: Callable[..., Float[Array, "B S D"]] | None = None
    """T5: encode(params, batch, *, key=None), the encoder's final states."""
    decode: Callable[..., Float[Array, "B T D"]] | None = None
    """T5 with a decoder: decode(params, batch, encoded, *, key=None), the decoder's."""
    steps: Steps | None = None
    """T5 and decoders with an LM head: what `medjax.decoding` needs."""


def build_model(
    config: ModelConfig, compute: Compute | None = None, parts: Sequence[str] = ("lm_head",)
) -> Model:
    """The model of a configuration.

    Args:
      compute: types and schedule of the computation; none: the defaults (bfloat16).
      parts: optional pieces: "lm_head"; "pooler" (BERT family); "decoder" (T5; in "lm_head").
    """
    return _family(config, parts).build(config, compute or Compute(), tuple(parts))


def model_specs(config: ModelConfig, parts: Sequence[str] = ("lm_head",)) -> Params:
    """The Spec tree of `build_model(config, ..., parts)`."""
    return _family(config, parts).specs(config, parts)


def _family(config: ModelConfig, parts: Sequence[str]) -> ModuleType:
    """The module of a configuration's family, which must know all of `parts`."""
    from medjax.models import bert, decoder, modernbert, t5

    known = {"t5": (t5, "lm_head", "decoder"), "modernbert": (modernbert, "lm_head")}
    known |= dict.fromkeys(DECODERS, (decoder, "lm_head"))
    module, *optional = known.get(config.model_type, (bert, "lm_head", "pooler"))
    for part in parts:
        if part not in optional:
            raise ValueError(f"a {config.model_type} model has no part {part!r}, only {optional}")
    return module


def assemble(
    config: ModelConfig,
    compute: Compute,
    specs: Params,
    hidden: Callable[..., Array],
    head: Callable[[Params, Array], Head] | None,
    **more: Callable,
) -> Model:
    """The Model of a family's functions; `apply` is `hidden` and then the head."""

    def apply(params: Params, batch: Batch, *, key: Array | None = None) -> Output:
        states = hidden(params, batch, key=key)
        scores = logits(head(params, states), config.vocab_size) if head else None
        return Output(states, scores)

    def init(key: Array) -> Params:
        return init_params(specs, key)

    return Model(config, compute, specs, init, apply, hidden, head, **more)


@jax.named_scope("logits")
def logits(head: Head, vocab_size: int) -> Float[Array, "*B V"]:
    """Scores over the real vocabulary in float32, from a product in the type of the features."""
    table = head.table.astype(head.features.dtype)
    x = head.features.reshape(-1, table.shape[1])
    if len(x) <= FEW_ROWS:
        scores = by_outputs(x, table, jnp.float32)
    else:
        scores = jnp.einsum("nd,vd->nv", x, table, preferred_element_type=jnp.float32)
    scores = scores.reshape(*head.features.shape[:-1], -1)
    return (scores if head.bias is None else scores + head.bias)[..., :vocab_size]
