"""Examples from tables: classification, pairs, multi-label, sentences with marked entities.

The files are read as notes are (`data/readers.py`): CSV, TSV, JSON lines, Parquet, .xlsx and
`datasets` folders, with the same errors. A row that cannot be used is excluded and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from medjax.config import UserError
from medjax.data.clean import clean
from medjax.data.files import plain_id
from medjax.data.readers import READERS, Row
from medjax.data.sources import ENDINGS
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example, Report


class Table(NamedTuple):
    """What the readers ask of a file: see `data/config.py`, SourceConfig."""

    columns: dict[str, str]
    text: str
    delimiter: str | None
    quote: str
    encoding: str
    sheet: None = None


def read_table(path: str, config: TaskConfig, report: Report) -> Iterator[Example]:
    """Examples whose `gold` is still the label's text, or a tuple of them.

    Raises:
      UserError: the file or a column is missing, or the file cannot be read.
    """
    columns = config.columns
    for number, row in enumerate(read_rows(path, config), 1):
        report.rows += 1
        problem = row.problem or _problem(row, config)
        if problem:
            report.excluded[problem] += 1
            continue
        values = row.values
        own_id = plain_id(values.get(columns.id)) if columns.id else None
        example_id = own_id or f"{Path(path).name}:{number}"
        report.examples += 1
        yield Example(
            id=example_id,
            text=_clean(values[columns.text], config),
            text_pair=_clean(values[columns.text_pair], config) if columns.text_pair else None,
            gold=_gold(values[columns.label], config),
            group=plain_id(values.get(columns.group)) or example_id,
            meta=tuple((name, str(values[name])) for name in columns.meta),
        )


def read_rows(path: str, config: TaskConfig) -> Iterator[Row]:
    """The rows of a table, with the configured columns."""
    file, columns = Path(path), config.columns
    if not file.exists():
        raise UserError(f"{path}: no such file; check the task's paths")
    suffix = file.with_suffix("").suffix if file.suffix in (".gz", ".zst") else file.suffix
    kind = "datasets" if file.is_dir() else ENDINGS.get(suffix, "text")
    if kind == "text":  # of a task it can only be JSON lines, as SciBERT's .txt files are
        kind = "jsonl"
    named = {"text": columns.text, "text_pair": columns.text_pair, "label": columns.label}
    named |= {"id": columns.id, "group": columns.group} | {f"meta {n}": n for n in columns.meta}
    wanted = {role: name for role, name in named.items() if name is not None}
    table = Table(wanted, columns.text, config.delimiter, config.quote, config.encoding)
    return READERS[kind](file, table)


def _problem(row: Row, config: TaskConfig) -> str | None:
    columns = config.columns
    for name in filter(None, (columns.text, columns.text_pair)):
        value = row.values[name]
        if value is None or (isinstance(value, str) and not value.strip()):
            return f"empty {name}"
        if not isinstance(value, str):
            return f"{name} is not a string"
    if row.values[columns.label] is None or row.values[columns.label] == "":
        return None if config.kind == "multilabel" else "no label"
    return None


def _gold(value: Any, config: TaskConfig) -> Any:
    if config.kind == "multilabel":
        if isinstance(value, list | tuple):
            return tuple(_label(item) for item in value)
        parts = (value or "").split(config.label_separator) if config.label_separator else [value]
        return tuple(_label(part) for part in parts if part is not None and str(part).strip())
    return _label(value)


def _label(value: Any) -> str:
    """A class name: 1, 1.0 and "1" are the same one."""
    return plain_id(value) or ""


def _clean(text: str, config: TaskConfig) -> str:
    return clean(text, config.cleaning) if config.cleaning else text
