"""Sources of notes: which files a source has, and one stream of `Note` over all their rows.

A row that cannot be used is dropped and counted by reason; a file that cannot be used is a
UserError that names file, row, byte and remedy. `readers.py` reads the formats; `prepare.py` and
`train_tokenizer.py` read through `read_notes`.
"""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medjax.config import UserError
from medjax.data.config import SourceConfig
from medjax.data.readers import DATASET_FILE, READERS, Row, open_file, size_on_disk, text_files

ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
}
COMPRESSED = ("csv", "tsv", "jsonl", "text")


class Note(NamedTuple):
    """A note as it was read."""

    text: str
    id: str
    patient: str | None
    source: str
    """Namespace of the patient id."""


@dataclass
class Tally:
    """What a pass over a source has met so far."""

    rows: int = 0
    documents: int = 0
    """Notes that were kept."""
    bytes_read: int = 0
    """Of files as they lie on the disk."""
    drops: Counter[str] = field(default_factory=Counter)
    """Rows left out, by reason."""


def read_notes(source: SourceConfig, tally: Tally) -> Iterator[Note]:
    """The notes of a source in order of file name and row.

    Raises:
      UserError: for a file that is missing, empty, damaged, without a column or not decodable.
    """
    done = 0
    for path in source_files(source):
        for number, row in enumerate(_rows(path, source), 1):
            tally.rows += 1
            tally.bytes_read = done + row.position
            problem = row.problem or _problem(row.values.get(source.text))
            if problem:
                tally.drops[problem] += 1
            else:
                yield _note(row, source, f"{path.name}:{number}")
        done += size_on_disk(path)
        tally.bytes_read = done


def check_sources(sources: Sequence[SourceConfig]) -> int:
    """Opens every file and reads its first row, so that a wrong name shows before the long work.

    Returns the size of all files in bytes.
    """
    size = 0
    for source in sources:
        for path in source_files(source):
            next(_rows(path, source))
            size += size_on_disk(path)
    return size


def source_files(source: SourceConfig) -> list[Path]:
    """Files of a source in order; a text folder and a `datasets` folder count as one.

    Raises:
      UserError: when there are none.
    """
    path = Path(source.path)
    if path.is_dir():
        files = [path] if _is_one_source(path, source) else _files_in(path, source)
    else:
        files = [path] if path.is_file() else sorted(map(Path, glob.glob(source.path)))
    if not files:
        wanted = ", ".join(e for e, f in ENDINGS.items() if source.format in ("auto", f))
        what = f"holds no file ending in {wanted}" if path.is_dir() else "no such file or folder"
        raise UserError(f"{source.path}: {what}; check `path` and `format` of this source")
    return files


def hash_files(source: SourceConfig) -> dict[str, str]:
    """SHA-256 of every file of a source, by its path."""
    found = {}
    for path in source_files(source):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with open_file(file) as stream:
                found[str(file)] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _rows(path: Path, source: SourceConfig) -> Iterator[Row]:
    """Rows of one file, of which there must be at least one."""
    rows = READERS[_format(path, source)](path, source)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: has no rows; remove it from the sources or export it again")
    yield first
    yield from rows


def _problem(text: object) -> str | None:
    """Why a value of the text column is no text."""
    if text is None or text == "":
        return "empty text"
    return None if isinstance(text, str) else "text is not a string"


def _note(row: Row, source: SourceConfig, place: str) -> Note:
    note_id = row.values.get(source.id) if source.id else row.name
    patient = row.values.get(source.patient) if source.patient else None
    return Note(
        text=row.values[source.text],
        id=place if note_id in (None, "") else str(note_id),
        patient=None if patient is None else str(patient).strip() or None,
        source=source.namespace,
    )


def _is_one_source(folder: Path, source: SourceConfig) -> bool:
    """Whether a folder is read as a whole: one of `datasets`, or of text files."""
    if source.format == "auto":
        is_dataset = (folder / DATASET_FILE).exists() or (folder / "dataset_dict.json").exists()
        return is_dataset or not _files_in(folder, source) and bool(text_files(folder))
    return source.format in ("text", "datasets")


def _files_in(folder: Path, source: SourceConfig) -> list[Path]:
    tables = [f for f in ENDINGS.values() if f != "text"]
    formats = tables if source.format == "auto" else [source.format]
    return sorted(p for p in folder.iterdir() if p.is_file() and _format_by_name(p) in formats)


def _format(path: Path, source: SourceConfig) -> str:
    """The format of one of a source's files."""
    if source.format != "auto":
        return source.format
    if path.is_dir():
        return "text" if text_files(path) else "datasets"
    found = _format_by_name(path)
    if found is None:
        raise UserError(
            f"{path}: unknown ending; set `format` of this source to csv, tsv, jsonl, parquet, "
            "text or datasets"
        )
    return found


def _format_by_name(path: Path) -> str | None:
    found = ENDINGS.get(path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix)
    return found if path.suffix != ".gz" or found in COMPRESSED else None
