"""Intervals and paired comparisons by the bootstrap over clusters and seeds together.

Examples of one patient (document, report, premise) are not independent: whole clusters are drawn,
and with them the training seeds, so that an interval covers both the test set's and the training's
chance (Efron and Tibshirani 1993, chapters 8 and 16).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.scoring.metric import Metric

DRAWS = 1000
CELLS = 2**24  # of the weights held at a time


class Draws(NamedTuple):
    """A metric of a model, plainly and on drawn clusters."""

    values: Float[np.ndarray, " S"]
    """Of each training seed's predictions, on all examples once."""
    drawn: Float[np.ndarray, "D S"]
    """The same in each draw."""
    clusters: int


class Interval(NamedTuple):
    """A score over seeds."""

    mean: float
    deviation: float
    """Standard deviation over the seeds; NaN for one."""
    low: float
    high: float
    seeds: int
    clusters: int


class Difference(NamedTuple):
    """First minus second model, on the same examples."""

    mean: float
    low: float
    high: float
    p_value: float
    """Two-sided: how often the resampled difference lies on the other side of zero, doubled."""


def draw(
    metrics: Sequence[Metric],
    clusters: Int[np.ndarray, " N"],
    draws: int = DRAWS,
    seed: int = 0,
) -> Draws:
    """A metric on clusters drawn with replacement.

    Args:
      metrics: the same metric of each training seed's predictions on the same examples.
      clusters: which cluster each example belongs to: 0, 1, ...
      seed: equal ones draw equal clusters, so that models can be compared pairwise.
    """
    drawn = [
        np.stack([metric.of_weights(weights) for metric in metrics], axis=1)
        for weights in _cluster_weights(clusters, draws, seed)
    ]
    plain = np.array([metric.value for metric in metrics])
    return Draws(plain, np.concatenate(drawn), int(clusters.max()) + 1)


def interval(found: Draws, level: float = 0.95) -> Interval:
    """The mean over seeds and its percentile interval."""
    values = found.values
    low, high = np.nanpercentile(over_seeds(found), [50 * (1 - level), 50 * (1 + level)])
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    mean = float(values.mean())
    return Interval(mean, deviation, float(low), float(high), len(values), found.clusters)


def compare(first: Draws, second: Draws, level: float = 0.95) -> Difference:
    """The difference of two models of the same drawn clusters, the seeds of each drawn for itself.

    Raises:
      ValueError: the draws are not of the same number.
    """
    if len(first.drawn) != len(second.drawn):
        raise ValueError(f"{len(first.drawn)} draws cannot be paired with {len(second.drawn)}")
    drawn = over_seeds(first) - over_seeds(second, side=1)
    low, high = np.nanpercentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_value = min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))
    mean = float(first.values.mean() - second.values.mean())
    return Difference(mean, float(low), float(high), float(p_value))


def mean_draws(tasks: Sequence[Draws]) -> Draws:
    """The mean of several tasks' scores: seeds are the same, clusters are drawn for each alone.

    Of tasks with different numbers of seeds, only so many as all have.
    """
    seeds = min(len(own.values) for own in tasks)
    tasks = [Draws(own.values[:seeds], own.drawn[:, :seeds], own.clusters) for own in tasks]
    values = np.mean([own.values for own in tasks], axis=0)
    drawn = [
        np.random.default_rng([2, number]).permutation(own.drawn)  # all were drawn from one seed
        for number, own in enumerate(tasks)
    ]
    return Draws(values, np.mean(drawn, axis=0), sum(own.clusters for own in tasks))


def over_seeds(found: Draws, side: int = 0) -> Float[np.ndarray, " D"]:
    """The mean over as many drawn training seeds as there are; `side` draws other ones."""
    chosen = np.random.default_rng([1, side]).integers(0, found.drawn.shape[1], found.drawn.shape)
    return np.take_along_axis(found.drawn, chosen, axis=1).mean(1)


def _cluster_weights(
    clusters: Int[np.ndarray, " N"], draws: int, seed: int
) -> Iterator[Float[np.ndarray, "D N"]]:
    """How often each example counts, a bounded number of draws at a time."""
    rng = np.random.default_rng([seed, 0])
    count = int(clusters.max()) + 1
    at_once = max(1, CELLS // max(len(clusters), count))
    for first in range(0, draws, at_once):
        size = min(at_once, draws - first)
        chosen = rng.integers(0, count, (size, count))
        chosen += np.arange(size)[:, None] * count
        weights = np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count)
        yield weights[:, clusters].astype(np.float32)
