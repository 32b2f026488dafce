"""Low-rank adaptation (Hu et al. 2021): a second tree of small matrices beside frozen ones.

A layer's kernel W becomes W + alpha/rank A B, with A [inputs, rank] and B [rank, outputs]; B begins
at zero, so that training begins at the published model. `with_lora` puts the pair where
`layers.linear` finds it, so that W itself is never made anew; `merged` adds it for good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from medjax.config import UserError
from medjax.models.model import Params
from medjax.models.spec import Spec, constant

KERNEL = "kernel"


def lora_specs(specs: Params, rank: int, targets: Sequence[str] | str) -> Params:
    """The Spec tree of the pairs: {"a", "b"} where the projection stands, stacked over layers.

    Args:
      targets: names of projections in the layers, such as q, v, o, up, down; or "all".

    Raises:
      UserError: no layer has a projection of one of these names.
    """
    found: dict[str, Any] = {}
    names = set()
    for path, spec in flatten_dict(specs, sep="/").items():
        *parents, name, leaf = path.split("/") if "/" in path else ("", path)
        if leaf != KERNEL or "layers" not in spec.axes:
            continue
        names.add(name)
        if targets != "all" and name not in targets:
            continue
        layers, *shape = spec.shape
        inputs, outputs = math.prod(shape[: spec.rows]), math.prod(shape[spec.rows :])
        axes = ("layers", None, None)
        bound = 1 / math.sqrt(inputs)
        home = "/".join((*parents, name))
        found[f"{home}/a"] = Spec((layers, inputs, rank), axes, _uniform(bound))
        found[f"{home}/b"] = Spec((layers, rank, outputs), axes, constant(0.0))
    missing = [] if targets == "all" else sorted(set(targets) - names)
    if missing:
        raise UserError(
            f"lora.targets: no layer has the projection {', '.join(missing)}; there are "
            f"{', '.join(sorted(names))}"
        )
    return unflatten_dict(found, sep="/")


def with_lora(params: Params, lora: Params, scale: float) -> Params:
    """The parameters with each pair beside its kernel, where `layers.linear` applies it."""
    flat = flatten_dict(params, sep="/")
    for path, (a, b) in pairs(lora).items():
        flat |= {f"{path}/lora/a": a, f"{path}/lora/b": b * scale}
    return unflatten_dict(flat, sep="/")


def merged(params: Params, lora: Params, scale: float) -> Params:
    """The parameters with the products added to their kernels, in float32."""
    flat = flatten_dict(params, sep="/")
    for path, (a, b) in pairs(lora).items():
        kernel = flat[f"{path}/{KERNEL}"]
        product = jnp.einsum("lir,lro->lio", a, b * scale, precision=jax.lax.Precision.HIGHEST)
        flat[f"{path}/{KERNEL}"] = kernel + product.reshape(kernel.shape)
    return unflatten_dict(flat, sep="/")


def pairs(lora: Params) -> dict[str, tuple[Array, Array]]:
    """Path of the projection -> its A [layers, inputs, rank] and B [layers, rank, outputs]."""
    flat = flatten_dict(lora, sep="/")
    paths = dict.fromkeys(path.rpartition("/")[0] for path in flat)
    return {path: (flat[f"{path}/a"], flat[f"{path}/b"]) for path in paths}


def _uniform(bound: float) -> Any:
    """PEFT's initial values of A."""
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
