import numpy as np

from medjax.hub.resize import resize_rows


def test_old_rows_stay_and_new_ones_lie_at_the_mean():
    old = np.random.default_rng(0).normal(0.5, 2.0, (400, 16)).astype(np.float32)
    new = resize_rows(old, 1400, np.random.default_rng(1))
    assert new.dtype == np.float32 and new.shape == (1400, 16)
    np.testing.assert_array_equal(new[:400], old)
    np.testing.assert_allclose(new[400:], np.tile(old.mean(0), (1000, 1)), atol=1e-3)


def test_new_rows_have_the_scaled_covariance_of_the_old_ones():
    # Around a mean of zero, where float32 resolves a spread of sqrt(1e-9).
    mix = np.random.default_rng(2).normal(size=(4, 4))
    old = (np.random.default_rng(0).normal(size=(5000, 4)) @ mix).astype(np.float32)
    old -= old.mean(0)
    added = resize_rows(old, 25_000, np.random.default_rng(1))[5000:]
    np.testing.assert_allclose(np.cov(added.T) / 1e-9, np.cov(old.T), rtol=0.05, atol=0.1)


def test_a_singular_covariance_gives_the_mean_alone():
    old = np.zeros((3, 8), np.float32) + np.arange(3, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(
        resize_rows(old, 5, np.random.default_rng(0))[3:], np.ones((2, 8))
    )


def test_bias_shrinking_and_seed():
    bias = np.arange(6, dtype=np.float32)
    np.testing.assert_allclose(resize_rows(bias, 8, np.random.default_rng(0))[6:], 2.5, atol=1e-6)
    np.testing.assert_array_equal(resize_rows(bias, 4, np.random.default_rng(0)), bias[:4])
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    once, again = (resize_rows(rows, 60, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
