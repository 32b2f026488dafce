"""Fits recover what was planted, say how sure they are, and are refused where they cannot be."""

import numpy as np
import pytest

from medjax.config import UserError
from medjax.scoring.scaling import Scaling, fit_scaling, isoflop

PLANTED = Scaling(e=1.69, a=406.4, alpha=0.34, b=410.7, beta=0.28)  # Hoffmann et al. 2022
SIZES = np.array([2e6, 8e6, 3e7, 1e8, 4e8])
BUDGETS = np.array([1e8, 5e8, 2e9, 1e10])


def points(noise=0.0, seed=0):
    parameters, tokens = (own.ravel() for own in np.meshgrid(SIZES, BUDGETS))
    errors = np.random.default_rng(seed).normal(0, noise, len(tokens))
    return parameters, tokens, PLANTED.loss(parameters, tokens) * np.exp(errors)


def test_planted_coefficients_are_recovered():
    found = fit_scaling(*points(), draws=2).scaling
    np.testing.assert_allclose(found, PLANTED, rtol=0.03)
    parameters, tokens = found.best(1e21)
    assert 6 * parameters * tokens == pytest.approx(1e21)
    nearby = [PLANTED.loss(parameters * f, tokens / f) for f in (0.8, 1.0, 1.25)]
    assert min(nearby) == nearby[1]


def test_one_outlier_moves_little():
    parameters, tokens, losses = points()
    losses[7] *= 1.5
    found = fit_scaling(parameters, tokens, losses, draws=2)
    np.testing.assert_allclose(found.scaling.loss(1e8, 1e10), PLANTED.loss(1e8, 1e10), rtol=0.01)
    assert np.argmax(np.abs(found.residuals)) == 7


@pytest.mark.parametrize("seeds", [4, pytest.param(20, marks=pytest.mark.long)])
def test_the_interval_covers_the_truth(seeds):
    covered = []
    for seed in range(seeds):
        fit = fit_scaling(*points(0.01, seed), draws=30)
        loss, low, high, beyond = fit.predict(2e8, 5e9)
        assert low <= loss * 1.01 and high >= loss * 0.99 and not beyond
        covered.append(low <= PLANTED.loss(2e8, 5e9) <= high)
    assert sum(covered) >= 0.75 * seeds
    assert fit.predict(1e9, 5e9)[3] and fit.predict(1e8, 1e11)[3]


@pytest.mark.parametrize("count", [4, 9])
def test_too_few_points_give_no_fit(count):
    with pytest.raises(UserError, match=f"there are {count} of"):
        fit_scaling(*(own[:count] for own in points()))
    parameters, tokens, losses = points()
    with pytest.raises(UserError, match="3 sizes and 3 budgets"):
        fit_scaling(np.full_like(parameters, 1e6), tokens, losses)


def test_isoflop_profiles_find_a_planted_minimum():
    """Parabolas over log size with their minima at 1e6 and 4e6; a third budget has two sizes."""
    sizes = np.array([2.5e5, 5e5, 2e6, 8e6, 1e6, 2e6, 8e6, 3.2e7, 1e6, 2e6])
    budgets = np.array([1e15] * 4 + [1e16] * 4 + [1e17] * 2)
    best = np.where(budgets == 1e15, 1e6, 4e6)
    losses = 2.0 + 0.1 * np.log(sizes / best) ** 2
    first, second = isoflop(sizes, budgets, losses)
    assert (first.parameters, first.loss) == pytest.approx((1e6, 2.0))
    assert (second.parameters, second.flops) == pytest.approx((4e6, 1e16))
    assert isoflop(sizes[:4] * 100, budgets[:4], losses[:4] * -1) == []
