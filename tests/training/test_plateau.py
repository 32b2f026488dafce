"""The unigram plateau against a stream whose frequencies are known."""

import numpy as np
import pytest

from medjax.data.shards import Split
from medjax.objectives.config import CausalLmConfig, SpanCorruptionConfig
from medjax.training.plateau import unigram_plateau


def test_it_is_the_entropy_over_all_shards_and_sentinels_cost_nothing():
    shards = [np.array([3, 3, 3, 9], np.uint16), np.array([9, 700, 700, 3], np.uint16)]
    split = Split(None, "validation", None, np.array([0, 4, 8]), {"tokens": shards})
    shares = np.array([4, 2, 2]) / 8
    entropy = -(shares * np.log(shares)).sum()
    assert unigram_plateau(split, CausalLmConfig()) == pytest.approx(entropy)
    config = SpanCorruptionConfig()  # 512 tokens in: 114 targets, 85 of which are text
    assert unigram_plateau(split, config) == pytest.approx(entropy * 85 / 114)
