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


def interval(
    metrics: Sequence[Metric],
    clusters: Int[np.ndarray, " N"],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean over seeds and its percentile interval.

    Args:
      metrics: the same metric of each seed's predictions on the same examples.
      clusters: which cluster each example belongs to: 0, 1, ...
    """
    values = np.array([metric.value for metric in metrics])
    drawn = resample(metrics, clusters, draws, seed)
    low, high = np.nanpercentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    count = int(clusters.max()) + 1
    return Interval(float(values.mean()), deviation, float(low), float(high), len(metrics), count)


def compare(
    first: Sequence[Metric],
    second: Sequence[Metric],
    clusters: Int[np.ndarray, " N"],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """The difference of two models, clusters drawn jointly and the seeds of each on their own."""
    plain = np.mean([m.value for m in first]) - np.mean([m.value for m in second])
    drawn = resample(first, clusters, draws, seed) - resample(second, clusters, draws, seed, side=1)
    low, high = np.nanpercentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(
        float(plain), float(low), float(high), float(min(1.0, 2 * (beyond + 1) / (draws + 1)))
    )


def resample(
    metrics: Sequence[Metric],
    clusters: Int[np.ndarray, " N"],
    draws: int,
    seed: int,
    side: int = 0,
) -> Float[np.ndarray, " D"]:
    """The mean over drawn seeds of the metric on drawn clusters, in each draw.

    Equal `seed` draws equal clusters; `side` draws other training seeds.
    """
    of_seeds = np.random.default_rng([seed, 1, side])
    found = []
    for weights in _cluster_weights(clusters, draws, seed):
        values = np.stack([metric.of_weights(weights) for metric in metrics], axis=1)
        chosen = of_seeds.integers(0, len(metrics), values.shape)
        found.append(np.take_along_axis(values, chosen, axis=1).mean(1))
    return np.concatenate(found)


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
