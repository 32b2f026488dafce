"""Joins by sorting, on the disk: records go to bucket files by hash, each small enough to sort.

Whatever the number of records, memory holds one bucket at a time. Used for duplicates (`dedup.py`)
and for counts of different patients and ids (`prepare.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from medjax.data.output import explain_write_errors

BUCKET_RECORDS = 2**22  # about 200 MB while it is sorted
MAX_BUCKETS = 512  # open files
RECORD = np.dtype([("hash", "<u8"), ("value", "<u8")])


class Buckets:
    """A multiset of (hash, value) on the disk; filled once, then read sorted, bucket by bucket."""

    def __init__(self, folder: Path, name: str, expected: int):
        """So many records are `expected`: they decide the number of files."""
        count = min(expected // BUCKET_RECORDS + 1, MAX_BUCKETS)
        self.bits = (count - 1).bit_length()
        self.paths = [folder / f"{name}-{i:03d}.bucket" for i in range(2**self.bits)]
        with explain_write_errors(folder), contextlib.ExitStack() as stack:
            self._files = [stack.enter_context(open(path, "wb")) for path in self.paths]
            self._open = stack.pop_all()

    def add(self, hashes: UInt64[np.ndarray, " N"], values: Int64[np.ndarray, " N"]) -> None:
        """Appends records; hashes must be well mixed."""
        records = np.empty(len(hashes), RECORD)
        records["hash"], records["value"] = hashes, values
        bucket = (hashes >> np.uint64(64 - self.bits)) if self.bits else np.zeros_like(hashes)
        order = np.argsort(bucket, kind="stable")
        records = records[order]
        edges = np.searchsorted(bucket[order], np.arange(len(self.paths) + 1, dtype=np.uint64))
        with explain_write_errors(self.paths[0].parent):
            for file, start, end in zip(self._files, edges[:-1], edges[1:], strict=True):
                if end > start:
                    file.write(records[start:end].tobytes())

    def sorted(self) -> Iterator[np.ndarray]:
        """Every bucket's records, sorted by hash and value; each file is deleted when read."""
        with explain_write_errors(self.paths[0].parent):
            self._open.close()
        for path in self.paths:
            records = np.fromfile(path, RECORD)
            path.unlink()
            yield records[np.lexsort((records["value"], records["hash"]))]


def group_starts(hashes: UInt64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """For each of sorted hashes, where the run of equal ones begins that it belongs to."""
    is_first = np.ones(len(hashes), bool)
    is_first[1:] = hashes[1:] != hashes[:-1]
    return np.maximum.accumulate(np.where(is_first, np.arange(len(hashes)), 0))
