"""Scaling of loss with parameters and tokens: L = E + A / N^alpha + B / D^beta.

The form and the robust fit of Hoffmann et al. 2022, approach 3: Huber loss of the logarithms, by
L-BFGS from a grid of starts. Intervals are of refits on drawn runs.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.config import UserError

HUBER = 1e-3
COEFFICIENTS = 5
FEWEST = 2 * COEFFICIENTS  # points; with fewer a fit only repeats them
DRAWS = 100


class Scaling(NamedTuple):
    """The coefficients."""

    e: float
    """Loss that no model goes below."""
    a: float
    alpha: float
    b: float
    beta: float

    def loss(self, parameters: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Predicted loss in nats."""
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def best(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) with the lowest loss for 6 N D FLOPs (their equation 4)."""
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / 6 / parameters


class Fit(NamedTuple):
    """A fit and how sure it is."""

    scaling: Scaling
    residuals: Float[np.ndarray, " P"]
    """Of the logarithms of the losses."""
    draws: tuple[Scaling, ...]
    largest: tuple[float, float]
    """Most parameters and tokens among the points; beyond them it is extrapolation."""

    def predict(
        self, parameters: float, tokens: float, level: float = 0.95
    ) -> tuple[float, float, float, bool]:
        """(loss, low, high, whether it is extrapolated)."""
        values = [float(own.loss(parameters, tokens)) for own in self.draws]
        low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
        beyond = parameters > self.largest[0] or tokens > self.largest[1]
        return float(self.scaling.loss(parameters, tokens)), float(low), float(high), beyond


def fit_scaling(
    parameters: Float[np.ndarray, " P"],
    tokens: Float[np.ndarray, " P"],
    losses: Float[np.ndarray, " P"],
    runs: np.ndarray | None = None,
    draws: int = DRAWS,
) -> Fit:
    """The fit of points (N, D, loss).

    Args:
      runs: which run each point is of: points of one run are drawn together.

    Raises:
      UserError: there are too few points, sizes or budgets for five coefficients.
    """
    parameters, tokens, losses = (np.asarray(own, float) for own in (parameters, tokens, losses))
    sizes, budgets = len(np.unique(parameters)), len(np.unique(tokens))
    if len(losses) < FEWEST or sizes < 3 or budgets < 3:
        raise UserError(
            f"a fit of {COEFFICIENTS} coefficients needs {FEWEST} points of 3 sizes and 3 budgets, "
            f"but there are {len(losses)} of {sizes} and {budgets}; no fit is made"
        )
    runs = np.arange(len(losses)) if runs is None else np.asarray(runs)
    grid = product((0.0, 10.0), (0.0, 10.0), (-1.0, 0.5), (0.3,), (0.3,))
    own = _fit(parameters, tokens, losses, [np.array(start) for start in grid])
    names, rng = np.unique(runs), np.random.default_rng(0)
    found = []
    for _ in range(draws):
        chosen = rng.choice(names, len(names))
        places = np.concatenate([np.flatnonzero(runs == name) for name in chosen])
        found.append(_fit(parameters[places], tokens[places], losses[places], [own]))
    residuals = np.log(losses) - _log_loss(own, np.log(parameters), np.log(tokens))
    largest = float(parameters.max()), float(tokens.max())
    return Fit(_scaling(own), residuals, tuple(map(_scaling, found)), largest)


def _fit(parameters, tokens, losses, starts) -> np.ndarray:
    from scipy.optimize import minimize

    log_n, log_d, log_l = np.log(parameters), np.log(tokens), np.log(losses)

    def objective(x):
        terms, log_loss = _terms(x, log_n, log_d)
        error = log_loss - log_l
        small = np.abs(error) <= HUBER
        value = np.where(small, error**2 / 2, HUBER * (np.abs(error) - HUBER / 2)).sum()
        slope = np.clip(error, -HUBER, HUBER)
        shares = np.exp(terms - log_loss)  # of each term in the loss
        gradient = [(slope * share).sum() for share in shares]
        gradient += [-(slope * shares[0] * log_n).sum(), -(slope * shares[1] * log_d).sum()]
        return value, np.array(gradient)

    options = {"maxiter": 500, "ftol": 1e-14, "gtol": 1e-10}
    bounds = [(None, None)] * 3 + [(0.0, 3.0)] * 2
    fits = [
        minimize(objective, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for x in starts
    ]
    return min(fits, key=lambda own: own.fun).x


def _terms(x, log_n, log_d):
    """x: log A, log B, log E, alpha, beta -> the logarithms of the three terms, and of the loss."""
    a, b, e, alpha, beta = x
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
    return terms, np.logaddexp.reduce(terms, axis=0)


def _log_loss(x, log_n, log_d):
    return _terms(x, log_n, log_d)[1]


def _scaling(x: np.ndarray) -> Scaling:
    a, b, e, alpha, beta = x
    return Scaling(*map(float, (np.exp(e), np.exp(a), alpha, np.exp(b), beta)))


class Profile(NamedTuple):
    """The best size for a budget, by a parabola over the logarithm of the size."""

    flops: float
    parameters: float
    loss: float


def isoflop(
    parameters: Float[np.ndarray, " P"],
    flops: Float[np.ndarray, " P"],
    losses: Float[np.ndarray, " P"],
    within: float = 0.1,
) -> list[Profile]:
    """Minima of loss over size at equal FLOPs (Hoffmann et al. 2022, approach 2).

    Only budgets with four sizes or more, within so much of each other, whose parabola has its
    minimum between them.
    """
    found, order = [], np.argsort(flops)
    while len(order):
        budget = flops[order[0]]
        own = order[flops[order] <= budget * (1 + within)]
        order = order[len(own) :]
        sizes = np.log(parameters[own])
        if len(np.unique(sizes)) < 4:
            continue
        a, b, c = np.polyfit(sizes, losses[own], 2)
        best = -b / (2 * a) if a > 0 else np.inf
        if sizes.min() < best < sizes.max():
            value = float(np.polyval([a, b, c], best))
            found.append(Profile(float(flops[own].mean()), float(np.exp(best)), value))
    return found
