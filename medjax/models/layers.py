"""What the families share: projections, norms, embeddings, dropout, rotary positions, the scan.

Functions of arrays and small parameter dicts: a projection is {"kernel"} or {"kernel", "bias"}, a
norm {"scale"} or {"scale", "bias"}, each with its Specs declared here. The type of the activations
decides the type of the matrix products (kernels are cast in `dense`, nowhere else); norms compute
in float32. Attention is in `models/attention.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from medjax.models.config import Compute
from medjax.models.held import Turned, is_int8
from medjax.models.matmul import add_bias, by_outputs, matmul
from medjax.models.spec import BATCH_AXES, Spec, constant, padded

Params = dict[str, Any]
Initializer = Callable[..., Array]
Axes = Sequence[tuple[str | None, int]]

# Intermediate values under the names by which rematerialisation keeps them or not.
ATTENDED, WEIGHTS = "attended", "attention_weights"

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def linear_specs(
    inputs: Axes, outputs: Axes, init: Initializer, layers: int | None = None, bias: bool = False
) -> Params:
    """A projection from `inputs` to `outputs`, given as (axis, size), stacked over `layers`."""
    stack = [("layers", layers)] if layers is not None else []

    def spec(axes, init, **kinds):
        return Spec(tuple(size for _, size in axes), tuple(name for name, _ in axes), init, **kinds)

    specs = {"kernel": spec([*stack, *inputs, *outputs], init, rows=len(inputs))}
    if bias:
        specs["bias"] = spec([*stack, *outputs], constant(0.0), rows=0, decay=False)
    return specs


def norm_specs(
    width: int, layers: int | None = None, bias: bool = False, scale: float = 1.0
) -> Params:
    """A norm's scale and, if asked for, bias."""
    shape, axes = ((width,), (None,)) if layers is None else ((layers, width), ("layers", None))
    specs = {"scale": Spec(shape, axes, constant(scale), rows=0, decay=False)}
    if bias:
        specs["bias"] = Spec(shape, axes, constant(0.0), rows=0, decay=False)
    return specs


def vocabulary_spec(vocab_size: int, width: int, init: Initializer) -> Spec:
    """A table with one row for each entry of the padded vocabulary."""
    return Spec((padded(vocab_size), width), ("vocab", "embed"), init, vocab_size=vocab_size)


def vocabulary_bias_spec(vocab_size: int) -> Spec:
    """One number for each entry of the padded vocabulary."""
    shape = (padded(vocab_size),)
    return Spec(shape, ("vocab",), constant(0.0), rows=0, decay=False, vocab_size=vocab_size)


def dense(
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"], n_in: int = 1
) -> Float[Array, "*B O"]:
    """Contracts the last `n_in` axes of x with the first of the kernel, as one matrix product.

    The product runs in the type of x, to which the kernel is cast (an int8 one with its scale after
    the product; a turned one from its outputs' side); every projection comes through here.
    """
    if isinstance(kernel, Turned):
        y = by_outputs(x.reshape(-1, kernel.matrix.shape[1]), kernel.matrix.astype(x.dtype))
        return y.reshape(*x.shape[:-n_in], *kernel.outputs)
    batch, inputs, outputs = x.shape[:-n_in], kernel.shape[:n_in], kernel.shape[n_in:]
    values = kernel.qvalue if is_int8(kernel) else kernel
    matrix = values.astype(x.dtype).reshape(math.prod(inputs), math.prod(outputs))
    y = matmul(x.reshape(-1, matrix.shape[0]), matrix)
    if is_int8(kernel):
        y = y * kernel.scale.reshape(-1).astype(x.dtype)
    return y.reshape(*batch, *outputs)


def linear(x: Float[Array, "*B I"], params: Params, n_in: int = 1) -> Float[Array, "*B O"]:
    """`dense`, with a low-rank pair (`lora.py`) and a bias where there are such."""
    y = dense(x, params["kernel"], n_in)
    if "lora" in params:
        low = dense(x.reshape(*x.shape[: x.ndim - n_in], -1), params["lora"]["a"])
        y = y + dense(low, params["lora"]["b"]).reshape(y.shape)
    if "bias" not in params:
        return y
    bias = params["bias"].reshape(-1)
    return add_bias(y.reshape(-1, bias.size), bias).reshape(y.shape)


