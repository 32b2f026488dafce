"""Task heads: tiny Flax (linen) modules on top of a backbone, and the model that the two make.

`SequenceHead` gives an example's scores (classification, pairs, relations, multi-label),
`TokenHead` each token's (tagging, and with two scores a token the ends of extractive answers).
Their weights are those of transformers' `AutoModelFor...` classes of the same family, so that an
export loads there (`hub/heads.py`). A user's own head is any linen module that is called so:
`head.apply({"params": p}, hidden, batch, deterministic=..., rngs={"dropout": key})`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from medjax.config import UserError
from medjax.models.config import DecoderConfig, ModelConfig, ModernBertConfig
from medjax.models.layers import ACTIVATIONS, fold
from medjax.models.model import Batch, Model, Params
from medjax.models.spec import Spec, init_params, path_name

Kind = str  # "sequence" or "token"
DECODER_DROPOUT = 0.1  # before the scores of tokens, in transformers


class Style(NamedTuple):
    """What the families' heads differ in."""

    transform: str | None
    """Before the scores: dense + tanh, dense + activation + norm ("norm"), or nothing."""
    activation: str = "gelu"
    use_bias: bool = True
    norm_bias: bool = True
    eps: float = 1e-5
    dropout_before: float = 0.0
    """Before the transformation."""
    dropout: float = 0.0
    """Before the scores."""
    std: float = 0.02
    """Of the initial weights."""
    last: bool = False
    """An example is seen from its last token, which alone has seen all others (decoders)."""
    classifier_bias: bool = True


class SequenceHead(nn.Module):
    """Scores of an example from its first token, or its last: [B, T, D] -> [B, C]."""

    num_labels: int
    style: Style

    @nn.compact
    def __call__(self, hidden: Array, batch: Batch, deterministic: bool) -> Float[Array, "B C"]:
        """Of `batch` the `attention_mask` says which token is the last."""
        state = hidden[:, 0]
        if self.style.last:
            last = batch["attention_mask"].sum(1) - 1
            state = jnp.take_along_axis(hidden, last[:, None, None], 1)[:, 0]
        return _scores(self.style, self.num_labels, state, deterministic)


class TokenHead(nn.Module):
    """Scores of every token: [B, T, D] -> [B, T, C]."""

    num_labels: int
    style: Style

    @nn.compact
    def __call__(self, hidden: Array, batch: Batch, deterministic: bool) -> Float[Array, "B T C"]:
        """`batch` is not looked at."""
        return _scores(self.style, self.num_labels, hidden, deterministic)


def _scores(style: Style, num_labels: int, x: Array, deterministic: bool) -> Array:
    """Transformation, dropout and classifier, in float32; called inside a head's `__call__`."""
    dense = partial(nn.Dense, kernel_init=nn.initializers.normal(style.std))
    x = x.astype(jnp.float32)
    if style.transform:
        x = nn.Dropout(style.dropout_before)(x, deterministic)
        x = dense(x.shape[-1], use_bias=style.use_bias, name="dense")(x)
        if style.transform == "tanh":
            x = jnp.tanh(x)
        else:
            x = ACTIVATIONS[style.activation](x)
            x = nn.LayerNorm(style.eps, use_bias=style.norm_bias, name="norm")(x)
    x = nn.Dropout(style.dropout)(x, deterministic)
    return dense(num_labels, use_bias=style.classifier_bias, name="classifier")(x)


def build_head(
    kind: Kind, config: ModelConfig, num_labels: int, *, dropout: bool = True
) -> nn.Module:
    """The head that transformers gives this family.

    Args:
      kind: "sequence" or "token".
      dropout: false for extractive answers, whose scores transformers drops nothing before.
    """
    head = SequenceHead if kind == "sequence" else TokenHead
    return head(num_labels, _style(kind, config, dropout))


def _style(kind: Kind, config: ModelConfig, dropout: bool) -> Style:
    if isinstance(config, DecoderConfig):
        is_token = kind == "token"
        return Style(
            None,
            dropout=DECODER_DROPOUT if is_token and dropout else 0.0,
            std=config.initializer_range,
            last=True,
            classifier_bias=is_token,
        )
    if isinstance(config, ModernBertConfig):
        return Style(
            "norm",
            config.classifier_activation,
            config.classifier_bias,
            config.norm_bias,
            config.norm_eps,
            std=config.initializer_range,
        )
    rate = config.hidden_dropout_prob if dropout else 0.0
    return Style(
        "tanh" if kind == "sequence" else None,
        dropout_before=rate if config.model_type == "roberta" else 0.0,
        dropout=rate,
        std=config.initializer_range,
    )


