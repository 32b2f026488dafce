"""Opening files: compressed or not, with sentences for what cannot be read; lists of ids.

`readers.py` reads notes through it, `hold_out.py` and `physionet.py` lists of patients.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from medjax.config import UserError


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files)


def hash_tree(path: str | Path) -> dict[str, str]:
    """SHA-256 of a file, of all files below a folder, or of what a pattern matches, by path."""
    path = Path(path)
    found = [path] if path.exists() else sorted(map(Path, glob.glob(str(path))))
    files = [f for p in found for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
    sums = {}
    for file in files or [path]:
        if not file.is_dir():
            with open_file(file) as stream:
                sums[str(file)] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def open_file(path: Path) -> BinaryIO:
    """Opens for reading; a UserError names what cannot be read."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def bytes_of(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """A file's content, uncompressed, and a function that tells the position on the disk."""
    with open_file(path) as raw:
        if not path.stat().st_size:
            raise UserError(f"{path}: is empty; remove it or export it again")
        if path.suffix == ".gz":
            with _unzipped(path, raw) as content:
                yield content, raw.tell
        elif path.suffix == ".zst":
            with _unpacked(path, raw) as content:
                yield content, raw.tell
        else:
            yield raw, raw.tell


@contextlib.contextmanager
def _unzipped(path: Path, raw: BinaryIO) -> Iterator[BinaryIO]:
    try:
        with gzip.open(raw) as content:
            yield content
    except EOFError:
        raise UserError(f"{path}: gzip ends too early; copy or export it again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise UserError(f"{path}: gzip is damaged; copy or export it again") from None


@contextlib.contextmanager
def _unpacked(path: Path, raw: BinaryIO) -> Iterator[BinaryIO]:
    import pyarrow as pa

    try:
        with io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), 2**20) as content:
            yield content
    except OSError as error:
        how = "ends too early" if "Truncated" in str(error) else "is damaged"
        raise UserError(f"{path}: zstd {how}; copy or export it again") from None


def read_ids(path: Path, column: str | None = None) -> set[str]:
    """Ids in a CSV or TSV column, or one a line; a column that is not there in any case is refused.

    Without header, a file of one column is read whole whatever `column` says.
    """
    with bytes_of(path) as (content, _):
        lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        try:
            delimiter = "\t" if ".tsv" in path.suffixes else ","
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except (UnicodeDecodeError, csv.Error):
            raise UserError(f"{path}: is no list of ids in UTF-8; export it again") from None
    if not rows:
        raise UserError(f"{path}: holds no id; remove it or export it again")
    header = [name.strip().lower() for name in rows[0]]
    if column and column.lower() in header:
        place, rows = header.index(column.lower()), rows[1:]
    elif len(header) == 1:
        place = 0
    else:
        what = f"no column {column!r}" if column else f"{len(header)} columns"
        raise UserError(f"{path}: {what}; set the `column` of the ids to one of its header")
    return {plain_id(row[place]) for row in rows if len(row) > place} - {None}


def plain_id(value: Any) -> str | None:
    """An id as text: 123 and 123.0, as exports of columns with gaps write it, are one."""
    if value is None:
        return None
    text = str(value).strip()
    whole, point, decimals = text.partition(".")
    return (whole if point and whole.isdigit() and not decimals.strip("0") else text) or None
