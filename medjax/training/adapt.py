"""What of a model is trained: all, the upper layers and the head, or low-rank pairs beside it.

What stays as it is goes to the step as an argument of its own: it has no gradient, no optimizer
state and no place in a checkpoint.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from medjax.config import UserError
from medjax.models.config import LoraConfig
from medjax.models.lora import lora_specs, merged, with_lora
from medjax.models.model import Params
from medjax.models.spec import Spec, count_params, init_params
from medjax.training.learner import Learner
from medjax.training.mesh import shardings

log = logging.getLogger(__name__)


def adapt(
    learner: Learner, freeze: int | str | None, lora: LoraConfig | None, mesh: Mesh
) -> Learner:
    """The learner that trains a part of the parameters.

    Args:
      freeze: "backbone", or how many of the lower layers (with the embeddings) stay as they are.
      lora: pairs in the place of training the backbone.

    Raises:
      UserError: nothing would be left to train, or there are not so many layers.
    """
    if lora is not None:
        adapted = _with_pairs(learner, lora, mesh)
    elif freeze is not None:
        adapted = _frozen(learner, freeze)
    else:
        return learner
    counts = count_params(adapted.specs), count_params(learner.specs)
    log.info("%s of %s parameters are trained", *(f"{count:,}" for count in counts))
    return adapted


def _with_pairs(learner: Learner, lora: LoraConfig, mesh: Mesh) -> Learner:
    has_head = learner.labeller is not None
    backbone = learner.specs["backbone"] if has_head else learner.specs
    specs = {"lora": lora_specs(backbone, lora.rank, lora.targets)}
    specs |= {"head": learner.specs["head"]} if has_head else {}
    scale, places = lora.alpha / lora.rank, shardings(specs["lora"], mesh)

    def start(seed: int) -> Params:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        pairs = jax.jit(lambda key: init_params(specs["lora"], key), out_shardings=places)(key)
        return {"lora": pairs} | ({"head": learner.start(seed)["head"]} if has_head else {})

    def frozen() -> Params:
        return learner.start(0)["backbone"] if has_head else learner.start(0)

    def joined(join: Callable[..., Params]) -> Callable[[Params, Params], Params]:
        def of(own: Params, fixed: Params) -> Params:
            body = join(fixed, own["lora"], scale)
            return {"backbone": body, "head": own["head"]} if has_head else body

        return of

    part = _part(learner, specs, start, frozen, joined(with_lora), joined(merged))
    return part._replace(backward=1.0)  # gradients of states alone; those of the pairs are small


def _frozen(learner: Learner, freeze: int | str) -> Learner:
    if learner.labeller is None and freeze == "backbone":
        raise UserError("training.freeze backbone leaves nothing to train without a head; use lora")
    flat = flatten_dict(learner.specs, sep="/")
    stacks = "backbone/layers/", "encoder/layers/", "layers/"
    stack = next(own for own in stacks if any(path.startswith(own) for path in flat))
    count = max(spec.shape[0] for path, spec in flat.items() if path.startswith(stack))
    if freeze != "backbone" and not 1 <= freeze <= count:
        raise UserError(f"training.freeze {freeze}: there are {count} layers; take 1 to {count}")

    def kept_layers(path: str, spec: Spec) -> int:
        """Layers of a leaf that stay; all of what is not in the stack counts as one."""
        if path.startswith(stack):
            layers = spec.shape[0]
            return layers if freeze == "backbone" else max(freeze - (count - layers), 0)
        below = ("backbone/embeddings/", "embeddings/", "shared", "encoder/relative_bias")
        return int(freeze == "backbone" and path.startswith("backbone/") or path.startswith(below))

    kept = {path: kept_layers(path, spec) for path, spec in flat.items()}

    def is_divided(path: str) -> bool:
        return path.startswith(stack) and 0 < kept[path] < flat[path].shape[0]

    def upper(path: str, leaf: Any) -> Any:
        """What is trained of a leaf."""
        if not is_divided(path):
            return leaf
        if isinstance(leaf, Spec):
            shape = (leaf.shape[0] - kept[path], *leaf.shape[1:])
            return dataclasses.replace(leaf, shape=shape)
        return leaf[kept[path] :]

    def trained(tree: Params) -> Params:
        own = {p: upper(p, x) for p, x in flatten_dict(tree, sep="/").items()}
        return unflatten_dict(
            {p: x for p, x in own.items() if not kept[p] or is_divided(p)}, sep="/"
        )

    def frozen() -> Params:
        tree = flatten_dict(learner.start(0), sep="/")
        return {p: x[: kept[p]] if is_divided(p) else x for p, x in tree.items() if kept[p]}

    def join(own: Params, fixed: Params) -> Params:
        both = fixed | {
            path: jax.numpy.concatenate([fixed[path], x]) if path in fixed else x
            for path, x in flatten_dict(own, sep="/").items()
        }
        return unflatten_dict(both, sep="/")

    def start(seed: int) -> Params:
        return trained(learner.start(seed))

    part = _part(learner, trained(learner.specs), start, frozen, join, join)
    share = 0.0 if freeze == "backbone" else 1.0 - freeze / count  # of the layers, from above
    return part._replace(backward=share * learner.backward)


def _part(
    learner: Learner,
    specs: Params,
    start: Callable[[int], Params],
    frozen: Callable[[], Params],
    join: Callable[[Params, Params], Params],
    whole: Callable[[Params, Params], Params],
) -> Learner:
    """The learner whose parameters are a part of the model's.

    Args:
      frozen: makes the rest, once.
      join: part and rest -> parameters to train with; `whole`: to keep.
    """
    fixed = frozen()
    make_whole = jax.jit(whole)

    def loss(smoothing: float, weights: Any) -> Callable:
        of_whole = learner.loss(smoothing, weights)

        def of_part(params, batch, keys, *, key=None, frozen):
            return of_whole(join(params, frozen), batch, keys, key=key)

        return of_part

    return learner._replace(
        specs=specs,
        init=lambda key: init_params(specs, key),
        start=start,
        frozen=fixed,
        loss=loss,
        whole=lambda params: make_whole(params, fixed),
        respond=lambda params, *asked: learner.respond(make_whole(params, fixed), *asked),
    )
