"""Attention over long inputs on TPU by JAX's splash kernel, whose scores never leave the chip.

The kernel skips blocks of keys that no query of a block sees, so a window costs what it sees. Its
equality with `attention.py` is tested in Pallas' interpreter and its compilation by the TPU
compiler; it has not run on a TPU.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from medjax.models.layers import ATTENDED
from medjax.models.spec import BATCH_AXES, mesh_of

if TYPE_CHECKING:
    from medjax.models.attention import Mask

BLOCKS = (512, 256, 128)  # queries, and keys, that are taken at a time: the first that divides
HEAD_AXIS = "tensor"


def suits(q: Float[Array, "B T H K"], k: Float[Array, "B S H K"], mask: Mask) -> bool:
    """Whether the kernel can take these, and they are for a TPU."""
    mesh = mesh_of(q)
    device = mesh.abstract_device
    is_tpu = device.device_kind.startswith("TPU") if device else jax.default_backend() == "tpu"
    whole = isinstance(mask.first, int) and mask.first == 0 and q.shape[1] == k.shape[1]
    rows = math.prod(mesh.shape.get(axis, 1) for axis in BATCH_AXES)
    divides = q.shape[1] % BLOCKS[-1] == 0 and q.shape[0] % rows == 0
    return is_tpu and whole and divides and q.shape[2] % mesh.shape.get(HEAD_AXIS, 1) == 0


def splash_attention(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B T H K"],
    v: Float[Array, "B T H K"],
    mask: Mask,
    *,
    scale: float,
    interpret: bool = False,
) -> Float[Array, "B T H K"]:
    """softmax(scale q k^T) v over the keys that `mask` lets each query see, without dropout.

    A query of segment 0 sees what else is of none, where `attention` lets it see nothing: either
    way its output is no one's.

    Args:
      interpret: run by Pallas' interpreter, on any device.
    """
    rows, length, heads, _ = q.shape
    mesh = mesh_of(q)
    head_axis = HEAD_AXIS if mesh.shape.get(HEAD_AXIS, 1) > 1 else None
    shared = PartitionSpec(tuple(a for a in BATCH_AXES if a in mesh.shape), head_axis)
    segments = kernels.SegmentIds(*_segments(mask, rows, length))
    scaled = (q.astype(jnp.float32) * scale).astype(q.dtype)
    by_heads = [jnp.swapaxes(x, 1, 2) for x in (scaled, k, v)]
    run = functools.partial(_of_one_device, mask.causal, mask.window, interpret)
    if not mesh.empty:
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(shared, shared, shared, PartitionSpec(shared[0])),
            out_specs=shared,
            check_vma=False,
        )
    return jnp.swapaxes(run(*by_heads, segments), 1, 2)


def _segments(mask: Mask, rows: int, length: int) -> tuple[Array, Array]:
    """Segments of queries and of keys; keys of padding are of none."""
    queries = keys = jnp.ones((rows, length), jnp.int32)
    if mask.segments is not None:
        queries, keys = (segments.astype(jnp.int32) for segments in mask.segments)
    if mask.keys is not None:
        keys = jnp.where(mask.keys, keys, 0)
    return queries, keys


def _of_one_device(causal, window, interpret, q, k, v, segments):
    """The kernel over a device's own rows and heads, [B, H, T, K]."""
    heads, length = q.shape[1:3]
    seen = masks.FullMask((length, length))
    if window is not None:
        seen = masks.LocalMask((length, length), (window, 0 if causal else window), 0)
    elif causal:
        seen = masks.CausalMask((length, length))
    size = next(size for size in BLOCKS if length % size == 0)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([seen] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=kernels.BlockSizes(**dict.fromkeys(names, size)),
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
    return jax.vmap(kernel)(q, k, v, segments)
