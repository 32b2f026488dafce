"""The jitted train step: forward, backward, accumulate, update, for whatever loss it is given.

The host hands over rows (raw token blocks, or labelled examples); everything random happens inside
the step. The key of a row is
fold_in(fold_in(seed, step), global row), so neither devices, processes nor microbatches change it.
Accumulation sums the gradients of loss *sums* and the weights in one scan and divides once: the
mean over all predicted tokens of the batch, whatever the number of microbatches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.training.config import LoopConfig
from medjax.training.mesh import BATCH, shardings
from medjax.training.optimizer import Optimizer
from medjax.training.state import TrainState, abstract_state

log = logging.getLogger(__name__)

Loss = Callable[..., dict[str, jax.Array]]
Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]

CORRUPT, DROPOUT = 0, 1


def row_keys(seed: jax.Array, step: jax.Array, rows: jax.Array, use: int, rng: str) -> jax.Array:
    """One key for each global row: [B]."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed, impl=rng), use), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def build_train_step(
    loss: Loss,
    optimizer: Optimizer,
    config: LoopConfig,
    mesh: Mesh,
    specs: TrainState,
    frozen: Any = None,
) -> Step:
    """`step(state, batch) -> (state, metrics)`; the old state's memory is reused.

    Args:
      loss: loss(params, batch, keys [B], *, key) -> float32 sums `loss`, `z_loss`, `correct` and
        `weight`; `keys` are for what the loss itself draws, `key` (one a row) for dropout. A batch
        is a pytree of arrays [B, ...].
      frozen: parameters that are not trained; the loss takes them as `frozen`.

    Metrics are float32 scalars: `loss` (mean in nats a prediction), `z_loss`, `accuracy`,
    `predicted` (the weight of all predictions), `grad_norm`, `learning_rate`.
    """

    def sums_of(params, microbatch, state, fixed):
        batch, rows = microbatch
        keys = row_keys(state.seed, state.step, rows, CORRUPT, "threefry2x32")
        dropout = None
        if config.dropout:
            dropout = row_keys(state.seed, state.step, rows, DROPOUT, config.dropout_rng)
        others = {} if fixed is None else {"frozen": fixed}
        sums = loss(params, batch, keys, key=dropout, **others)
        return sums["loss"] + sums["z_loss"], sums

    def accumulate(state, microbatches, fixed):
        gradient = jax.grad(sums_of, has_aux=True)
        if config.accumulation == 1:
            only = jax.tree.map(lambda x: x[0], microbatches)
            return gradient(state.params, only, state, fixed)

        def add(total, microbatch):
            one = gradient(state.params, microbatch, state, fixed)
            return jax.tree.map(jnp.add, total, one), None

        first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), microbatches)
        shapes = jax.eval_shape(gradient, state.params, first, state, fixed)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(add, zeros, microbatches)[0]

    def step(state, batch, fixed=None):
        rows = jnp.arange(len(jax.tree.leaves(batch)[0]), dtype=jnp.uint32)
        microbatches = jax.tree.map(lambda x: _split(x, config.accumulation, mesh), (batch, rows))
        grads, sums = accumulate(state, microbatches, fixed)
        weight = jnp.maximum(sums["weight"], 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        updates, opt_state, measured = optimizer.update(
            grads, state.opt_state, state.params, state.hyper
        )
        params = jax.tree.map(jnp.add, state.params, updates)
        metrics = {
            "loss": sums["loss"] / weight,
            "z_loss": sums["z_loss"] / weight,
            "accuracy": sums["correct"] / weight,
            "predicted": sums["weight"],
            **measured,
        }
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings(specs, mesh), None))
    return jitted if frozen is None else partial(jitted, fixed=frozen)


def compile_train_step(*arguments: Any) -> Step:
    """`lower_train_step`, compiled before the loop begins; logs how long."""
    start = time.perf_counter()
    compiled = lower_train_step(*arguments).compile()
    log.info("compiled the train step in %.1f s", time.perf_counter() - start)
    return compiled


def lower_train_step(
    loss: Loss,
    block_length: int,
    optimizer: Optimizer,
    config: LoopConfig,
    mesh: Mesh,
    specs: TrainState,
) -> Any:
    """The step on blocks [B, block_length], to be compiled; nothing is allocated."""
    shape = (config.batch_size, block_length)
    blocks = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, BATCH))
    step = build_train_step(loss, optimizer, config, mesh, specs)
    return step.lower(abstract_state(specs, mesh), blocks)


def _split(x: jax.Array, parts: int, mesh: Mesh) -> jax.Array:
    """[B, ...] -> [parts, B/parts, ...] so that each device keeps the rows that it holds."""
    x = jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)
    spec = PartitionSpec(None, *BATCH)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
