"""Examples from tables: classification, pairs, multi-label, marked entities, text to text.

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
from medjax.tasks.choices import LETTERS, letter_of, lettered, options_of
from medjax.tasks.config import FIELD, ColumnsConfig, TaskConfig
from medjax.tasks.examples import Example, Report


class Table(NamedTuple):
    """What the readers ask of a file: see `data/config.py`, SourceConfig."""

    columns: dict[str, str]
    text: str
    delimiter: str | None = None
    quote: str = '"'
    encoding: str = "utf-8"
    format: None = None
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
        text = _clean(_text(values, columns), config)
        pair = _clean(values[columns.text_pair], config) if columns.text_pair else None
        gold = _gold(values[columns.label], config) if columns.label else None
        if columns.options:
            options = options_of(values, columns)
            gold = letter_of(gold, options, columns.options_from) if columns.label else None
            listed = lettered(options)
            if pair is None:
                text = f"{text}\n{listed}"
            else:
                pair = f"{pair}\n{listed}"
        yield Example(
            id=example_id,
            text=text,
            text_pair=pair,
            gold=gold,
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
    texts = columns.of_text
    roles = ("text", "text_pair") if columns.template is None else texts
    named = dict(zip(roles, texts, strict=False)) | {"label": columns.label}
    named |= {f"option {n}": n for n in columns.of_options}
    named |= {"id": columns.id, "group": columns.group} | {f"meta {n}": n for n in columns.meta}
    wanted = {role: name for role, name in named.items() if name is not None}
    table = Table(wanted, texts[0], config.delimiter, config.quote, config.encoding)
    return READERS[kind](file, table)


def _problem(row: Row, config: TaskConfig) -> str | None:
    columns = config.columns
    for name in columns.of_text:
        value = row.values[name]
        if value is None or (isinstance(value, str) and not value.strip()):
            return f"empty {name}"
        if not isinstance(value, str):
            return f"{name} is not a string"
    if columns.options:
        options = options_of(row.values, columns)
        if len(options) < 2 or len(options) > len(LETTERS):
            return f"options: not 2 to {len(LETTERS)} texts"
        label = columns.label and _label(row.values[columns.label])
        if label and letter_of(label, options, columns.options_from) is None:
            return "label is none of the options"
    if columns.label is None:
        return None
    if row.values[columns.label] is None or row.values[columns.label] == "":
        return None if config.kind in ("multilabel", "text_to_text") else "no label"
    return None


def _text(values: dict[str, Any], columns: ColumnsConfig) -> str:
    """The text of a row; a template's columns lose the white space at their ends."""
    if columns.template is None:
        return values[columns.text]
    text = FIELD.sub(lambda field: values[field[1]].strip(), columns.template)
    return text if text.endswith(columns.ending) else text + columns.ending


def _gold(value: Any, config: TaskConfig) -> Any:
    if config.kind == "multilabel":
        if isinstance(value, list | tuple):
            return tuple(_label(item) for item in value)
        parts = (value or "").split(config.label_separator) if config.label_separator else [value]
        return tuple(_label(part) for part in parts if part is not None and str(part).strip())
    if config.kind == "text_to_text":
        return _clean(value or "", config)
    return _label(value)


def _label(value: Any) -> str:
    """A class name: 1, 1.0 and "1" are the same one."""
    return plain_id(value) or ""


def _clean(text: str, config: TaskConfig) -> str:
    return clean(text, config.cleaning) if config.cleaning else text
