"""Optimizers as pure functions over the parameter tree, like optax's, that see single layers.

Parameters are stacked over layers, and stacking would silently change every rule that reduces over
a tensor (Adafactor's scale, clipping and factoring; Muon; norms). So a rule is written for the
tensor of one layer, `Spec.rows` says which of its axes are a matrix's rows, and `build_optimizer`
maps it over the axis `layers`. Weight decay follows `Spec.decay`. The state is declared as a Spec
tree too: its initial values, shardings and restore targets come from the same functions as those
of the parameters. Tests compare each rule with optax on the unstacked tree.

The vocabulary's padding rows are 0 and get no gradient. They stay 0 under every rule and add
nothing to sums; means divide by the number of real elements.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from medjax.models.spec import Spec, constant
from medjax.training.config import OptimizerConfig
from medjax.training.schedule import Schedule

Moments = dict[str, Array]

SMALLEST_SCALE = 1e-3  # epsilon_2 of Adafactor: a tensor of zeros must be able to move
ADAFACTOR_EPSILON = 1e-30  # epsilon_1
# Jordan 2024 (https://kellerjordan.github.io/posts/muon/): a quintic with a steep slope at 0.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
# Liu et al. 2025 (arXiv 2502.16982), equation 4: Muon's updates get the root mean square that
# AdamW's usually have, so that one learning rate serves both.
MUON_RMS = 0.2


class Optimizer(NamedTuple):
    """`init(params) -> state`; `update(grads, state, params, hyper)`.

    `update` returns what is to be added to the parameters, the new state, and metrics: `grad_norm`,
    the global norm before clipping, and `learning_rate`, this step's. `hyper` is for the schedule.
    Where a gradient is not finite, neither is `grad_norm`, and the loop must stop: keeping the old
    state instead would cost 2.7 times the update's time on CPU. `state_specs` has a Spec for every
    array of the state.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any, dict[str, Array]]]
    state_specs: Any


class Rule(NamedTuple):
    """An update rule for the tensor of a single layer.

    `moments` declares what is kept, stacked over layers as the parameter is. `direction` takes
    gradient, parameter, moments, step (from 1) and weight decay, and returns the update before it
    is multiplied with the negative learning rate, and the new moments.
    """

    moments: dict[str, Spec]
    direction: Callable[..., tuple[Array, Moments]]


def build_optimizer(config: OptimizerConfig, schedule: Schedule, specs: Any) -> Optimizer:
    """The optimizer for the parameters that `specs` declares."""
    leaves, tree = jax.tree.flatten(specs)
    rules = [_rule(config, spec) for spec in leaves]
    step_spec = Spec((), (), constant(0), rows=0, decay=False, dtype="int32")
    state_specs = {"step": step_spec, "moments": tree.unflatten([r.moments for r in rules])}

    def init(params):
        del params  # every rule starts from zeros
        return jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), state_specs)

    def update(grads, state, params, hyper):
        rate = schedule(state["step"], hyper)
        norm = optax.tree.norm(grads)
        limit = config.clip_norm
        clip = 1.0 if limit is None else limit / jnp.maximum(norm, limit)
        step = state["step"] + 1
        trees = map(tree.flatten_up_to, (grads, params, state["moments"]))
        updates, moments = [], []
        for spec, rule, grad, param, old in zip(leaves, rules, *trees, strict=True):
            decay = config.weight_decay if spec.decay else 0.0
            direction, new = _over_layers(rule, spec)(
                grad * clip, param, old, jnp.float32(step), decay
            )
            updates.append(-rate * direction)
            moments.append(new)
        state = {"step": step, "moments": tree.unflatten(moments)}
        return tree.unflatten(updates), state, {"grad_norm": norm, "learning_rate": rate}

    return Optimizer(init, update, state_specs)


def _rule(config: OptimizerConfig, spec: Spec) -> Rule:
    match config.name:
        case "adafactor":
            return _adafactor(config, spec)
        case "adamw":
            return _adamw(config, spec)
        case "adamw_rms":
            return _adamw_rms(config, spec)
        case "stable_adamw":
            return _stable_adamw(config, spec)
        case "muon":
            # Everything outside the stack of layers is an embedding, a position table or a head.
            hidden = _is_stacked(spec) and spec.rows > 0
            return _muon(config, spec) if hidden else _adamw(config, spec)


def _adamw(config: OptimizerConfig, spec: Spec) -> Rule:
    """Loshchilov and Hutter 2019."""

    def direction(grad, param, moments, step, decay):
        mean, root, moments = _adam_moments(config, grad, moments, step)
        return mean / (root + config.eps) + decay * param, moments

    return Rule(_adam_specs(spec), direction)


def _adamw_rms(config: OptimizerConfig, spec: Spec) -> Rule:
    """nanoT5's AdamWScale: each tensor's update is relative to its root mean square.

    As there, epsilon is added before the bias correction, which matters in the first steps.
    """
    size = _Size(spec)

    def direction(grad, param, moments, step, decay):
        mean, root, moments = _adam_moments(config, grad, moments, step)
        eps = config.eps / jnp.sqrt(1.0 - config.b2**step)
        scale = jnp.maximum(SMALLEST_SCALE, size.rms(param))
        return scale * mean / (root + eps) + decay * param, moments

    return Rule(_adam_specs(spec), direction)