def embed(table: Float[Array, "V D"], ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Rows of a table, in the table's float32, so that the gradient adds up in float32 too."""
    return table[ids]


def layer_norm(x: Float[Array, "*B D"], params: Params, eps: float) -> Float[Array, "*B D"]:
    """Layer norm (Ba et al. 2016), computed in float32."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, -1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), -1, keepdims=True)
    y = centred * jax.lax.rsqrt(variance + eps) * params["scale"]
    return (y + params["bias"] if "bias" in params else y).astype(x.dtype)


def rms_norm(x: Float[Array, "*B D"], params: Params, eps: float) -> Float[Array, "*B D"]:
    """RMS norm (Zhang and Sennrich 2019), T5's "layer norm", computed in float32."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), -1, keepdims=True)
    return (x32 * jax.lax.rsqrt(mean_square + eps) * params["scale"]).astype(x.dtype)


def fold(key: Array | None, data: int | Int[Array, ""]) -> Array | None:
    """`fold_in` of one key or of a key for each row; no key (no dropout) stays no key."""
    if key is None or key.ndim == 0:
        return None if key is None else jax.random.fold_in(key, data)
    return jax.vmap(jax.random.fold_in, (0, None))(key, data)


def dropout(x: Float[Array, "*B"], rate: float, key: Array | None) -> Float[Array, "*B"]:
    """Inverted dropout; the identity without a key or at rate 0.

    With a key for each row [B] a row's mask does not depend on the rows beside it. A mask is a hash
    of key and place, so cheap that it is computed wherever it is needed and stored nowhere.
    """
    threshold = round(rate * 2**32)
    if key is None or threshold == 0:
        return x
    if key.ndim == 0:
        numbers = _hashes(key, x.shape)
    else:
        numbers = jax.vmap(functools.partial(_hashes, shape=x.shape[1:]))(key)
    return jnp.where(numbers >= jnp.uint32(threshold), x / (1.0 - rate), jnp.zeros_like(x))


def _hashes(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "*B"]:
    """A number for each place: its index and the key through two rounds of a 32-bit mix."""
    first, second = jax.random.bits(key, (2,))
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    places = [
        jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        for axis, stride in enumerate(strides)
    ]
    return _mix(_mix(sum(places, start=jnp.uint32(0)) ^ first) + second)


def _mix(x: UInt32[Array, "*B"]) -> UInt32[Array, "*B"]:
    """A bijection in which each bit depends on all (C. Wellons's lowbias32)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def rotary(
    positions: Int[Array, "B T"], theta: float, head_dim: int
) -> tuple[Float[Array, "B T 1 K/2"], Float[Array, "B T 1 K/2"]]:
    """Cosine and sine of the rotary angles (Su et al. 2021, equation 34), float32."""
    frequencies = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    return rotary_angles(positions, frequencies)


def rotary_angles(
    positions: Int[Array, "B T"], frequencies: Float[Array, " K/2"]
) -> tuple[Float[Array, "B T 1 K/2"], Float[Array, "B T 1 K/2"]]:
    """Cosine and sine of position times frequency, float32."""
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B T H K"], angles: tuple[Array, Array]) -> Float[Array, "B T H K"]:
    """Turns the pairs (i, i + K/2) of every head by their position's angles, in float32."""
    cos, sin = angles
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def scan_layers(
    blocks: Sequence[Callable],
    x: Float[Array, "B T D"],
    layers: Params,
    compute: Compute,
    key: Array | None,
) -> Float[Array, "B T D"]:
    """Runs x through all layers: one `lax.scan` over repetitions of the pattern `blocks`.

    Args:
      blocks: functions (x, layer, layer key) -> x, one for each layer of the pattern: one where
        all are alike. What they close over (masks, biases) is computed once.
      layers: parameters stacked over layers on axis 0; the last pattern may be cut short.
      key: of dropout; each layer gets it with its index folded in.
    """
    period, count = len(blocks), jax.tree.leaves(layers)[0].shape[0]
    repeats, rest = divmod(count, period)
    at_once = compute.unroll or (count if jax.default_backend() == "cpu" else 1)
    unroll = max(1, min(repeats, at_once // period))
    steps = [_step(block, i, compute.remat, unroll == 1) for i, block in enumerate(blocks)]

    def repetition(x, scanned):
        layers, first = scanned
        for i, step in enumerate(steps):
            x = by_rows(step(x, layers, fold(key, first + i)))
        return x, None

    even = repeats * period
    grouped = jax.tree.map(lambda p: p[:even].reshape(repeats, period, *p.shape[1:]), layers)
    firsts = jnp.arange(0, even, period)
    x, _ = jax.lax.scan(repetition, by_rows(x), (grouped, firsts), unroll=unroll)
    for i, step in enumerate(steps[:rest]):
        x = by_rows(step(x, jax.tree.map(lambda p: p[even:], layers), fold(key, even + i)))
    return x


def by_rows(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """States divided over the batch's axes of the mesh by rows, and by nothing else.

    Without it the partitioner may leave a table's division by width on the states, and then sums up
    states over `fsdp` in every layer in the place of gathering weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if any(name not in mesh.shape for name in BATCH_AXES):
        return x
    if x.shape[0] % math.prod(mesh.shape[name] for name in BATCH_AXES):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES, None, None))


def _step(block: Callable, place: int, remat: str, in_loop: bool) -> Callable:
    """The block at a place of the pattern, of which the backward pass keeps what `remat` says.

    The layer is taken out of its group inside, so that what is kept is the group, which is there
    anyway, and no copy. Outside of a loop the compiler may reuse what is computed twice; only where
    memory is to be saved is it kept from that.
    """
    policies = jax.checkpoint_policies
    products = policies.dots_with_no_batch_dims_saveable
    keep = {
        "none": policies.save_from_both_policies(
            products, policies.save_only_these_names(ATTENDED, WEIGHTS)
        ),
        "dots": policies.save_from_both_policies(
            products, policies.save_only_these_names(ATTENDED)
        ),
        "full": policies.nothing_saveable,
    }
    return jax.checkpoint(
        lambda x, layers, key: block(x, jax.tree.map(lambda p: p[place], layers), key),
        policy=keep[remat],
        prevent_cse=remat != "none" and not in_loop,
    )
