"""Which of the spooled notes go into which split, and why others go nowhere.

Everything is decided from the records of the spool, with one bucket of them in memory at a time;
the result is a byte a note. `prepare.py` calls it between reading and tokenizing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from medjax.data import contamination as contaminated
from medjax.data.buckets import Buckets, group_starts
from medjax.data.config import PrepareConfig
from medjax.data.contamination import Contamination
from medjax.data.dedup import KEPT, REASONS, find_duplicates
from medjax.data.manifest import EvaluationInfo
from medjax.data.sources import Tally
from medjax.data.split import TRAIN, VALIDATION, split_of
from medjax.data.spool import Spool
from medjax.data.word_hashes import MULTIPLIER

NOWHERE = 255
SPLITS = (TRAIN, VALIDATION)


class Selection(NamedTuple):
    """Where every note goes."""

    splits: UInt8[np.ndarray, " N"]
    """Place in SPLITS, or NOWHERE."""
    patients: dict[str, int]
    """Different patients in each split."""
    evaluations: list[EvaluationInfo]


def select(
    spool: Spool,
    config: PrepareConfig,
    contamination: Contamination | None,
    tallies: Sequence[Tally],
) -> Selection:
    """Leaves out duplicates and, where asked, notes with evaluation examples; splits the others.

    `tallies` (of each source) get the numbers of notes kept and left out by reason.
    """
    dropped = np.zeros(spool.notes, np.uint8)
    if config.deduplicate != "none":
        dropped = find_duplicates(spool, config.threshold)
    reasons, infos = dict(REASONS), []
    if contamination is not None:
        hits = spool.hits()
        hits = hits[dropped[hits[:, 0]] == KEPT]
        code = max(reasons) + 1
        reasons[code] = contaminated.REASON
        dropped[contamination.to_remove(hits)] = code
        by_id = [h.evaluation for h in config.hold_out if h.evaluation]
        infos = contamination.report(hits, by_id)
    _count(spool, dropped, reasons, tallies)
    _count_repeated_ids(spool, tallies)
    splits = _splits(spool, dropped, config)
    return Selection(splits, _patients(spool, splits), infos)


def _count(spool: Spool, dropped: np.ndarray, reasons: dict, tallies: Sequence[Tally]) -> None:
    for start, rows in spool.pieces("notes"):
        source, why = rows["source"], dropped[start : start + len(rows)]
        for index, tally in enumerate(tallies):
            found = np.bincount(why[source == index], minlength=max(reasons) + 1)
            tally.documents += int(found[KEPT])
            for code, reason in reasons.items():
                if found[code]:
                    tally.drops[reason] += int(found[code])


def _count_repeated_ids(spool: Spool, tallies: Sequence[Tally]) -> None:
    buckets = Buckets(spool.folder, "ids", spool.notes)
    for _, rows in spool.pieces("notes"):
        buckets.add(rows["id"], rows["source"].astype(np.int64))
    for records in buckets.sorted():
        later = group_starts(records["hash"]) != np.arange(len(records))
        found = np.bincount(records["value"][later].astype(np.int64), minlength=len(tallies))
        for tally, count in zip(tallies, found.tolist(), strict=True):
            if count:
                tally.notices["id of an earlier note (kept)"] += count


def _splits(spool: Spool, dropped: np.ndarray, config: PrepareConfig) -> np.ndarray:
    splits = np.full(spool.notes, NOWHERE, np.uint8)
    for start, rows in spool.pieces("notes"):
        kept = np.flatnonzero(dropped[start : start + len(rows)] == KEPT)
        for place in kept.tolist():
            unit = rows["unit"][place].tobytes()
            unit = unit if rows["has_patient"][place] else b"document\0" + unit
            name = split_of(unit, config.seed, config.validation_fraction)
            splits[start + place] = SPLITS.index(name)
    return splits


def _patients(spool: Spool, splits: np.ndarray) -> dict[str, int]:
    buckets = Buckets(spool.folder, "patients", spool.notes)
    for start, rows in spool.pieces("notes"):
        own = splits[start : start + len(rows)]
        chosen = rows["has_patient"] & (own != NOWHERE)
        with np.errstate(over="ignore"):
            unit = rows["unit"][chosen, 0] ^ rows["unit"][chosen, 1] * MULTIPLIER
        buckets.add(unit, own[chosen].astype(np.int64))
    counts = np.zeros(len(SPLITS), np.int64)
    for records in buckets.sorted():
        first = group_starts(records["hash"]) == np.arange(len(records))
        split = records["value"][first].astype(np.int64)
        counts += np.bincount(split, minlength=len(SPLITS))
    return dict(zip(SPLITS, counts.tolist(), strict=True))
