"""The training state: what a resumed run needs besides data and configuration."""

from __future__ import annotations

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
    """Step, parameters, optimizer state and seed; a pytree of arrays."""

    step: jax.Array
    params: Any
    opt_state: Any
    seed: jax.Array


def state_specs(param_specs: Any, opt_specs: Any) -> TrainState:
    """The Spec tree of the state, from those of the parameters and of the optimizer's state."""
    scalar = Spec((), (), _zeros, rows=0, decay=False, dtype="int32")
    return TrainState(scalar, param_specs, opt_specs, Spec((), (), _zeros, 0, False, "uint32"))


def abstract_state(specs: TrainState, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state: the target of a restore, nothing allocated."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        abstract_params(specs),
        shardings(specs, mesh),
    )


def create_state(
    specs: TrainState, model: Model, optimizer: Optimizer, mesh: Mesh, seed: int, params: Any = None
) -> TrainState:
    """A fresh state, every array made where it will live; `params` stand in for initial values."""

    def create(params, seed):
        if params is None:
            params = model.init(jax.random.key(seed))
        return TrainState(jnp.int32(0), params, optimizer.init(params), seed)

    return jax.jit(create, out_shardings=shardings(specs, mesh))(params, jnp.uint32(seed))


def _zeros(key, shape, dtype):
    return jnp.zeros(shape, dtype)
