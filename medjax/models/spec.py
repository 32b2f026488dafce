"""The Spec tree: every weight of a model declared once, by shape, logical axes and initial value.

Initial values, shardings (`training/mesh.py`), restore targets, optimizer rules, parameter counts
and the Hugging Face mapping (`hub/names.py`) are all tree maps over it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

VOCABULARY_MULTIPLE = 128  # so that the vocabulary divides over devices and fills matrix units

BATCH_AXES = ("data", "fsdp")  # of a mesh: rows are divided over them


def mesh_of(x: jax.Array) -> AbstractMesh:
    """The mesh that is set, else the one that `x` lies on; empty where there is neither."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.typeof(x).sharding.mesh if mesh.empty else mesh


@dataclass(frozen=True)
class Spec:
    """One array: the leaf of a Spec tree, at the place where the array stands in the parameters."""

    shape: tuple[int, ...]
    """Shape in memory; a vocabulary axis is padded."""
    axes: tuple[str | None, ...]
    """Logical axes (layers, vocab, embed, mlp, heads, kv); `layers` is axis 0 where it occurs."""
    init: Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
    """The initial value from key, shape and dtype."""
    rows: int = 1
    """Of the axes after `layers`, how many make up a matrix's rows, the others being its columns;
    0: a vector (norm scale, bias)."""
    decay: bool = True
    """Whether weight decay applies."""
    dtype: str = "float32"
    """Type in memory."""
    vocab_size: int | None = None
    """Real entries of the axis `vocab`; what lies beyond is padding, zero from the start."""

    @property
    def unpadded(self) -> tuple[int, ...]:
        """The shape without the vocabulary's padding."""
        return tuple(
            self.vocab_size if axis == "vocab" and self.vocab_size else size
            for size, axis in zip(self.shape, self.axes, strict=True)
        )


def padded(vocab_size: int) -> int:
    """The vocabulary's size in memory."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def init_params(specs: Any, key: jax.Array) -> Any:
    """Initial values; each leaf's key is folded in from its path, so that other leaves may come."""

    def create(path, spec):
        leaf_key = jax.random.fold_in(key, zlib.crc32(path_name(path).encode()))
        value = spec.init(leaf_key, spec.shape, spec.dtype)
        if spec.unpadded == spec.shape:
            return value
        axis = spec.axes.index("vocab")
        entries = jax.lax.broadcasted_iota(jnp.int32, spec.shape, axis)
        return jnp.where(entries < spec.vocab_size, value, jnp.zeros_like(value))

    return jax.tree.map_with_path(create, specs)


def abstract_params(specs: Any) -> Any:
    """Shapes and dtypes of the parameters; nothing is allocated."""
    return jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), specs)


def count_params(specs: Any) -> int:
    """Number of parameters as published: without the vocabulary's padding, tied tables once."""
    return sum(math.prod(spec.unpadded) for spec in jax.tree.leaves(specs))


def path_name(path: tuple) -> str:
    """A leaf's path as text: `encoder/layers/attention/q/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def constant(value: float) -> Callable[..., jax.Array]:
    """Initialiser: the same value everywhere."""
    return lambda key, shape, dtype: jnp.full(shape, value, dtype)


def normal(std: float) -> Callable[..., jax.Array]:
    """Initialiser: N(0, std²)."""
    return lambda key, shape, dtype: std * jax.random.normal(key, shape, dtype)


def truncated_normal(std: float, cutoff: float) -> Callable[..., jax.Array]:
    """Initialiser: N(0, std²) drawn anew beyond `cutoff` std, whose loss of variance stays."""
    return lambda key, shape, dtype: (
        std * jax.random.truncated_normal(key, -cutoff, cutoff, shape, dtype)
    )
