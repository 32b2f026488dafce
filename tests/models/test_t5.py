"""What only T5 has: the buckets of its relative positions."""

import numpy as np
import pytest

from medjax.models.config import T5Config
from medjax.models.t5 import relative_buckets


def test_buckets():
    """Exact up to half of a side's buckets, then growing ranges, then one for all that is far."""
    distances = np.arange(-200, 201)
    buckets = dict(zip(distances, relative_buckets(distances, True, 32, 128), strict=True))
    assert [buckets[-d] for d in (0, 1, 7, 8, 11, 12, 15, 16, 127, 200)] == (
        [0, 1, 7, 8, 8, 9, 9, 10, 15, 15]
    )
    assert [buckets[d] for d in (1, 7, 200)] == [17, 23, 31]
    one_sided = relative_buckets(distances, False, 32, 128)
    assert not one_sided[distances >= 0].any()
    assert one_sided[distances == -16] == 16 and one_sided.max() == 31
    assert (np.diff(one_sided) <= 0).all()


def test_a_distance_that_leaves_no_range_is_refused():
    with pytest.raises(ValueError, match="relative_attention_max_distance 16 must be above"):
        T5Config(relative_attention_max_distance=16)
