"""The training state: what a resumed run needs besides data and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from medjax.models.model import Model
from medjax.models.spec import Spec, abstract_params
from medjax.training.mesh import shardings
from medjax.training.optimizer import Optimizer


@struct.dataclass
class TrainState:
    """Step, parameters, optimizer state, seed, and what a sweep varies; a pytree of arrays."""

    step: jax.Array
    params: Any
    opt_state: Any
    seed: jax.Array
    hyper: dict[str, jax.Array]
    """Float32 scalars that the step reads, so that other values need no other program."""


def state_specs(param_specs: Any, opt_specs: Any, hyper: Sequence[str] = ()) -> TrainState:
    """The Spec tree of the state, from those of the parameters and of the optimizer's state."""

    def scalar(dtype):
        return Spec((), (), _zeros, rows=0, decay=False, dtype=dtype)

    varied = {name: scalar("float32") for name in hyper}
    return TrainState(scalar("int32"), param_specs, opt_specs, scalar("uint32"), varied)


def abstract_state(specs: TrainState, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state: the target of a restore, nothing allocated."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        abstract_params(specs),
        shardings(specs, mesh),
    )


def create_state(
    specs: TrainState,
    model: Model,
    optimizer: Optimizer,
    mesh: Mesh,
    seed: int,
    params: Any = None,
    hyper: Mapping[str, float] | None = None,
) -> TrainState:
    """A fresh state, every array made where it will live; `params` stand in for initial values."""

    def create(params, seed, hyper):
        if params is None:
            params = model.init(jax.random.key(seed))
        return TrainState(jnp.int32(0), params, optimizer.init(params), seed, hyper)

    varied = {name: jnp.float32(value) for name, value in (hyper or {}).items()}
    place = shardings(specs, mesh)
    return jax.jit(create, out_shardings=place)(params, jnp.uint32(seed), varied)


def _zeros(key, shape, dtype):
    return jnp.zeros(shape, dtype)
