"""Learning-rate schedules: pure functions from the step (0 at the first update) to its rate."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax.config import UserError
from medjax.training.config import ScheduleConfig

Scalar = Float[Array, ""] | float
Schedule = Callable[[Int[Array, ""], Mapping[str, Scalar]], Float[Array, ""]]
"""`schedule(step, hyper) -> learning rate`, float32; `hyper` is what the training state varies."""

VARIED = ("learning_rate", "warmup_steps", "steps")


def build_schedule(config: ScheduleConfig, total_steps: int) -> Schedule:
    """The schedule of a run of `total_steps`, its numbers fixed when the step is compiled.

    Raises:
      UserError: warm-up and decay are longer than the run.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.kind == "t5_rsqrt":  # Raffel et al. 2020, section 3.1.2
        return lambda step, hyper: peak * jax.lax.rsqrt(jnp.maximum(jnp.float32(step), warmup))
    decay = total_steps - warmup if config.decay_steps is None else config.decay_steps
    if config.kind != "constant" and (decay < 1 or warmup + decay > total_steps):
        raise UserError(
            f"schedule: {warmup} steps of warm-up and {max(decay, 1)} of decay do not fit into a "
            f"run of {total_steps}; lower schedule.warmup_steps or schedule.decay_steps, "
            "or train longer"
        )
    floor = config.final_ratio

    def schedule(step, hyper):
        del hyper
        return peak * _share(config.kind, step, warmup, decay, total_steps, floor)

    return schedule


def varied_schedule(kind: str) -> Schedule:
    """Warm-up and then decay to 0, all numbers of which (`VARIED`) are in the state: trainings of
    any length and rate share one compiled step.

    Args:
      kind: constant, linear, cosine or one_minus_sqrt.
    """

    def schedule(step, hyper):
        peak, warmup, steps = (hyper[name] for name in VARIED)
        return peak * _share(kind, step, warmup, steps - warmup, steps, 0.0)

    return schedule


def _share(
    kind: str, step: Int[Array, ""], warmup: Scalar, decay: Scalar, total: Scalar, floor: float
) -> Float[Array, ""]:
    """The learning rate as a share of its peak: it rises from 0 in the warm-up and falls to `floor`
    in the decay, which ends with the run."""
    step = jnp.float32(step)
    warm = jnp.where(step < warmup, step / jnp.maximum(warmup, 1.0), 1.0)
    gone = jnp.clip((step - (total - decay)) / jnp.maximum(decay, 1.0), 0.0, 1.0)
    return warm * (floor + (1.0 - floor) * _SHAPES[kind](gone))


# From 1 to 0 as the share of the decay that is gone grows from 0 to 1.
_SHAPES: dict[str, Callable] = {
    "constant": lambda gone: jnp.ones_like(gone),
    "linear": lambda gone: 1.0 - gone,
    "cosine": lambda gone: 0.5 * (1.0 + jnp.cos(jnp.pi * gone)),
    "one_minus_sqrt": lambda gone: 1.0 - jnp.sqrt(gone),  # Hägele et al. 2024 (arXiv 2405.18392)
}
