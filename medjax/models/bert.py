"""BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and Megatron-BERT (Shoeybi et al. 2019).

BERT and RoBERTa normalise after each residual, Megatron-BERT (GatorTron) before each block and once
at the end, with no norm on the embeddings. RoBERTa counts positions from pad_token_id + 1 and
leaves padding at that of pad_token_id.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax.config import UserError
from medjax.models.attention import attention, batch_mask
from medjax.models.config import BertConfig, Compute
from medjax.models.layers import (
    ACTIVATIONS,
    dropout,
    embed,
    fold,
    layer_norm,
    linear,
    linear_specs,
    norm_specs,
    scan_layers,
    vocabulary_bias_spec,
    vocabulary_spec,
)
from medjax.models.model import Batch, Head, Model, Params, assemble
from medjax.models.spec import Spec, normal


def build(config: BertConfig, compute: Compute, parts: Sequence[str]) -> Model:
    """The Model of a BERT, RoBERTa or Megatron-BERT configuration."""
    hidden_ = functools.partial(hidden, config, compute)
    head_ = functools.partial(head, config) if "lm_head" in parts else None
    return assemble(config, compute, specs(config, parts), hidden_, head_)


def specs(config: BertConfig, parts: Sequence[str]) -> Params:
    """Every weight: shape, axes and initial value (N(0, initializer_range²), zero biases)."""
    width, init = config.hidden_size, normal(config.initializer_range)
    square = linear_specs([("embed", width)], [(None, width)], init, bias=True)
    embeddings = {
        "word": vocabulary_spec(config.vocab_size, width, init),
        "position": Spec((config.max_position_embeddings, width), (None, "embed"), init),
        "token_type": Spec((config.type_vocab_size, width), (None, "embed"), init),
    }
    tree = {"embeddings": embeddings, "layers": _layer_specs(config)}
    if _pre_norm(config):
        tree["norm"] = norm_specs(width, bias=True)
    else:
        embeddings["norm"] = norm_specs(width, bias=True)
    if "pooler" in parts:
        tree["pooler"] = square
    if "lm_head" in parts:
        norm, bias = norm_specs(width, bias=True), vocabulary_bias_spec(config.vocab_size)
        tree["lm_head"] = {"dense": square, "norm": norm, "bias": bias}
        if not config.tie_word_embeddings:
            tree["lm_head"]["table"] = vocabulary_spec(config.vocab_size, width, init)
    return tree


def _layer_specs(config: BertConfig) -> Params:
    width, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    linear = functools.partial(
        linear_specs, init=normal(config.initializer_range), layers=layers, bias=True
    )
    embed, mlp = [("embed", width)], [("mlp", config.intermediate_size)]
    split = [("heads", heads), ("kv", width // heads)]
    norm = norm_specs(width, layers, bias=True)
    attention = {name: linear(embed, split) for name in "qkv"} | {"o": linear(split, embed)}
    return {
        "attention": {**attention, "norm": norm},
        "mlp": {"up": linear(embed, mlp), "down": linear(mlp, embed), "norm": norm},
    }


def hidden(
    config: BertConfig, compute: Compute, params: Params, batch: Batch, *, key: Array | None = None
) -> Float[Array, "B T D"]:
    """The final states."""
    mask = batch_mask(batch)
    x = _embeddings(config, params["embeddings"], batch).astype(compute.dtype)
    x = dropout(x, config.hidden_dropout_prob, fold(key, 0))

    def block(x, layer, key):
        x = _sublayer(config, layer["attention"], x, fold(key, 1), attend, fold(key, 0))
        return _sublayer(config, layer["mlp"], x, fold(key, 2), functools.partial(_mlp, config))

    attend = functools.partial(_attention, config, compute, mask)
    x = scan_layers([block], x, params["layers"], compute, fold(key, 1))
    return layer_norm(x, params["norm"], config.layer_norm_eps) if _pre_norm(config) else x


def head(config: BertConfig, params: Params, hidden: Float[Array, "*B D"]) -> Head:
    """The masked-LM head's transformation, before the vocabulary."""
    own = params["lm_head"]
    name = "gelu" if config.model_type == "roberta" else config.hidden_act
    x = ACTIVATIONS[name](linear(hidden, own["dense"]))
    x = layer_norm(x, own["norm"], config.layer_norm_eps)
    table = params["embeddings"]["word"] if config.tie_word_embeddings else own["table"]
    return Head(x, table, own["bias"])


def pool(params: Params, hidden: Float[Array, "B T D"]) -> Float[Array, "B D"]:
    """The first token's state through the part "pooler"."""
    return jnp.tanh(linear(hidden[:, 0], params["pooler"]))


@jax.named_scope("embeddings")
def _embeddings(config: BertConfig, params: Params, batch: Batch) -> Float[Array, "B T D"]:
    ids = batch["input_ids"]
    x = embed(params["word"], ids) + embed(params["position"], _positions(config, batch))
    if "token_type_ids" in batch:
        x = x + embed(params["token_type"], batch["token_type_ids"])
    else:
        x = x + params["token_type"][0]
    return layer_norm(x, params["norm"], config.layer_norm_eps) if "norm" in params else x


def _positions(config: BertConfig, batch: Batch) -> Int[Array, "B T"]:
    """Rows of the position table: those of `position_ids` (from 0), or consecutive ones."""
    ids = batch["input_ids"]
    if ids.shape[1] > config.max_length:
        raise UserError(
            f"an input of {ids.shape[1]} tokens is longer than the {config.max_length} that the "
            f"{config.model_type} model has positions for; shorten the blocks"
        )
    if "position_ids" in batch:
        return batch["position_ids"] + config.position_offset
    if config.model_type == "roberta":
        tokens = (ids != config.pad_token_id).astype(ids.dtype)
        return jnp.cumsum(tokens, axis=1, dtype=ids.dtype) * tokens + config.pad_token_id
    return jnp.arange(ids.shape[1], dtype=ids.dtype)[None]


def _sublayer(config, params, x, key, function, *arguments):
    """A block with its residual, normed before (Megatron) or after (BERT)."""
    normed = layer_norm(x, params["norm"], config.layer_norm_eps) if _pre_norm(config) else x
    y = function(params, normed, *arguments)
    x = x + dropout(y, config.hidden_dropout_prob, key)
    return x if _pre_norm(config) else layer_norm(x, params["norm"], config.layer_norm_eps)


@jax.named_scope("attention")
def _attention(config, compute, mask, params, x, key):
    y = attention(
        linear(x, params["q"]),
        linear(x, params["k"]),
        linear(x, params["v"]),
        mask,
        scale=(config.hidden_size // config.num_attention_heads) ** -0.5,
        rate=config.attention_probs_dropout_prob,
        key=key,
        implementation=compute.attention,
    )
    return linear(y, params["o"], n_in=2)


@jax.named_scope("mlp")
def _mlp(config, params, x):
    return linear(ACTIVATIONS[config.hidden_act](linear(x, params["up"])), params["down"])


def _pre_norm(config: BertConfig) -> bool:
    return config.model_type == "megatron-bert"
