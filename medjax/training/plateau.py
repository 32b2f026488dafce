"""The unigram plateau: where a model's loss first comes to rest, and what it must leave behind."""

from __future__ import annotations

import numpy as np

from medjax.data.shards import Split
from medjax.objectives.config import ObjectiveConfig
from medjax.objectives.span_corruption import plan_spans


def unigram_plateau(split: Split, objective: ObjectiveConfig) -> float:
    """Loss, in nats a predicted token, of knowing how frequent each token of a split is, no more.

    Of span corruption the sentinels and the end count too, which cost next to nothing.
    """
    counts = np.zeros(0, np.int64)
    for shard in split.arrays["tokens"]:
        own = np.bincount(shard, minlength=len(counts))
        own[: len(counts)] += counts
        counts = own
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    if objective.kind != "span_corruption":
        return entropy
    plan = plan_spans(objective.inputs_length, objective.noise_density, objective.mean_span_length)
    return entropy * plan.num_noise / plan.targets_length
