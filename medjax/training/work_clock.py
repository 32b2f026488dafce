"""Seconds of work: what tracing and compiling take is left out, as it is done once a program."""

from __future__ import annotations

import time
from typing import Self

from jax import monitoring

COMPILING = "/jax/core/compile/"


class WorkClock:
    """Counts the seconds of a `with` block, those of compilation apart."""

    def __enter__(self) -> Self:
        self._spans: list[tuple[float, float]] = []
        monitoring.register_event_time_span_listener(self._hear)
        self._begin = time.time()  # JAX's spans are by this clock
        return self

    def __exit__(self, *error: object) -> None:
        self._end = time.time()
        monitoring.unregister_event_time_span_listener(self._hear)

    def _hear(self, event: str, start: float, end: float, **about: str | int) -> None:
        if event.startswith(COMPILING):
            self._spans.append((start, end))

    @property
    def seconds(self) -> float:
        """Of the block, once it has ended."""
        return self._end - self._begin - self.compiling

    @property
    def compiling(self) -> float:
        """Seconds that were left out."""
        total, until = 0.0, self._begin
        for start, end in sorted(self._spans):  # one within another counts once
            total += max(end - max(start, until), 0.0)
            until = max(until, end)
        return total
