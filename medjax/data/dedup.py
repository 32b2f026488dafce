"""Duplicates among the notes, before the split: exact, and near by MinHash.

Exact: equal but for white space. Near: the sets of word 5-grams of two notes overlap by a Jaccard
similarity of at least the threshold, estimated on 128 permutations (Broder 1997). Notes that share
a band of their signatures are candidates (Leskovec et al., Mining of Massive Datasets, section
3.4), joined by sorting on the disk (`buckets.py`); each is compared with the first and with the
previous note of its group. Of duplicates the first note stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt16, UInt64

from medjax.data.buckets import Buckets, group_starts
from medjax.data.spool import Spool
from medjax.data.word_hashes import MULTIPLIER, ngrams, plain_words

PERMUTATIONS = 128
SHINGLE = 5
SEED = 1
RECALL = 0.9  # of pairs exactly at the threshold that bands must find
PAIRS = 2**17  # compared at a time
KEPT, EXACT, NEAR = range(3)
REASONS = {EXACT: "exact duplicate", NEAR: "near duplicate"}


def text_key(text: str) -> bytes:
    """16 bytes that are the same for texts which differ in white space alone."""
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()


def rows_per_band(threshold: float) -> int:
    """The longest bands that find RECALL of the pairs at the threshold; longer ones cost less."""
    for rows in (32, 16, 8, 4, 2):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL:
            return rows
    return 1


class Signatures(NamedTuple):
    """MinHash signatures of a batch of texts."""

    values: UInt16[np.ndarray, "N P"]
    """The lowest 16 bits of each permutation's minimum: enough to estimate the similarity."""
    bands: UInt64[np.ndarray, "N B"]
    """A hash for each band of the whole minima; 0 where a text has under 5 words."""


def signatures(texts: Sequence[str], threshold: float) -> Signatures:
    """The signatures of texts; one of under 5 words can only be an exact duplicate."""
    from rensa import RMinHash

    words = plain_words(texts)
    hashes, whole = ngrams(words, SHINGLE)
    counts = np.bincount(words.texts[: len(hashes)][whole], minlength=len(texts))
    offsets = np.concatenate([[0], np.cumsum(counts)]).tolist()
    rows = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes[whole].tolist(), offsets, PERMUTATIONS, SEED
    ).to_rows()
    minima = np.array(rows, np.uint64).reshape(len(texts), PERMUTATIONS)
    per_band = rows_per_band(threshold)
    bands = np.zeros((len(texts), PERMUTATIONS // per_band), np.uint64)
    bands += np.arange(1, bands.shape[1] + 1, dtype=np.uint64)  # a band is like its own kind alone
    with np.errstate(over="ignore"):
        for i in range(per_band):
            bands = (bands ^ minima[:, i::per_band]) * MULTIPLIER
            bands ^= bands >> np.uint64(31)
    bands[counts == 0] = 0
    return Signatures(minima.astype(np.uint16), bands)


def find_duplicates(spool: Spool, threshold: float | None) -> UInt8[np.ndarray, " N"]:
    """KEPT, EXACT or NEAR for every note of the spool; without a threshold no near ones."""
    dropped = np.zeros(spool.notes, np.uint8)
    _mark_exact(spool, dropped)
    if threshold is not None:
        _mark_near(spool, dropped, threshold)
    return dropped


def _mark_exact(spool: Spool, dropped: UInt8[np.ndarray, " N"]) -> None:
    buckets = Buckets(spool.folder, "exact", spool.notes)
    for start, rows in spool.pieces("notes"):
        buckets.add(rows["key"][:, 0], np.arange(start, start + len(rows)))
    for records in buckets.sorted():
        value = records["value"].astype(np.int64)
        first = value[group_starts(records["hash"])]
        later = value != first
        one, other = value[later], first[later]
        same = spool.gather("notes", one)["key"] == spool.gather("notes", other)["key"]
        dropped[one[same.all(axis=1)]] = EXACT


def _mark_near(spool: Spool, dropped: UInt8[np.ndarray, " N"], threshold: float) -> None:
    bands = spool.columns("bands")
    buckets = Buckets(spool.folder, "near", int((dropped == KEPT).sum()) * bands)
    for start, rows in spool.pieces("bands"):
        place = np.arange(start, start + len(rows))
        chosen = (rows[:, 0] != 0) & (dropped[place] == KEPT)
        buckets.add(rows[chosen].ravel(), np.repeat(place[chosen], bands))
    for records in buckets.sorted():
        value, starts = records["value"].astype(np.int64), group_starts(records["hash"])
        later = np.flatnonzero(starts != np.arange(len(starts)))
        for before in (starts[later], later - 1):
            open_ = dropped[value[later]] == KEPT
            one, other = value[later[open_]], value[before[open_]]
            dropped[one[_alike(spool, one, other, threshold)]] = NEAR


def _alike(
    spool: Spool, one: Int64[np.ndarray, " M"], other: Int64[np.ndarray, " M"], threshold: float
) -> Bool[np.ndarray, " M"]:
    """Whether pairs of notes reach the threshold, on their whole signatures."""
    result = np.zeros(len(one), bool)
    for start in range(0, len(one), PAIRS):
        part = slice(start, start + PAIRS)
        a, b = (spool.gather("signatures", notes[part]) for notes in (one, other))
        result[part] = (a == b).mean(axis=1) >= threshold
    return result
