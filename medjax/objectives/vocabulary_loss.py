"""Cross-entropy over a large vocabulary without ever holding all of its logits.

The targets are taken in chunks along the sequence by one `lax.scan`. Where gradients are wanted,
each chunk's own are made at once from the logits that are at hand: three products with the table
a chunk, against four when a backward pass has to make the logits anew. The batch stays divided
over the devices: the table is cast and gathered once before the scan, every device sums over its
own rows, and the sums meet after it. (Left to the partitioner, the gradient of the table would be
reduced over all devices once a chunk.)
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from medjax.models.matmul import row_major_transpose
from medjax.models.model import Head
from medjax.models.spec import BATCH_AXES, mesh_of

TABLE_AXIS = "fsdp"  # the mesh axis over which the width of the table is divided


class Sums(NamedTuple):
    """Float32 scalars over all targets, each counted by its weight."""

    loss: Array
    z_loss: Array
    correct: Array
    weight: Array


class Settings(NamedTuple):
    """What shapes the computation, known when it is traced."""

    vocab_size: int
    chunk: int
    z_loss: float
    with_gradients: bool = False


@jax.named_scope("vocabulary_loss")
def vocabulary_loss(
    head: Head,
    labels: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    vocab_size: int,
    chunk: int,
    z_loss: float = 0.0,
) -> Sums:
    """Sums of cross-entropy (nats), z-loss and hits, from at most `chunk` targets a row at a time.

    Rows of the table from `vocab_size` on are padding: their logits are -inf. The z-loss is
    z_loss * log(Z)**2, which keeps the normaliser Z near one (PaLM, section 5; T5X takes 1e-4). A
    target is a hit where no logit is larger than its own.

    The gradient of `loss` is that of loss + z_loss, which is what training minimises; the other
    sums have none, and neither have the weights. So one pass makes values and gradients.
    """
    settings = Settings(vocab_size, chunk, z_loss)
    return _loss(settings, head.features, head.table, head.bias, labels, weights)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(settings, features, table, bias, labels, weights):
    return _over_devices(settings, features, table, bias, labels, weights)[0]


def _forward(settings, *arrays):
    return _over_devices(settings._replace(with_gradients=True), *arrays)


def _backward(settings, gradients, cotangents):
    scaled = jax.tree.map(lambda g: (g * cotangents.loss).astype(g.dtype), gradients)
    return *scaled, None, None


_loss.defvjp(_forward, _backward)


def _over_devices(settings, features, table, bias, labels, weights):
    """Sums and gradients (features, table, bias), by every device for its own rows."""
    mesh = mesh_of(features)
    axes = tuple(a for a in BATCH_AXES if mesh.shape.get(a, 1) > 1)
    shards = math.prod(mesh.shape[a] for a in axes)
    run = partial(_over_chunks, settings)
    arrays = (features, table.astype(features.dtype), _shift(settings, bias, table.shape[0]))
    arrays = (*arrays, labels, weights)
    if shards == 1 or features.shape[0] % shards:
        return _without_shift(run(*arrays), bias)
    # Where a further axis divides the vocabulary, this would gather over that one too.
    gathers = TABLE_AXIS in axes and table.shape[1] % mesh.shape[TABLE_AXIS] == 0
    gathers = gathers and shards == mesh.size
    others = tuple(a for a in axes if not (gathers and a == TABLE_AXIS))

    def local(features, table, shift, labels, weights):
        if gathers:
            table = jax.lax.all_gather(table, TABLE_AXIS, axis=1, tiled=True)
        sums, gradients = run(features, table, shift, labels, weights)
        sums = jax.lax.psum(sums, axes)
        if gradients is None:
            return sums, None
        dfeatures, dtable, dshift = gradients
        if gathers:
            dtable = jax.lax.psum_scatter(dtable, TABLE_AXIS, scatter_dimension=1, tiled=True)
        return sums, (dfeatures, jax.lax.psum(dtable, others), jax.lax.psum(dshift, axes))

    rows, width = P(axes), P(None, TABLE_AXIS if gathers else None)
    found = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, width, P(), rows, rows),
        out_specs=(P(), (rows, width, P()) if settings.with_gradients else None),
        axis_names=set(axes),
        check_vma=False,
    )(*arrays)
    return _without_shift(found, bias)


def _shift(settings, bias, columns: int):
    """What is added to the logits: the bias, and -inf where the vocabulary is padded."""
    if columns == settings.vocab_size:
        return bias
    is_real = jnp.arange(columns) < settings.vocab_size
    return jnp.where(is_real, 0.0 if bias is None else bias, -jnp.inf)


def _without_shift(found, bias):
    sums, gradients = found
    if gradients is not None and bias is None:
        gradients = (*gradients[:2], None)
    return sums, gradients


def _over_chunks(settings, features, table, shift, labels, weights):
    """Sums over all targets and, if wanted, their gradients for features, table and shift."""
    length = labels.shape[1]
    parts = -(-length // settings.chunk)
    size = -(-length // parts)

    def split(x):  # [B, T, ...] -> [parts, B, size, ...]; what fills up the last has weight 0
        x = jnp.pad(x, [(0, 0), (0, parts * size - length)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], parts, size, *x.shape[2:]), 1, 0)

    def join(x):
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], parts * size, *x.shape[3:])[:, :length]

    chunk = partial(_chunk, settings, table, shift)
    if parts == 1:
        totals, dfeatures = chunk(features, labels, weights)
    else:

        def body(totals, xs):
            found, dfeatures = chunk(*xs)
            return jax.tree.map(jnp.add, totals, found), dfeatures

        chunks = jax.tree.map(split, (features, labels, weights))
        shapes = jax.eval_shape(chunk, *jax.tree.map(lambda x: x[0], chunks))[0]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        totals, dfeatures = jax.lax.scan(body, zeros, chunks)
        dfeatures = jax.tree.map(join, dfeatures)
    sums, dtable, dshift = totals
    return sums, (dfeatures, dtable.T, dshift) if settings.with_gradients else None


def _chunk(settings, table, shift, features, labels, weights):
    """(Sums, gradients of table [D, V] and shift [V]) to be added up, and of features [B, C, D]."""
    logits = jnp.einsum("bcd,vd->bcv", features, table, preferred_element_type=jnp.float32)
    logits = logits if shift is None else logits + shift
    largest = jnp.max(logits, axis=-1)
    exponentials = jnp.exp(logits - largest[:, :, None])
    normaliser = jnp.sum(exponentials, axis=-1)
    log_z = jnp.log(normaliser) + largest
    label_logit = jnp.take_along_axis(logits, labels[:, :, None], axis=-1, mode="clip")[:, :, 0]
    sums = Sums(
        loss=jnp.sum(weights * (log_z - label_logit)),
        z_loss=settings.z_loss * jnp.sum(weights * log_z**2),
        correct=jnp.sum(weights * (label_logit >= largest)),
        weight=jnp.sum(weights),
    )
    if not settings.with_gradients:
        return (sums, None, None), None
    scale = weights * (1.0 + 2.0 * settings.z_loss * log_z) / normaliser
    of_label = scale * jnp.exp(label_logit - largest) - weights
    is_label = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == labels[:, :, None]
    dlogits = jnp.where(is_label, of_label[:, :, None], scale[:, :, None] * exponentials)
    dlogits = dlogits.astype(features.dtype)
    dfeatures = jnp.einsum("bcv,vd->bcd", dlogits, table)
    dtable = jax.lax.platform_dependent(features, dlogits, cpu=_product_cpu, default=_product)
    dshift = None if shift is None else jnp.sum(dlogits, axis=(0, 1), dtype=jnp.float32)
    return (sums, dtable, dshift), dfeatures


def _product(features, dlogits):
    return jnp.einsum("bcd,bcv->dv", features, dlogits, preferred_element_type=jnp.float32)


def _product_cpu(features, dlogits):
    """The same where XLA's products are several times slower with a transposed operand."""
    x = row_major_transpose(features.reshape(-1, features.shape[-1]))
    product = jnp.matmul(x, dlogits.reshape(x.shape[1], -1), preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(product)  # else the transposition after it moves into it
