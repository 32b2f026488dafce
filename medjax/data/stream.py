"""The stream of notes that `prepare` and `train_tokenizer` work on: read in one process, cleaned
and fingerprinted in several, handed back in order.

The reading process only parses files. Everything that costs time by the byte (cleaning, keys,
MinHash signatures, the search for evaluation examples) runs in workers, which are started afresh
(no fork of a process with threads) and end with the process that started them.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.config import UserError
from medjax.data.clean import clean
from medjax.data.config import CleaningConfig, SourceConfig
from medjax.data.contamination import Contamination
from medjax.data.dedup import signatures, text_key
from medjax.data.hold_out import REASON as HELD_OUT
from medjax.data.hold_out import HoldOut
from medjax.data.sources import Note, Tally, read_notes
from medjax.data.split import split_unit
from medjax.data.spool import NOTE, Piece

BATCH_CHARACTERS = 2**20
MAX_WORKERS = 8  # each takes about 200 MB
AHEAD = 2  # batches a worker that may wait
FEW = 8  # batches from which on workers are started


class Recipe(NamedTuple):
    """What is done to a note, besides reading it."""

    cleaning: CleaningConfig
    threshold: float | None = None
    """Jaccard similarity of near-duplicates; None: no signatures."""
    contamination: Contamination | None = None


def read_all(
    sources: Sequence[SourceConfig],
    tallies: Sequence[Tally],
    scratch: Path,
    hold_out: HoldOut | None = None,
) -> Iterator[tuple[int, Note]]:
    """(index of its source, note) of every note that is not held out, always in the same order."""
    for index, (source, tally) in enumerate(zip(sources, tallies, strict=True)):
        for note in read_notes(source, tally, scratch):
            if hold_out and hold_out.is_held_out(note.source, note.patient):
                tally.drops[HELD_OUT] += 1
            else:
                yield index, note


def process_notes(notes: Iterable[tuple[int, Note]], recipe: Recipe) -> Iterator[Piece]:
    """The notes cleaned and fingerprinted, in pieces of about a million characters, in order."""
    batches = _batches(iter(notes))
    few = list(islice(batches, FEW))
    if len(few) < FEW:  # done before a worker would have started
        yield from (process(batch, recipe) for batch in few)
        return
    batches = chain(few, batches)
    count = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future] = deque()
    with ProcessPoolExecutor(count, context, _start_worker, (recipe,)) as pool:
        try:
            while True:
                for batch in islice(batches, AHEAD * count - len(waiting)):
                    waiting.append(pool.submit(_process, batch))
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed (out of memory?); free some memory and run it again"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def add_counts(info: dict, tallies: Sequence[Tally]) -> None:
    """Adds what a chunk of the spool counted in cleaning to the tallies of the sources."""
    for name in ("drops", "notices"):
        for source, counts in info[name].items():
            getattr(tallies[int(source)], name).update(counts)


def process(batch: Sequence[tuple[int, Note]], recipe: Recipe) -> Piece:
    """Cleans a batch; what `process_notes` does, in this process."""
    texts, rows = [], []
    drops: dict[int, Counter[str]] = {}
    notices: dict[int, Counter[str]] = {}
    for index, note in batch:
        text = clean(note.text, recipe.cleaning, notices.setdefault(index, Counter()))
        reason = _unusable(text, recipe.cleaning)
        if reason:
            drops.setdefault(index, Counter())[reason] += 1
            continue
        texts.append(text)
        key = np.frombuffer(text_key(text), "<u8")
        unit = key if note.patient is None else np.frombuffer(split_unit(note), "<u8")
        identity = f"{index}\0{note.id}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "little")
        rows.append((key, unit, number, index, note.patient is not None))
    return Piece(texts, _arrays(texts, rows, recipe), drops, notices, len(batch))


def _arrays(texts: list[str], rows: list[tuple], recipe: Recipe) -> dict[str, np.ndarray]:
    arrays = {"notes": np.array(rows, NOTE), "hits": np.zeros((0, 2), np.int64)}
    if recipe.threshold is not None:
        found = signatures(texts, recipe.threshold)
        arrays |= {"signatures": found.values, "bands": found.bands}
    if recipe.contamination is not None:
        arrays["hits"] = recipe.contamination.check(texts)
    return arrays


def _unusable(text: str, cleaning: CleaningConfig) -> str | None:
    if not text:
        return "empty text"
    if len(text) < cleaning.min_characters:
        return f"under {cleaning.min_characters:,} characters"
    if len(text) > cleaning.max_characters:
        return f"over {cleaning.max_characters:,} characters"
    return None


def _batches(notes: Iterator[tuple[int, Note]]) -> Iterator[list[tuple[int, Note]]]:
    batch: list[tuple[int, Note]] = []
    size = 0
    for item in notes:
        batch.append(item)
        size += len(item[1].text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _start_worker(recipe: Recipe) -> None:
    import pyarrow as pa

    global _recipe
    _recipe = recipe
    pa.set_cpu_count(1)  # the workers themselves are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _process(batch: list[tuple[int, Note]]) -> Piece:
    return process(batch, _recipe)
