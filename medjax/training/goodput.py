"""Where the time of a run goes: the share that is spent in training steps, and what takes the rest.

Kept over restarts: what a restart cost (steps done twice, and the time in which nothing ran) counts
as lost. Times are those of one process, on the clock.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

PHASES = ("steps", "start", "compilation", "data", "checkpoint", "evaluation", "lost")


class Goodput:
    """Seconds by phase; every moment belongs to one."""

    def __init__(self, earlier: Mapping[str, float] | None = None):
        """earlier: seconds of what the run did before."""
        self._seconds = Counter(earlier or {})
        self._phase = "start"
        self._since = self._begin = time.monotonic()

    def resume(self, earlier: Mapping[str, float], saved_at: float | None) -> None:
        """Adds what was saved; from then until this process began, time was lost.

        Args:
          saved_at: in seconds since 1970; None where the run had come to its end.
        """
        self._seconds += Counter(earlier)
        if saved_at is not None:
            lost = time.time() - saved_at - (time.monotonic() - self._begin)
            self._seconds["lost"] += max(lost, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time within counts as this phase's."""
        before = self._enter(name)
        try:
            yield
        finally:
            self._enter(before)

    def _enter(self, name: str) -> str:
        now = time.monotonic()
        self._seconds[self._phase] += now - self._since
        self._since, before, self._phase = now, self._phase, name
        return before

    def move(self, seconds: float, name: str) -> None:
        """Counts some of the current phase's time as another's."""
        self._enter(self._phase)
        self._seconds[self._phase] -= seconds
        self._seconds[name] += seconds

    def seconds(self) -> dict[str, float]:
        """By phase, so far."""
        self._enter(self._phase)
        return {name: round(self._seconds[name], 3) for name in PHASES}

    def share(self) -> float:
        """Of the time in steps."""
        own = self.seconds()
        return round(own["steps"] / max(sum(own.values()), 1e-9), 4)

    def line(self) -> str:
        """For the log."""
        own = self.seconds()
        total = max(sum(own.values()), 1e-9)
        parts = [f"{name} {value / total:.1%}" for name, value in own.items() if value]
        return f"{total / 3600:.2f} hours: {', '.join(parts)}"


def write_goodput(run_dir: Path, goodput: Goodput) -> None:
    """`goodput.json`: seconds by phase."""
    text = json.dumps(goodput.seconds(), indent=1) + "\n"
    (run_dir / "goodput.json").write_text(text, encoding="utf-8")
