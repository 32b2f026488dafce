"""Which words a tokenizer may learn from: those in the notes of several patients.

A vocabulary is published with its model, and a piece that one patient's notes alone hold can be a
name. Words between white space are counted over different patients (over notes, where a note has
no patient), exactly and on the disk; rarer ones are then taken out of the texts. Every piece of
several characters is thus part of a word of that many patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from medjax.data.buckets import Buckets, group_starts

if TYPE_CHECKING:
    import pyarrow as pa

BYTES_A_RECORD = 16  # of text, at least: most words are frequent ones, which are not recorded
LAST_CHARACTER = 0x10FFFF


class FrequentWords(NamedTuple):
    """What a first pass over the texts has found."""

    hashes: UInt64[np.ndarray, " W"]
    """Of the words that occur often enough, ascending."""
    characters: Counter[str]
    """How often each character occurs, also in rare words."""

    def keep(self, texts: Sequence[str]) -> list[str]:
        """The texts without their rare words; lines stay lines."""
        import pyarrow as pa
        import pyarrow.compute as pc

        words = _split(texts)
        kept = np.isin(words.hashes, self.hashes)
        ends = np.concatenate([[0], np.cumsum(kept)])[words.offsets]
        lists = pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), words.strings.filter(pa.array(kept))
        )
        return pc.replace_substring(pc.binary_join(lists, " "), " \n ", "\n").to_pylist()


class WordCounter:
    """Counts the patients of every word; filled with texts, then asked once."""

    def __init__(self, folder: Path, min_patients: int, total_bytes: int):
        """The folder takes temporary files, of numbers alone."""
        self.min_patients = min_patients
        self._characters = np.zeros(LAST_CHARACTER + 1, np.int64)
        self._settled = np.zeros(0, np.uint64)
        self._records = Buckets(folder, "words", total_bytes // BYTES_A_RECORD)

    def add(self, texts: Sequence[str], units: UInt64[np.ndarray, " N"]) -> None:
        """Counts texts of the given patients."""
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        self._characters += np.bincount(codes, minlength=LAST_CHARACTER + 1)
        words = _split(texts)
        pairs = np.empty(len(words.hashes), [("hash", "<u8"), ("unit", "<u8")])
        pairs["hash"] = words.hashes
        pairs["unit"] = np.repeat(units, np.diff(words.offsets))
        pairs = np.unique(pairs[~np.isin(pairs["hash"], self._settled)])
        settled = _at_least(self.min_patients, pairs["hash"])  # no need to count these further
        self._settled = np.union1d(self._settled, settled)
        pairs = pairs[~np.isin(pairs["hash"], settled)]
        self._records.add(pairs["hash"], pairs["unit"])

    def finish(self) -> FrequentWords:
        """Closes the count."""
        found = [self._settled]
        for records in self._records.sorted():
            found.append(_at_least(self.min_patients, np.unique(records)["hash"]))
        present = self._characters.nonzero()[0]
        counts = {chr(i): int(self._characters[i]) for i in present}
        return FrequentWords(np.unique(np.concatenate(found)), Counter(counts))


class _Split(NamedTuple):
    strings: pa.Array
    hashes: UInt64[np.ndarray, " W"]
    offsets: Int64[np.ndarray, " N+1"]


def _split(texts: Sequence[str]) -> _Split:
    """Words between spaces and newlines; a newline counts as one, as do two spaces in a row."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pandas.util import hash_array

    joined = pc.replace_substring(pa.array(texts, pa.string()), "\n", " \n ")
    lists = pc.split_pattern(joined, " ")
    strings = lists.flatten()
    encoded = strings.dictionary_encode()
    spelled = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    hashes = hash_array(spelled, categorize=False)[encoded.indices.to_numpy()]
    return _Split(strings, hashes, lists.offsets.to_numpy())


def _at_least(count: int, hashes: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " M"]:
    """Those of sorted hashes that occur so often."""
    rank = np.arange(len(hashes)) - group_starts(hashes)
    return hashes[rank == count - 1]
