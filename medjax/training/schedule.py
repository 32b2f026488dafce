"""Learning-rate schedules: pure functions from the step (0 at the first update) to its rate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax.config import UserError
from medjax.training.config import ScheduleConfig

Schedule = Callable[[Int[Array, ""], Float[Array, ""] | float], Float[Array, ""]]


def build_schedule(config: ScheduleConfig, total_steps: int) -> Schedule:
    """`schedule(step, peak) -> learning rate`, float32, in a run of `total_steps`.

    `peak` is `config.learning_rate`, or an array that a sweep varies.

    Raises:
      UserError: warm-up and decay are longer than the run.
    """
    warmup = config.warmup_steps
    if config.kind == "t5_rsqrt":  # Raffel et al. 2020, section 3.1.2
        return lambda step, peak: peak * jax.lax.rsqrt(jnp.maximum(jnp.float32(step), warmup))
    decay = total_steps - warmup if config.decay_steps is None else config.decay_steps
    if config.kind != "constant" and (decay < 1 or warmup + decay > total_steps):
        raise UserError(
            f"schedule: {warmup} steps of warm-up and {max(decay, 1)} of decay do not fit into a "
            f"run of {total_steps}; lower schedule.warmup_steps or schedule.decay_steps, "
            "or train longer"
        )
    shape, floor = _SHAPES[config.kind], config.final_ratio

    def schedule(step, peak):
        step = jnp.float32(step)
        warm = jnp.minimum(step / warmup, 1.0) if warmup else 1.0
        gone = jnp.clip((step - (total_steps - decay)) / decay, 0.0, 1.0) if decay else 0.0
        return peak * warm * (floor + (1.0 - floor) * shape(gone))

    return schedule


# From 1 to 0 as the share of the decay that is gone grows from 0 to 1.
_SHAPES: dict[str, Callable] = {
    "constant": lambda gone: jnp.ones_like(gone),
    "linear": lambda gone: 1.0 - gone,
    "cosine": lambda gone: 0.5 * (1.0 + jnp.cos(jnp.pi * gone)),
    "one_minus_sqrt": lambda gone: 1.0 - jnp.sqrt(gone),  # Hägele et al. 2024 (arXiv 2405.18392)
}