def load_head(path: str, num_labels: int) -> nn.Module:
    """A user's head: `package.module:Class`, a linen module made with `num_labels`.

    Raises:
      UserError: it cannot be imported, or is no linen module.
    """
    module_name, _, name = path.partition(":")
    try:
        head = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"head {path}: cannot be imported ({error}); give package.module:Class, where the "
            "package can be imported from here"
        ) from None
    if not (isinstance(head, type) and issubclass(head, nn.Module)):
        raise UserError(f"head {path}: is no flax.linen Module; give the path of such a class")
    return head(num_labels=num_labels)


class Labeller(NamedTuple):
    """A backbone and its head as pure functions; `params` are {"backbone": ..., "head": ...}."""

    backbone: Model
    head: nn.Module
    specs: Params
    init: Callable[[Array], Params]
    """init(key) -> params."""
    logits: Callable[..., Float[Array, "B *T C"]]
    """logits(params, batch, *, key=None), float32; `key` (one, or one a row) turns dropout on."""


def attach(model: Model, head: nn.Module) -> Labeller:
    """The model that `head` makes of a backbone without LM head.

    Raises:
      UserError: the head has other collections than parameters (batch statistics, ...).
    """
    example = {name: jnp.ones((1, 2), jnp.int32) for name in ("input_ids", "attention_mask")}
    hidden = jax.ShapeDtypeStruct((1, 2, model.config.hidden_size), jnp.float32)

    def start(key: Array, hidden: Array) -> dict:
        return head.init(key, hidden, example, deterministic=True)

    shapes = jax.eval_shape(start, jax.random.key(0), hidden)
    others = sorted(set(shapes) - {"params"})
    if others:
        raise UserError(
            f"head {type(head).__name__}: has the collections {', '.join(others)}, but a head may "
            "have parameters only; leave out batch norm and the like"
        )
    zeros = jnp.zeros(hidden.shape, hidden.dtype)
    specs = {
        "backbone": model.specs,
        "head": jax.tree.map_with_path(
            lambda path, shape: _spec(path, shape, lambda key: start(key, zeros)["params"]),
            shapes["params"],
        ),
    }

    def logits(params: Params, batch: Batch, *, key: Array | None = None) -> Array:
        hidden = model.hidden(params["backbone"], batch, key=fold(key, 0))
        apply = partial(head.apply, {"params": params["head"]})
        if key is None:
            return apply(hidden, batch, deterministic=True)
        key = fold(key, 1)
        if key.ndim == 0:
            return apply(hidden, batch, deterministic=False, rngs={"dropout": key})
        rows = jax.tree.map(lambda x: x[:, None], (hidden, batch))
        return jax.vmap(
            lambda row, key: apply(*row, deterministic=False, rngs={"dropout": key})[0]
        )(rows, key)

    return Labeller(model, head, specs, partial(init_params, specs), logits)


def _spec(path: tuple, shape: jax.ShapeDtypeStruct, start: Callable[[Array], Params]) -> Spec:
    """A head's weight, whole on every device; kernels are matrices and decay, others are not."""
    name = path_name(path)
    is_matrix = name.endswith("kernel") and len(shape.shape) > 1
    return Spec(
        shape.shape,
        (None,) * len(shape.shape),
        lambda key, *_: flatten_dict(start(key), sep="/")[name],
        rows=len(shape.shape) - 1 if is_matrix else 0,
        decay=is_matrix,
        dtype=str(shape.dtype),
    )


def with_pretrained(head: Params, found: Params) -> Params:
    """The head's parameters, with those of a pooler or LM head that have the same name and shape.

    transformers does likewise: BERT's pooler and ModernBERT's prediction head are pretrained.
    """
    old, new = (flatten_dict(tree, sep="/") for tree in (head, found))
    same = {n: v for n, v in new.items() if n in old and old[n].shape == v.shape}
    return unflatten_dict(old | same, sep="/")
