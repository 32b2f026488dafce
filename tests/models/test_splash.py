"""The splash kernel, in Pallas' interpreter, against whole score matrices; where it is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from medjax.models import splash
from medjax.models.attention import Mask, attention

B, T, H, K = 2, 256, 2, 16
PLACES = jnp.arange(T)[None]
KEYS = jnp.array([[T], [T - 70]]) > PLACES
SEGMENTS = jnp.concatenate([PLACES // 100 + 1, jnp.where(PLACES < 200, PLACES // 60 + 1, 0)])
MASKS = {
    "padding": Mask(keys=KEYS, segments=(SEGMENTS, SEGMENTS)),
    "window": Mask(segments=(SEGMENTS, SEGMENTS), window=20),
    "causal": Mask(segments=(SEGMENTS, SEGMENTS), causal=True),
    "causal_window": Mask(keys=KEYS, causal=True, window=20),
}


def arrays():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, T, H, K)), jnp.float32) for _ in range(4)]


def gradients(function, mask, q, k, v, weights):
    """Output and gradients, of queries that are no padding alone."""
    real = jnp.ones((B, T), bool) if mask.segments is None else mask.segments[0] > 0
    real = real if mask.keys is None else real & mask.keys
    weights = weights * real[..., None, None]

    def loss(q, k, v):
        out = function(q, k, v, mask, scale=0.3)
        return jnp.sum(out * weights), jnp.where(real[..., None, None], out, 0)

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)


def interpreted(*arguments, **options):
    return splash.splash_attention(*arguments, **options, interpret=True)


@pytest.mark.parametrize("name", MASKS)
def test_the_kernel_equals_whole_scores(monkeypatch, name):
    monkeypatch.setattr(splash, "BLOCKS", (128,))  # several
    given = (MASKS[name], *arrays())
    for ours, theirs in zip(
        jax.tree.leaves(gradients(interpreted, *given)),
        jax.tree.leaves(gradients(attention, *given)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_rows_and_heads_may_be_divided():
    """Over two devices by rows and two by heads."""
    devices = np.array(jax.devices()[:4]).reshape(2, 1, 2)
    mesh = Mesh(devices, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    given = (MASKS["padding"], *arrays())
    expected = gradients(interpreted, *given)
    with jax.set_mesh(mesh):
        found = gradients(interpreted, *given)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "options", "chosen"),
    [
        (2048, {}, True),
        (1024, {}, False),
        (2050, {}, False),
        (2048, {"implementation": "blocks"}, False),
        (2048, {"bias": jnp.zeros((H, 4095))}, False),
        (2048, {"rate": 0.1, "key": jax.random.key(0)}, False),
        (2048, {"rate": 0.1}, True),  # without a key nothing is dropped
    ],
)
def test_where_it_is_chosen(monkeypatch, length, options, chosen):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    taken = []

    def noted(q, *arguments, **options):
        taken.append(options)
        return q

    monkeypatch.setattr(splash, "splash_attention", noted)
    x = jax.ShapeDtypeStruct((1, length, H, K), jnp.float32)
    jax.eval_shape(lambda x: attention(x, x, x, Mask(), scale=1.0, **options), x)
    assert bool(taken) == chosen


def test_it_is_for_tpus_alone():
    x = jnp.zeros((1, 2048, H, K))
    assert not splash.suits(x, x, Mask())
