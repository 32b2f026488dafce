"""Sources of notes: which files a source has, and one stream of `Note` over all their rows.

A row that cannot be used is dropped and counted by reason; a file that cannot be used is a
UserError that names file, row, byte and remedy. `readers.py` reads the formats; `prepare.py` and
`train_tokenizer.py` read through `read_notes`.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medjax.config import UserError
from medjax.data.config import SourceConfig
from medjax.data.files import hash_tree, plain_id, size_on_disk
from medjax.data.join_rows import join_rows
from medjax.data.physionet import OFFICIAL_NAMES, Mimic3Rules, official_files
from medjax.data.readers import DATASET_FILE, READERS, Row, text_files

ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".txt": "text",
}
COMPRESSIONS = (".gz", ".zst")
COMPRESSED = ("csv", "tsv", "jsonl", "text")
EXCEL_LIMIT = 32_767  # characters of a cell


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
    notices: Counter[str] = field(default_factory=Counter)
    """What was repaired or is worth a look in rows that were kept."""

    def to_json(self) -> dict:
        """As plain values."""
        return vars(self) | {"drops": dict(self.drops), "notices": dict(self.notices)}

    @classmethod
    def from_json(cls, values: dict) -> Tally:
        """From what `to_json` gave."""
        counters = {name: Counter(values[name]) for name in ("drops", "notices")}
        return cls(**values | counters)


def read_notes(source: SourceConfig, tally: Tally, scratch: Path) -> Iterator[Note]:
    """The notes of a source in order of file name and row, always the same.

    Args:
      scratch: folder for temporary files, which hold text; the caller removes it.

    Raises:
      UserError: for a file that is missing, empty, damaged, without a column or not decodable.
    """
    done = 0
    for path in source_files(source):
        rules = Mimic3Rules(source, _rows(path, source)) if source.format == "mimic3" else None
        rows = _counted(_rows(path, source), tally, done)
        if source.join_by:
            rows = join_rows(rows, source, scratch, size_on_disk(path), tally.drops)
        for number, row in enumerate(rows):
            problem = row.problem or _problem(row.values.get(source.text))
            if rules and not problem:
                problem = rules.problem(number, row.values)
            if problem:
                tally.drops[problem] += 1
                continue
            _notice(row.values[source.text], path, tally.notices)
            yield _note(row, source, f"{path.name}:{number + 1}")
        if rules:
            tally.notices.update(rules.notices)
        done += size_on_disk(path)
        tally.bytes_read = done


def identities(source: SourceConfig) -> Iterator[tuple[str, str | None]]:
    """(id, patient) of every row of a source that has both columns."""
    for path in source_files(source):
        for row in _rows(path, source):
            if row.problem is None:
                note = plain_id(row.values[source.id])
                if note is not None:
                    yield note, plain_id(row.values[source.patient])


def read_texts(source: SourceConfig) -> Iterator[str]:
    """The text column of every row of a source where it is a text."""
    for path in source_files(source):
        for row in _rows(path, source):
            text = row.values.get(source.text)
            if row.problem is None and isinstance(text, str):
                yield text


def _counted(rows: Iterator[Row], tally: Tally, done: int) -> Iterator[Row]:
    for row in rows:
        tally.rows += 1
        tally.bytes_read = done + row.position
        yield row


def _notice(text: str, path: Path, notices: Counter[str]) -> None:
    if "\0" in text:
        notices["NUL characters removed"] += 1
    if path.suffix == ".xlsx" and len(text) == EXCEL_LIMIT:
        notices[f"{EXCEL_LIMIT:,} characters, Excel's limit: probably cut"] += 1


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
    if source.format in OFFICIAL_NAMES:
        files = official_files(source)
    elif path.is_dir():
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
    found: dict[str, str] = {}
    for path in source_files(source):
        found |= hash_tree(path)
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
    return Note(
        text=row.values[source.text],
        id=plain_id(note_id) or place,
        patient=plain_id(row.values.get(source.patient)) if source.patient else None,
        source=source.namespace,
    )


def _is_one_source(folder: Path, source: SourceConfig) -> bool:
    """Whether a folder is read as a whole: one of `datasets`, or of a file for each note."""
    if source.format == "auto":
        is_dataset = (folder / DATASET_FILE).exists() or (folder / "dataset_dict.json").exists()
        return is_dataset or not _files_in(folder, source) and bool(text_files(folder))
    return source.format in ("text", "json", "datasets")


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
            "xlsx, text or datasets"
        )
    return found


def _format_by_name(path: Path) -> str | None:
    is_compressed = path.suffix in COMPRESSIONS
    found = ENDINGS.get(path.with_suffix("").suffix if is_compressed else path.suffix)
    return found if not is_compressed or found in COMPRESSED else None
