"""The two implementations of attention against each other, and what the blocks leave in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.attention import Mask, attention, batch_mask, bias_matrix, uses_blocks

B, T, S, H, K = 2, 37, 37, 2, 4
KEYS = jnp.arange(S)[None] < jnp.array([[S], [S - 9]])
SEGMENTS = jnp.stack([jnp.arange(S) // 12 + 1, jnp.where(jnp.arange(S) < 30, 1, 0)])

CASES = {
    "padding": (Mask(keys=KEYS), None, S),
    "segments": (Mask(segments=(SEGMENTS, SEGMENTS)), None, S),
    "causal": (Mask(keys=KEYS, segments=(SEGMENTS, SEGMENTS), causal=True), "distance", S),
    "window": (Mask(keys=KEYS, segments=(SEGMENTS, SEGMENTS), window=5), None, S),
    "plain_window": (Mask(window=3), None, S),
    "window_bias": (Mask(window=5), "matrix", S),
    "matrix": (Mask(), "matrix", S),
    "cross": (Mask(keys=KEYS[:, :21]), "distance", 21),
}


@pytest.mark.parametrize("name", CASES)
def test_blocks_equal_whole(name):
    mask, kind, keys = CASES[name]
    rng = np.random.default_rng(0)
    q, k, v, g = (
        jnp.asarray(rng.normal(size=(B, n, H, K)), jnp.float32) for n in (T, keys, keys, T)
    )
    shape = {"matrix": (H, T, keys), "distance": (H, T + keys - 1), None: (H, 1)}[kind]
    bias = jnp.asarray(rng.normal(size=shape), jnp.float32)
    if mask.segments is not None:
        g = g * (SEGMENTS > 0)[..., None, None]  # padding sees nothing: any value will do

    def loss(implementation, q, k, v, bias):
        out = attention(
            q,
            k,
            v,
            mask,
            scale=0.5,
            bias=bias if kind else None,
            implementation=implementation,
            block=8,
        )
        return jnp.sum(out * g), out

    def run(implementation):
        step = jax.grad(loss, argnums=(1, 2, 3, 4), has_aux=True)
        return jax.jit(step, static_argnums=0)(implementation, q, k, v, bias)

    (grads, out), (expected_grads, expected) = run("blocks"), run("xla")
    real = g != 0
    np.testing.assert_allclose(out[real], expected[real], atol=2e-6)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_auto_chooses_by_length():
    assert not uses_blocks(1024, 1024, "auto")
    assert uses_blocks(114, 1025, "auto")
    assert uses_blocks(8, 8, "blocks") and not uses_blocks(8192, 8192, "xla")


@pytest.mark.parametrize("queries, keys", [(1, 1), (1, 5), (5, 1), (6, 4)])
def test_bias_matrix(queries, keys):
    bias = jnp.arange(2 * (queries + keys - 1)).reshape(2, -1)
    distance = np.arange(keys)[None, :] - np.arange(queries)[:, None]
    np.testing.assert_array_equal(bias_matrix(bias, queries), bias[:, distance + queries - 1])


def test_padding_queries_are_finite():
    q = jnp.ones((1, 4, 1, 2))
    nothing = Mask(segments=(jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4), jnp.int32)))
    for implementation in ("xla", "blocks"):
        grad = jax.grad(
            lambda q, i=implementation: attention(
                q, q, q, nothing, scale=1.0, implementation=i
            ).sum()
        )(q)
        assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("implementation, window", [("xla", None), ("blocks", None), ("blocks", 8)])
def test_dropout_keeps_the_mean(implementation, window):
    q = jnp.zeros((1, 64, 2, 2))
    v = jnp.ones((1, 64, 2, 2))

    def run(key):
        mask = Mask(window=window)
        return attention(
            q, q, v, mask, scale=1.0, rate=0.25, key=key, implementation=implementation, block=16
        )

    dropped = run(jax.random.key(0))
    assert jnp.std(dropped) > 0.01
    assert jnp.mean(dropped) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_array_equal(dropped, run(jax.random.key(0)))
    np.testing.assert_allclose(run(None), 1.0, rtol=1e-6)


def test_mask_of_a_batch():
    batch = {"segment_ids": SEGMENTS, "decoder_segment_ids": SEGMENTS[:, :5]}
    batch["attention_mask"] = KEYS.astype(jnp.int32)
    cross = batch_mask(batch, "decoder_")
    assert cross.keys.dtype == bool and cross.keys.shape == (B, S)
    assert [s.shape for s in cross.segments] == [(B, 5), (B, S)]
    own = batch_mask(batch, "decoder_", "decoder_", causal=True)
    assert own.keys is None and own.causal and own.segments[1].shape == (B, 5)
