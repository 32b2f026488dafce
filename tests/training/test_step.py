"""The train step: the same result however a batch is divided, and whatever runs before it."""

import functools

import jax
import numpy as np
import pytest

from medjax.objectives.objective import loss_of_blocks
from medjax.pretrain import build
from medjax.training.config import MeshConfig
from medjax.training.mesh import make_mesh
from medjax.training.state import create_state
from medjax.training.step import build_train_step
from tests.training.conftest import DROPOUT, config_in

# The first update of Adam and of unfactored Adafactor is the gradient's sign: where the gradient is
# almost zero, a rounding decides. With these the update is continuous in the gradient.
CONTINUOUS = {"t5": "optimizer.min_dim_size_to_factor=2", "bert": "optimizer.eps=1e-3"}


def take_steps(config, devices=8, steps=2):
    """Losses and final parameters after a few steps on the first `devices` devices."""
    setup = build(config, jax.devices()[:devices])
    seed, losses = config.loop.seed, []
    with jax.set_mesh(setup.mesh):
        state = create_state(setup.specs, setup.model, setup.optimizer, setup.mesh, seed)
        step = build_train_step(
            loss_of_blocks(setup.objective),
            setup.optimizer,
            config.loop,
            setup.mesh,
            setup.specs,
        )
        for batch, _ in zip(setup.batches(0), range(steps), strict=False):
            state, metrics = step(state, batch)
            losses.append([float(metrics[n]) for n in ("loss", "accuracy", "grad_norm")])
    return np.array(losses), jax.device_get(state.params)


@pytest.fixture(scope="module")
def steps_of(prepared, tmp_path_factory):
    """`steps_of(family, *overrides, devices=8)`: `take_steps` of it, made once."""

    @functools.cache
    def steps(family, *overrides, devices=8):
        folder = tmp_path_factory.mktemp("steps")
        config = config_in(folder, prepared, family, *DROPOUT[family], *overrides)
        return take_steps(config, devices)

    return steps


def assert_same(a, b, rtol=1e-5):
    np.testing.assert_allclose(a[0], b[0], rtol=rtol)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=5e-6), a[1], b[1])


@pytest.mark.parametrize("family", [pytest.param("t5", marks=pytest.mark.long), "bert"])
def test_one_and_four_microbatches_agree(steps_of, family):
    """Losses weighted by tokens: notes differ in how many there are to predict. Dropout is on."""
    smooth = CONTINUOUS[family]
    whole = steps_of(family, smooth, devices=1)
    parts = steps_of(family, smooth, "loop.accumulation=4", devices=1)
    np.testing.assert_allclose(whole[0][0], parts[0][0], rtol=2e-6)
    assert_same(whole, parts)


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("t5", (2, 2, 2)),
        ("bert", (8, 1, 1)),
        pytest.param("bert", (1, 4, 2), marks=pytest.mark.long),
    ],
)
def test_sharded_equals_unsharded(steps_of, family, shape):
    smooth = CONTINUOUS[family]
    alone = steps_of(family, smooth, devices=1)
    names = zip(("data", "fsdp", "tensor"), shape, strict=True)
    sharded = steps_of(family, smooth, *(f"mesh.{n}={s}" for n, s in names))
    assert_same(alone, sharded)


def test_the_seed_decides(config_of, steps_of):
    first = steps_of("bert", devices=1)
    again = take_steps(config_of("bert"), devices=1)
    other = steps_of("bert", "loop.seed=1", devices=1)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.allclose(first[0], other[0], rtol=1e-6)


def test_a_step_compiles_once(config_of):
    config = config_of("bert")
    setup = build(config)
    with jax.set_mesh(setup.mesh):
        state = create_state(
            setup.specs, setup.model, setup.optimizer, setup.mesh, config.loop.seed
        )
        step = build_train_step(
            loss_of_blocks(setup.objective),
            setup.optimizer,
            config.loop,
            setup.mesh,
            setup.specs,
        )
        for batch in setup.batches(0):
            state, _ = step(state, batch)
    assert int(state.step) == config.loop.steps
    assert step._cache_size() == 1


def test_bfloat16_follows_float32(steps_of):
    exact, _ = steps_of("t5", CONTINUOUS["t5"], devices=1)
    rough, _ = steps_of("t5", CONTINUOUS["t5"], "compute.dtype=bfloat16", devices=1)
    np.testing.assert_allclose(exact[:, 0], rough[:, 0], rtol=0.02)


def test_mesh_sizes_left_out_are_filled_in():
    devices = jax.devices()
    assert dict(make_mesh(MeshConfig(), 10, devices).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    shape = dict(make_mesh(MeshConfig(fsdp=2, tensor=2), 10, devices).shape)
    assert shape == {"data": 2, "fsdp": 2, "tensor": 2}
