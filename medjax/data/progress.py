"""How far a long command is, at what rate, and how long it will take; on stderr."""

from __future__ import annotations

import sys
import time

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """One line every few seconds of a stage: bytes, rate, time left."""

    def __init__(self, stage: str, total_bytes: int, skipped: int = 0):
        """`skipped` bytes were done by an earlier run and say nothing of the rate."""
        self.stage, self.total, self.skipped = stage, total_bytes, skipped
        self.begin = self.last = time.monotonic()

    def show(self, done: int, what: str = "") -> None:
        """Prints a line if it is time for one; `what` adds to it."""
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        rate = max(done - self.skipped, 0) / (now - self.begin)
        left = duration((self.total - done) / rate) if rate else "unknown time"
        print(
            f"{self.stage}: {done / 1e6:,.1f} of {self.total / 1e6:,.1f} MB, "
            f"{rate / 1e6:,.2f} MB/s, {left} left{what}",
            file=sys.stderr,
        )

    def end(self, done: int) -> None:
        """Says how long the stage took."""
        seconds = time.monotonic() - self.begin
        rate = (done - self.skipped) / 1e6 / max(seconds, 1e-9)
        print(f"{self.stage}: done in {seconds:,.1f} s, {rate:,.2f} MB/s", file=sys.stderr)


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
