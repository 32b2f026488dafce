"""Row readers: one file or folder of a format becomes an iterator of rows.

Messages never hold text of a note: errors of pyarrow and datasets, which print values, are raised
anew without them. `sources.py` picks the reader (`READERS`) and makes notes of its rows.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import difflib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from medjax.config import UserError
from medjax.data.config import SourceConfig
from medjax.data.files import bytes_of, open_file, size_on_disk

DATASET_FILE = "state.json"  # what datasets.save_to_disk leaves in a split's folder
BATCH_ROWS = 1000
DELIMITERS = ",;\t|"
MAX_NAME = 64  # a longer column name is a sign of a missing header, whose first row is a note


class Row(NamedTuple):
    """A row of a file, or why it cannot be used."""

    values: dict[str, Any]
    """The wanted columns."""
    position: int
    """Bytes of the file, as it lies on the disk, that have been read."""
    problem: str | None = None
    """Reason to drop it."""
    name: str | None = None
    """Stands for an id where there is no such column."""


def text_files(folder: Path) -> list[Path]:
    """Every text file below a folder, in order."""
    endings = ("*.txt", "*.txt.gz", "*.txt.zst")
    return sorted(p for e in endings for p in folder.rglob(e) if p.is_file())


def check_columns(
    path: Path, wanted: Mapping[str, str], columns: Sequence[str], *, are_names: bool = True
) -> None:
    """Every wanted column (by role) is there.

    Args:
      are_names: false for the first row of a file, which may be a note: it is shown only if it
        has one of the wanted columns, or one of nearly that name.

    Raises:
      UserError: naming the columns there are and the nearest.
    """
    missing = [role for role, column in wanted.items() if column not in columns]
    if not missing:
        return
    place = f"{path}: no column {wanted[missing[0]]!r} (`{missing[0]}`)"
    lower = {c.lower(): c for c in columns}
    near = difflib.get_close_matches(wanted[missing[0]].lower(), lower, n=1, cutoff=0.6)
    if not are_names and (
        any(len(c) > MAX_NAME or "\n" in c for c in columns)
        or not near
        and len(missing) == len(set(wanted))
    ):
        raise UserError(
            f"{place} among the {len(columns):,} of the first row (not shown, as it may be a note);"
            " add a header line, or name the column that it has"
        )
    hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
    names = ", ".join(map(repr, columns)) or "none"
    raise UserError(f"{place}; there are {names}{hint}")


def _wanted(source: SourceConfig) -> list[str]:
    return list(dict.fromkeys(source.columns.values()))


def _codec(path: Path, source: SourceConfig) -> str:
    try:
        name = codecs.lookup(source.encoding).name
    except LookupError:
        raise UserError(
            f"{path}: unknown `encoding` {source.encoding!r}; use utf-8, cp1252, latin-1, ..."
        ) from None
    if name != "utf-8":
        return name
    if path.is_file():
        with bytes_of(path) as (content, _):
            start = content.read(64)
        if (
            start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            or start.count(b"\0") > len(start) // 4
        ):
            raise UserError(
                f"{path}: begins as UTF-16 does; set `encoding: utf-16` of this source, or convert "
                "the file"
            )
    return "utf-8-sig"  # a byte order mark is no part of the text


def _read_delimited(path: Path, source: SourceConfig) -> Iterator[Row]:
    """CSV and TSV with a header; quoted fields may hold line breaks."""
    encoding = _codec(path, source)
    try:
        with (
            bytes_of(path) as (content, tell),
            io.TextIOWrapper(content, encoding=encoding, newline="") as lines,
        ):
            yield from _delimited_rows(path, source, lines, tell)
    except UnicodeDecodeError:
        _refuse_encoding(path, source, encoding)


def _delimited_rows(
    path: Path, source: SourceConfig, lines: Any, tell: Callable[[], int]
) -> Iterator[Row]:
    reader = _csv_reader(path, source, lines)
    try:
        header = next(reader, [])
        _check_header(path, source, header, reader.dialect.delimiter)
        places = {column: header.index(column) for column in _wanted(source)}
        for row in reader:
            if len(row) == len(header):
                yield Row({column: row[place] for column, place in places.items()}, tell())
            elif row:
                yield Row({}, tell(), "wrong number of columns")
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error}; export with quotes inside fields doubled, "
            "or set `quote: ''` where the file has no quoting"
        ) from None


def _check_header(path: Path, source: SourceConfig, header: list[str], delimiter: str) -> None:
    """A delimited file's first row: the columns, rightly divided."""
    others = [d for d in DELIMITERS if d != delimiter and header and d in header[0]]
    if len(header) == 1 and others and header[0] not in source.columns.values():
        raise UserError(
            f"{path}: its first row is one column at delimiter {delimiter!r} and holds "
            f"{others[0]!r}; set `delimiter` of this source"
        )
    check_columns(path, source.columns, header, are_names=False)