def _stable_adamw(config: OptimizerConfig, spec: Spec) -> Rule:
    """Wortsman et al. 2023 (arXiv 2304.13013), algorithm 2, as in optimi, which ModernBERT used."""
    size = _Size(spec)

    def direction(grad, param, moments, step, decay):
        mean, root, moments = _adam_moments(config, grad, moments, step)
        surprise = size.rms(grad / jnp.maximum(root, config.eps))
        update = mean / (root + config.eps) + decay * param
        return update / jnp.maximum(1.0, surprise), moments

    return Rule(_adam_specs(spec), direction)


def _muon(config: OptimizerConfig, spec: Spec) -> Rule:
    """Jordan 2024, with Nesterov momentum and bias correction as in optax.contrib.muon."""
    size = _Size(spec)
    scale = MUON_RMS * math.sqrt(max(size.rows, size.columns))

    def direction(grad, param, moments, step, decay):
        beta = config.momentum
        mean = beta * moments["mean"] + (1.0 - beta) * grad
        ahead = beta * mean / (1.0 - beta ** (step + 1.0)) + (1.0 - beta) * grad / (
            1.0 - beta**step
        )
        matrix = orthogonalize(ahead.reshape(size.rows, size.columns))
        return scale * matrix.reshape(param.shape) + decay * param, {"mean": mean}

    return Rule({"mean": _zero_spec(spec)}, direction)


def orthogonalize(matrix: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Brings all singular values near 1 (0.7 to 1.2) by five Newton-Schulz steps."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (jnp.linalg.norm(x) + 1e-8)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def _adafactor(config: OptimizerConfig, spec: Spec) -> Rule:
    """Shazeer and Stern 2018 (arXiv 1804.04235), algorithms 4 and 5: T5's, without momentum."""
    size = _Size(spec)
    factored = min(size.rows, size.columns) >= config.min_dim_size_to_factor
    scale_by_second_moment = _factored_moment if factored else _full_moment
    start = _is_stacked(spec)
    split = start + spec.rows
    moments = {"square": _zero_spec(spec)}
    if factored:
        moments = {
            "row": _zero_spec(spec, slice(0, split)),
            "column": _zero_spec(spec, slice(0, start), slice(split, None)),
        }

    def direction(grad, param, moments, step, decay):
        del decay
        beta = 1.0 - step**-config.decay_rate
        update, moments = scale_by_second_moment(grad, moments, beta, size)
        if config.clipping_threshold is not None:
            update /= jnp.maximum(1.0, size.rms(update) / config.clipping_threshold)
        if config.multiply_by_parameter_scale:
            update *= jnp.maximum(SMALLEST_SCALE, size.rms(param))
        return update, moments

    return Rule(moments, direction)


def _full_moment(grad, moments, beta, size):
    del size
    square = beta * moments["square"] + (1.0 - beta) * (jnp.square(grad) + ADAFACTOR_EPSILON)
    return grad * jax.lax.rsqrt(square), {"square": square}


def _factored_moment(grad, moments, beta, size):
    """The second moment as the product of its row means and column means over its mean."""
    rows_axes = moments["row"].ndim
    square = jnp.square(grad) + ADAFACTOR_EPSILON
    over_columns = jnp.sum(square, axis=range(rows_axes, grad.ndim)) / size.columns
    over_rows = jnp.sum(square, axis=range(rows_axes)) / size.rows
    row = beta * moments["row"] + (1.0 - beta) * over_columns
    column = beta * moments["column"] + (1.0 - beta) * over_rows
    relative = row / (jnp.sum(row) / size.rows)
    relative = relative.reshape(row.shape + (1,) * (grad.ndim - rows_axes))
    update = grad * jax.lax.rsqrt(relative) * jax.lax.rsqrt(column)
    return update, {"row": row, "column": column}


def _adam_specs(spec: Spec) -> dict[str, Spec]:
    return {"mean": _zero_spec(spec), "square": _zero_spec(spec)}


def _adam_moments(config, grad, moments, step):
    """Bias-corrected mean and root mean square of the gradients, and the new moments."""
    mean = config.b1 * moments["mean"] + (1.0 - config.b1) * grad
    square = config.b2 * moments["square"] + (1.0 - config.b2) * jnp.square(grad)
    root = jnp.sqrt(square / (1.0 - config.b2**step))
    return mean / (1.0 - config.b1**step), root, {"mean": mean, "square": square}


class _Size:
    """Rows and columns of the matrix that a single layer's tensor is, without padding."""

    def __init__(self, spec: Spec):
        start = int(_is_stacked(spec))
        shape = spec.unpadded[start:]
        self.rows = math.prod(shape[: spec.rows])
        self.columns = math.prod(shape[spec.rows :])

    def rms(self, x: Array) -> Float[Array, ""]:
        """Root mean square over the elements that are no padding."""
        return jnp.sqrt(jnp.sum(jnp.square(x)) / (self.rows * self.columns))


def _is_stacked(spec: Spec) -> bool:
    return spec.axes[:1] == ("layers",)


def _over_layers(rule: Rule, spec: Spec) -> Callable:
    return jax.vmap(rule.direction, (0, 0, 0, None, None)) if _is_stacked(spec) else rule.direction


def _zero_spec(spec: Spec, *parts: slice) -> Spec:
    """A Spec of zeros over all axes, or over those in `parts`, with the same logical names."""
    axes = [i for part in parts or (slice(None),) for i in range(len(spec.shape))[part]]
    return dataclasses.replace(
        spec,
        shape=tuple(spec.shape[i] for i in axes),
        axes=tuple(spec.axes[i] for i in axes),
        init=constant(0),
        rows=0,
        decay=False,
        dtype="float32",
    )
