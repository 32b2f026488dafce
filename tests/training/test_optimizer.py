"""Optimizers against optax, or against a plain statement of the paper, on the unstacked tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.config import UserError
from medjax.models.spec import Spec, abstract_params, init_params, normal, padded
from medjax.training.config import MeshConfig, OptimizerConfig, ScheduleConfig
from medjax.training.mesh import make_mesh, shardings
from medjax.training.optimizer import build_optimizer, orthogonalize
from medjax.training.schedule import build_schedule, varied_schedule

LAYERS, WIDTH, HEADS, KV, VOCABULARY, STEPS = 3, 160, 2, 72, 300, 5
CLIP = 0.7


def _spec(shape, axes, rows=1, decay=True, std=0.1, vocab_size=None):
    return Spec(shape, axes, normal(std), rows, decay, vocab_size=vocab_size)


SPECS = {
    "embedding": _spec((padded(VOCABULARY), WIDTH), ("vocab", "embed"), vocab_size=VOCABULARY),
    "layers": {
        "query": _spec((LAYERS, WIDTH, HEADS, KV), ("layers", "embed", "heads", "kv"), std=0.02),
        "query_bias": _spec((LAYERS, HEADS, KV), ("layers", "heads", "kv"), 0, False, std=0.0),
        "out": _spec((LAYERS, HEADS, KV, WIDTH), ("layers", "heads", "kv", "embed"), rows=2),
        "narrow": _spec((LAYERS, WIDTH, 24), ("layers", "embed", "mlp"), std=0.5),
        "norm": _spec((LAYERS, WIDTH), ("layers", None), 0, False, std=1.0),
    },
    "bias": _spec((padded(VOCABULARY),), ("vocab",), 0, False, vocab_size=VOCABULARY),
}


def unstack(tree):
    """One matrix or vector for each layer, without padding: what transformers or T5X would hold."""

    def single(spec, x, layer):
        if layer is not None:
            x, spec = x[layer], _spec(spec.shape[1:], spec.axes[1:], spec.rows)
        else:
            x = x[tuple(slice(n) for n in spec.unpadded)]
        if spec.rows == 0:
            return x.reshape(-1)
        return x.reshape(int(np.prod(x.shape[: spec.rows])), -1)

    found = {}
    for path, spec in jax.tree.leaves_with_path(SPECS):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        x = np.asarray(_at(tree, path))
        layers = range(LAYERS) if spec.axes[0] == "layers" else [None]
        found |= {f"{name}/{i}": single(spec, x, i) for i in layers}
    return found


def _at(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def gradients(step):
    """Random gradients, of quite another size in some steps; zero in the padding, as real ones."""
    size = (1.0, 1e-3, 30.0, 0.1, 1.0)[step % STEPS]
    grads = init_params(SPECS, jax.random.key(step + 1))
    return jax.tree.map(lambda g: g * size, {**grads, "bias": 0.1 * grads["bias"]})


def _matrices(tree):
    return jax.tree.map(lambda x: x.ndim == 2, tree)


def _kinds(tree):
    return {n: "muon" if x.ndim == 2 and "layers" in n else "adamw" for n, x in tree.items()}


ADAMW = {"b1": 0.9, "b2": 0.98, "eps": 1e-6}


SCHEDULE = ScheduleConfig(kind="t5_rsqrt", learning_rate=0.1, warmup_steps=2)


def _rate(step):
    return 0.1 * jnp.maximum(step, 2) ** -0.5


def build(**options):
    return build_optimizer(OptimizerConfig(**options), build_schedule(SCHEDULE, STEPS), SPECS)


REFERENCES = {
    "adafactor": (dict(name="adafactor"), optax.adafactor(_rate)),
    "adafactor unscaled": (
        dict(
            name="adafactor",
            decay_rate=0.6,
            clipping_threshold=None,
            multiply_by_parameter_scale=False,
            min_dim_size_to_factor=20,
            clip_norm=CLIP,
        ),
        optax.chain(
            optax.clip_by_global_norm(CLIP),
            optax.adafactor(
                _rate,
                min_dim_size_to_factor=20,
                decay_rate=0.6,
                clipping_threshold=None,
                multiply_by_parameter_scale=False,
            ),
        ),
    ),
    "adamw": (
        dict(name="adamw", weight_decay=0.1, clip_norm=CLIP, **ADAMW),
        optax.chain(
            optax.clip_by_global_norm(CLIP),
            optax.adamw(_rate, weight_decay=0.1, mask=_matrices, **ADAMW),
        ),
    ),
    "adamw_rms": (
        dict(name="adamw_rms", weight_decay=0.1, eps=1e-12),
        optax.chain(
            optax.scale_by_adam(eps=1e-12),
            optax.scale_by_param_block_rms(1e-3),
            optax.add_decayed_weights(0.1, _matrices),
            optax.scale_by_learning_rate(_rate),
        ),
    ),
    "muon": (
        dict(name="muon", weight_decay=0.1, momentum=0.9, **ADAMW),
        optax.partition(
            {
                "muon": optax.contrib.muon(_rate, beta=0.9, weight_decay=0.1, consistent_rms=0.2),
                "adamw": optax.adamw(_rate, weight_decay=0.1, mask=_matrices, **ADAMW),
            },
            _kinds,
        ),
    ),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_equals_optax_on_the_unstacked_tree(case):
    options, reference = REFERENCES[case]
    optimizer = build(**options)
    params = init_params(SPECS, jax.random.key(0))
    expected = jax.tree.map(jnp.asarray, unstack(params))
    state, expected_state = optimizer.init(params), reference.init(expected)
    ours, theirs = jax.jit(optimizer.update), jax.jit(reference.update)
    for step in range(STEPS):
        grads = gradients(step)
        updates, state, metrics = ours(grads, state, params, {})
        params = optax.apply_updates(params, updates)
        updates, expected_state = theirs(unstack(grads), expected_state, expected)
        expected = optax.apply_updates(expected, updates)
        np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-6)
        np.testing.assert_allclose(metrics["learning_rate"], _rate(step), rtol=1e-6)
        found = unstack(params)
        for name in expected:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=f"{name} {step}"
            )
    assert not np.any(params["embedding"][VOCABULARY:]) and not np.any(params["bias"][VOCABULARY:])
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state["moments"]))


def _adam(grads, b1=0.9, b2=0.98):
    """Mean and mean square of the gradients so far, as weighted sums from the definition."""
    t = len(grads)
    mean = sum((1 - b1) * b1 ** (t - 1 - i) * g for i, g in enumerate(grads))
    square = sum((1 - b2) * b2 ** (t - 1 - i) * g**2 for i, g in enumerate(grads))
    return mean, square, 1 - b1**t, 1 - b2**t


def _rms(x):
    return np.sqrt(np.mean(x**2))


def nano_t5(grads, param, rate, decay):
    """AdamWScale of nanoT5 (copied_utils.py), epsilon 1e-6."""
    mean, square, correction1, correction2 = _adam(grads)
    size = rate * np.sqrt(correction2) / correction1 * max(1e-3, _rms(param))
    return param - size * mean / (np.sqrt(square) + 1e-6) - rate * decay * param


def stable_adamw(grads, param, rate, decay):
    """StableAdamW of optimi, epsilon 1e-6."""
    mean, square, correction1, correction2 = _adam(grads)
    mean, square = mean / correction1, square / correction2
    rate = rate / max(1.0, _rms(grads[-1] / np.sqrt(np.maximum(square, 1e-12))))
    return param * (1 - rate * decay) - rate * mean / (np.sqrt(square) + 1e-6)


def adafactor(grads, param, rate, decay):
    """Shazeer and Stern 2018, algorithms 4 (matrices) and 5, in the sums of the paper."""
    del decay
    row = column = full = 0.0
    for t, grad in enumerate(grads, 1):
        beta, square = 1 - t**-0.8, grad**2 + 1e-30
        full = beta * full + (1 - beta) * square
        if grad.ndim == 2:
            row = beta * row + (1 - beta) * square.sum(1)
            column = beta * column + (1 - beta) * square.sum(0)
    if param.ndim == 2 and min(param.shape) >= 128:
        full = np.outer(row, column) / row.sum()
    update = grads[-1] / np.sqrt(full)
    update /= max(1.0, _rms(update))
    return param - rate * max(1e-3, _rms(param)) * update


@pytest.mark.parametrize(
    "rule, options",
    [
        (nano_t5, dict(name="adamw_rms", b2=0.98, eps=1e-6, weight_decay=0.1)),
        (stable_adamw, dict(name="stable_adamw", b2=0.98, eps=1e-6, weight_decay=0.1)),
        (adafactor, dict(name="adafactor")),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_equals_a_plain_statement_of_the_rule(rule, options):
    optimizer = build(**options)
    params = init_params(SPECS, jax.random.key(0))
    state, history = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for step in range(STEPS):
        grads = gradients(step)
        history.append(unstack(grads))
        expected = {
            name: rule(
                [np.float64(h[name]) for h in history],
                np.float64(param),
                float(_rate(step)),
                0.1 if param.ndim == 2 else 0.0,
            )
            for name, param in unstack(params).items()
        }
        updates, state, _ = update(grads, state, params, {})
        params = optax.apply_updates(params, updates)
        for name, param in unstack(params).items():
            np.testing.assert_allclose(param, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["adafactor", "adamw", "muon"])
def test_state_specs_declare_the_state(name):
    optimizer = build(name=name)
    made = jax.eval_shape(optimizer.init, abstract_params(SPECS))
    assert jax.tree.structure(made) == jax.tree.structure(optimizer.state_specs)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
        lambda x: (x.shape, x.dtype), abstract_params(optimizer.state_specs)
    )


def test_adafactor_keeps_a_row_and_a_column_for_a_matrix_and_their_axes():
    moments = build(name="adafactor").state_specs["moments"]
    out = moments["layers"]["out"]
    assert out["row"].axes == ("layers", "heads", "kv") and out["row"].shape == (LAYERS, HEADS, KV)
    assert out["column"].axes == ("layers", "embed")
    assert moments["embedding"]["row"].axes == ("vocab",)
    assert moments["layers"]["narrow"]["square"].shape == (LAYERS, WIDTH, 24)


@pytest.mark.parametrize("name", ["adafactor", "stable_adamw", "muon"])
def test_sharded_equals_unsharded(name):
    optimizer = build(name=name, clip_norm=CLIP)
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2), num_params=1)
    divided = shardings(SPECS, mesh), shardings(optimizer.state_specs, mesh)
    assert any(not s.is_fully_replicated for s in jax.tree.leaves(divided[1]))
    start = init_params(SPECS, jax.random.key(0))
    results = []
    for places in (None, divided):
        params, state = start, optimizer.init(start)
        if places:
            params, state = jax.device_put((params, state), places)

        @jax.jit
        def step(grads, state, params):
            updates, state, _ = optimizer.update(grads, state, params, {})
            return optax.apply_updates(params, updates), state

        for i in range(2):
            grads = gradients(i)
            grads = jax.device_put(grads, places[0]) if places else grads
            params, state = step(grads, state, params)
        results.append((params, state))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_shows_in_the_norm_and_is_not_hidden_by_clipping(bad):
    optimizer = build(clip_norm=1.0)
    params = init_params(SPECS, jax.random.key(0))
    grads = gradients(0)
    grads["bias"] = grads["bias"].at[3].set(bad)
    updates, _, metrics = jax.jit(optimizer.update)(grads, optimizer.init(params), params, {})
    assert not np.isfinite(metrics["grad_norm"]) and np.isnan(updates["bias"][3])


def test_trainings_of_any_rate_and_length_share_a_program():
    optimizer = build_optimizer(OptimizerConfig(), varied_schedule("linear"), SPECS)
    params = init_params(SPECS, jax.random.key(0))
    update = jax.jit(optimizer.update)
    for peak, warmup, steps in ((0.1, 0, 4), (0.2, 3, 7)):
        config = ScheduleConfig(kind="linear", learning_rate=peak, warmup_steps=warmup)
        alone = build_schedule(config, steps)
        hyper = {"learning_rate": peak, "warmup_steps": warmup, "steps": steps}
        state = optimizer.init(params)
        for step in range(steps):
            _, state, metrics = update(
                gradients(step), state, params, jax.tree.map(jnp.float32, hyper)
            )
            np.testing.assert_allclose(metrics["learning_rate"], alone(step, {}), rtol=1e-6)
    assert update._cache_size() == 1


@pytest.mark.parametrize("kind", ["constant", "cosine", "one_minus_sqrt"])
def test_a_varied_schedule_is_the_fixed_one(kind):
    fixed = build_schedule(ScheduleConfig(kind=kind, learning_rate=0.1, warmup_steps=2), 9)
    hyper = {"learning_rate": 0.1, "warmup_steps": jnp.float32(2), "steps": jnp.float32(9)}
    for step in range(10):
        np.testing.assert_allclose(varied_schedule(kind)(step, hyper), fixed(step, {}), rtol=1e-6)


def test_orthogonalize_brings_singular_values_near_one():
    matrix = jax.random.normal(jax.random.key(0), (40, 24))
    values = np.linalg.svd(orthogonalize(matrix), compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3
    wide = orthogonalize(matrix.T)
    np.testing.assert_allclose(wide, orthogonalize(matrix).T, atol=1e-5)


CLOSED_FORMS = {
    "t5_rsqrt": ({"warmup_steps": 4, "learning_rate": 1.0}, lambda s: max(s, 4) ** -0.5),
    "constant": ({"warmup_steps": 4}, lambda s: 2e-3 * min(s / 4, 1)),
    "linear": ({"warmup_steps": 4}, lambda s: 2e-3 * min(s / 4, (20 - s) / 16)),
    "cosine": (
        {"final_ratio": 0.1},
        lambda s: 2e-3 * (0.1 + 0.9 * (1 + np.cos(np.pi * s / 20)) / 2),
    ),
    "one_minus_sqrt": (
        {"decay_steps": 5, "final_ratio": 0.01},
        lambda s: 2e-3 * (0.01 + 0.99 * (1 - np.sqrt(max(0, s - 15) / 5))),
    ),
}


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_schedules_equal_their_closed_forms(kind):
    options, expected = CLOSED_FORMS[kind]
    config = ScheduleConfig(kind=kind, **{"learning_rate": 2e-3, **options})
    schedule = jax.jit(build_schedule(config, total_steps=20))
    rates = [schedule(jnp.int32(step), {}) for step in range(21)]
    assert rates[0].dtype == jnp.float32
    np.testing.assert_allclose(rates, [expected(s) for s in range(21)], rtol=1e-5, atol=1e-9)


def test_a_schedule_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="90 steps of warm-up and 20 of decay .* run of 100"):
        build_schedule(ScheduleConfig(warmup_steps=90, decay_steps=20), total_steps=100)
    with pytest.raises(UserError, match="warm-up"):
        build_schedule(ScheduleConfig(warmup_steps=100), total_steps=100)


def test_a_field_that_the_optimizer_does_not_read_is_refused():
    with pytest.raises(ValueError, match="b2 = 0.95 is not read by optimizer adafactor.*adamw"):
        OptimizerConfig(name="adafactor", b2=0.95)
    with pytest.raises(ValueError, match="decay_rate .* choose one of: adafactor"):
        OptimizerConfig(name="adamw", decay_rate=0.5)
    with pytest.raises(ValueError, match="final_ratio .* not read by schedule constant"):
        ScheduleConfig(kind="constant", final_ratio=0.1)
    with pytest.raises(ValueError, match="needs warmup_steps"):
        ScheduleConfig(kind="t5_rsqrt")
    saved = OptimizerConfig(name="adafactor").model_dump()
    assert OptimizerConfig(**saved) == OptimizerConfig(name="adafactor")