def _csv_reader(path: Path, source: SourceConfig, lines: Any) -> Any:
    csv.field_size_limit(2**31 - 1)
    is_tsv = source.format == "tsv" or ".tsv" in path.suffixes
    quoting = csv.QUOTE_MINIMAL if source.quote else csv.QUOTE_NONE
    return csv.reader(
        lines,
        delimiter=source.delimiter or ("\t" if is_tsv else ","),
        quotechar=source.quote or None,
        quoting=quoting,
        strict=True,
    )


def _refuse_encoding(path: Path, source: SourceConfig, encoding: str) -> NoReturn:
    """Reads the file again to find the first byte that cannot be decoded, and its row."""
    place = str(path)
    if encoding == "utf-8-sig":
        with bytes_of(path) as (content, _):
            lines = io.TextIOWrapper(content, encoding, errors="surrogateescape", newline="")
            for number, fields in enumerate(_csv_reader(path, source, lines)):
                if any("\udc80" <= c <= "\udcff" for c in "".join(fields)):
                    place += f", row {number}" if number else ", header"
                    break
    _refuse_byte(place, _undecodable_byte(path, encoding), source)


def _undecodable_byte(path: Path, encoding: str) -> int:
    decoder = codecs.getincrementaldecoder(encoding)()
    start = 0
    with bytes_of(path) as (content, _):
        while chunk := content.read(2**20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return start - pending + error.start
            start += len(chunk)
    return start - len(decoder.getstate()[0])  # it ends within a character


def _refuse_byte(place: str, byte: int, source: SourceConfig) -> NoReturn:
    likely = "cp1252 or latin-1" if source.encoding.lower().startswith("utf") else "utf-8"
    raise UserError(
        f"{place}, byte {byte:,}: not valid {source.encoding}; set `encoding:` of this source "
        f"(often {likely}) or convert the file"
    ) from None


def _read_jsonl(path: Path, source: SourceConfig) -> Iterator[Row]:
    """JSON lines: the first must be an object with the columns; later ones may be dropped."""
    encoding = _codec(path, source)
    start, first = 0, True
    with bytes_of(path) as (content, tell):
        for number, line in enumerate(content, 1):
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                _refuse_byte(f"{path}, line {number}", start + error.start, source)
            start += len(line)
            if not text.strip():
                continue
            row = _json_object(text)
            if first:
                _check_first_object(path, source, row, number)
                first = False
            if row is None:
                yield Row({}, tell(), "not a JSON object")
            else:
                yield Row({c: row.get(c) for c in _wanted(source)}, tell())


def _json_object(text: str) -> dict | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _check_first_object(path: Path, source: SourceConfig, row: dict | None, number: int) -> None:
    if row is None:
        raise UserError(
            f"{path}, line {number}: not a JSON object; JSON lines have one object a line "
            "(set `format` where this is another)"
        )
    check_columns(path, source.columns, list(row))


def _read_parquet(path: Path, source: SourceConfig) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            check_columns(path, source.columns, file.schema_arrow.names)
            size, total, done = size_on_disk(path), file.metadata.num_rows, 0
            for batch in file.iter_batches(BATCH_ROWS, columns=_wanted(source)):
                done += batch.num_rows
                for row in batch.to_pylist():
                    yield Row(row, size * done // total)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        _refuse_library_error(path, "Parquet file", error)


def _read_dataset(path: Path, source: SourceConfig) -> Iterator[Row]:
    """A folder of `datasets.save_to_disk`; its Arrow files are mapped, nothing is cached."""
    if (path / "dataset_dict.json").exists():
        splits = sorted(p.parent.name for p in path.glob(f"*/{DATASET_FILE}"))
        raise UserError(
            f"{path}: holds several splits ({', '.join(splits)}); give the path of one of them, "
            f"{path}/{splits[0] if splits else '...'}"
        )
    import datasets
    import pyarrow as pa

    try:
        dataset = datasets.load_from_disk(str(path))
        check_columns(path, source.columns, dataset.column_names)
        size, done = size_on_disk(path), 0
        for table in dataset.select_columns(_wanted(source)).with_format("arrow").iter(BATCH_ROWS):
            done += table.num_rows
            for row in table.to_pylist():
                yield Row(row, size * done // len(dataset))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        _refuse_library_error(path, "datasets folder", error)


def _read_xlsx(path: Path, source: SourceConfig) -> Iterator[Row]:
    """A sheet of a workbook whose first row names the columns; formulas as their stored values."""
    import openpyxl

    open_file(path).close()
    try:
        with contextlib.closing(
            openpyxl.load_workbook(path, read_only=True, data_only=True)
        ) as book:
            sheets = book.sheetnames
            if source.sheet and source.sheet not in sheets:
                names = ", ".join(map(repr, sheets))
                raise UserError(f"{path}: no sheet {source.sheet!r}; there are {names}")
            sheet = book[source.sheet or sheets[0]]
            rows = sheet.iter_rows(values_only=True)
            header = ["" if c is None else str(c) for c in next(rows, ())]
            check_columns(path, source.columns, header, are_names=False)
            places = {column: header.index(column) for column in _wanted(source)}
            size, total = size_on_disk(path), max(sheet.max_row or 1, 2) - 1
            for number, row in enumerate(rows, 1):
                if any(cell is not None for cell in row):
                    values = {column: row[place] for column, place in places.items()}
                    yield Row(values, min(size, size * number // total))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, SyntaxError) as error:
        _refuse_library_error(path, "workbook (.xlsx)", error)


def _refuse_library_error(path: Path, what: str, error: Exception) -> NoReturn:
    """Without the library's message, which may print rows."""
    raise UserError(
        f"{path}: cannot be read as a {what} ({type(error).__name__}); copy or export it again"
    ) from None


def _read_text(path: Path, source: SourceConfig) -> Iterator[Row]:
    """A text file is one note; of a folder, every .txt file below it, named by its path there."""
    encoding = _codec(path, source)
    files = [path] if path.is_file() else text_files(path)
    position = 0
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        position += file.stat().st_size
        if not file.stat().st_size:
            yield Row({}, position, "empty text")
            continue
        with bytes_of(file) as (content, _):
            data = content.read()
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            _refuse_byte(str(file), error.start, source)
        yield Row({source.text: text}, position, name=name)


def _read_json(path: Path, source: SourceConfig) -> Iterator[Row]:
    """A JSON file is one note, an object; of a folder, every .json file below it (E3C's layers)."""
    encoding = _codec(path, source)
    position = 0
    for file in [path] if path.is_file() else sorted(path.rglob("*.json")):
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        data = file.read_bytes()
        position += len(data)
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            _refuse_byte(str(file), error.start, source)
        row = _json_object(text)
        if row is None:
            yield Row({}, position, "not a JSON object")
            continue
        if position == len(data):
            check_columns(file, source.columns, list(row))
        yield Row({c: row.get(c) for c in _wanted(source)}, position, name=name)


READERS: dict[str, Callable[[Path, SourceConfig], Iterator[Row]]] = {
    "csv": _read_delimited,
    "tsv": _read_delimited,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "xlsx": _read_xlsx,
    "mimic3": _read_delimited,
    "mimic4": _read_delimited,
    "text": _read_text,
    "json": _read_json,
    "datasets": _read_dataset,
}
