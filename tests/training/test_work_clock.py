"""Seconds of work are those between compilations."""

import time

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from medjax.training.work_clock import WorkClock


def test_spans_within_each_other_count_once_and_others_not_at_all():
    with WorkClock() as clock:
        time.sleep(0.2)
        end = time.time()
        for name, back in (("compile/a", 0.15), ("compile/b", 0.1), ("other", 0.2)):
            monitoring.record_event_time_span(f"/jax/core/{name}", end - back, end)
    assert clock.seconds == pytest.approx(0.05, abs=0.04)


def test_what_is_compiled_is_left_out():
    def slow_to_compile(x):
        for _ in range(150):
            x = jnp.sort(jnp.sin(x) + jnp.roll(x, 1))
        return x

    start = time.time()
    with WorkClock() as clock:
        jax.block_until_ready(jax.jit(slow_to_compile)(jnp.arange(8.0)))
    assert clock.seconds < (time.time() - start) / 2
