"""The stream of notes that `prepare` and `train_tokenizer` work on: read, cleaned, without copies.

Shows on stderr how far it is, at what rate, and how long it will take.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from medjax.config import UserError
from medjax.data.clean import clean
from medjax.data.config import CleaningConfig, SourceConfig
from medjax.data.dedup import ExactDuplicates
from medjax.data.sources import Note, Tally, read_notes

SECONDS_BETWEEN_LINES = 5.0


def stream_notes(
    sources: Sequence[SourceConfig],
    cleaning: CleaningConfig,
    tallies: Sequence[Tally],
    total_bytes: int,
    *,
    deduplicate: bool = True,
) -> Iterator[tuple[int, Note]]:
    """(index of its source, note) for every usable note; counts and drops go to `tallies`.

    Raises:
      UserError: when no note is left, with the counts of what was dropped.
    """
    duplicates = ExactDuplicates()
    progress = Progress(total_bytes)
    for index, (source, tally) in enumerate(zip(sources, tallies, strict=True)):
        for note in read_notes(source, tally):
            progress.show(tallies)
            text = clean(note.text, cleaning)
            if len(text) < cleaning.min_characters:
                reason = f"under {cleaning.min_characters} characters" if text else "empty text"
                tally.drops[reason] += 1
            elif deduplicate and not duplicates.is_new(text):
                tally.drops["exact duplicate"] += 1
            else:
                tally.documents += 1
                yield index, note._replace(text=text)
    if not any(t.documents for t in tallies):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in all_drops(tallies).items())
        raise UserError(f"no usable note among {sum(t.rows for t in tallies):,} rows ({reasons})")


def all_drops(tallies: Sequence[Tally]) -> dict[str, int]:
    """Dropped rows of all sources by reason, the most frequent first."""
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally.drops)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


class Progress:
    """One line every few seconds: rows, bytes, rate, time left."""

    def __init__(self, total_bytes: int):
        self.total_bytes = total_bytes
        self.begin = self.last = time.monotonic()

    def show(self, tallies: Sequence[Tally]) -> None:
        """Prints a line if it is time for one."""
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = now
        rows, done = sum(t.rows for t in tallies), sum(t.bytes_read for t in tallies)
        rate = done / (now - self.begin)
        left = duration((self.total_bytes - done) / rate) if rate else "unknown time"
        print(
            f"{rows:,} rows, {done / 1e6:,.1f} of {self.total_bytes / 1e6:,.1f} MB, "
            f"{rate / 1e6:,.2f} MB/s, {left} left",
            file=sys.stderr,
        )


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
