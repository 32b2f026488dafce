"""How the matrices of layers are held for inference: float32, bfloat16, or int8 with a scale; and
turned, for steps that write token after token.

int8 is weight-only, symmetric, one scale for each output of a layer's projection, in qwix's arrays;
the product runs in the type of the states, and the scale is applied to its result. Tables, norms
and biases stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from medjax.models.spec import Spec

Params = dict[str, Any]
Held = Literal["float32", "bfloat16", "int8"]
KERNEL = "kernel"


def hold(path: str, spec: Spec, value: Array, held: Held) -> Any:
    """A parameter as it is held: `value`, or a kernel [L, I.., O..] of layers as asked."""
    if held == "float32" or path.rpartition("/")[2] != KERNEL or "layers" not in spec.axes:
        return value
    if held == "bfloat16":
        return value.astype(jnp.bfloat16)
    import qwix

    outputs = range(1 + spec.rows, len(spec.shape))
    return jax.jit(
        lambda kernel: qwix.quantize(kernel, jnp.int8, channelwise_axes=(0, *outputs)),
    )(value)


def is_int8(kernel: Any) -> bool:
    """Whether a kernel is one of qwix's arrays."""
    return hasattr(kernel, "qvalue")


@struct.dataclass
class Turned:
    """A kernel as a matrix with its outputs first: see `matmul.by_outputs`."""

    matrix: Float[Array, "O I"]
    outputs: tuple[int, ...] = struct.field(pytree_node=False)
    """Their axes."""


def turned(layer: Params) -> Params:
    """A layer whose kernels [I.., O..] are turned, but for those held in int8."""

    def turn(path, value):
        if path[-1].key != KERNEL or is_int8(value):
            return value
        inputs = 2 if path[-2].key == "o" else 1  # heads and their width
        matrix = value.reshape(math.prod(value.shape[:inputs]), -1)
        return Turned(matrix.T, value.shape[inputs:])

    return jax.tree.map_with_path(turn, layer, is_leaf=is_int8)


def joined(kernels: Sequence[Any]) -> Any:
    """Kernels [I, O..] of the same input as one matrix [I, O]."""
    flat = [
        jax.tree.map(lambda own: own.reshape(own.shape[0], -1), kernel)  # scales: [1, O]
        for kernel in kernels
    ]
    return jax.tree.map(lambda *own: jnp.concatenate(own, axis=1), *flat)
