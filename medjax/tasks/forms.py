"""Case report forms: a note and the items that are to be filled in from it, each with options.

JSON lines: `{"id": ..., "text": ..., "items": [{"item": ..., "options": [...], "value": ...}]}`. An
item is an example: the note, then item and options; its class is the value. As `relations` with
`no_relation: unknown` the score counts what is known alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medjax.config import UserError
from medjax.data.files import plain_id
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example, Report
from medjax.tasks.tables import read_rows

ITEMS = "items"


def read_forms(path: str, config: TaskConfig, report: Report) -> Iterator[Example]:
    """An example for each item; gold is still the value's text.

    Raises:
      UserError: the file cannot be read, or `items` is no list.
    """
    columns = config.columns
    own = columns.model_copy(update={"label": ITEMS, "text_pair": None, "template": None})
    for number, row in enumerate(read_rows(path, config.model_copy(update={"columns": own})), 1):
        report.rows += 1
        values = row.values
        text = values.get(columns.text)
        if row.problem or not isinstance(text, str) or not text.strip():
            report.excluded[row.problem or f"empty {columns.text}"] += 1
            continue
        if not isinstance(values[ITEMS], list):
            raise UserError(f"{path}, form {number}: `items` is no list of items")
        name = plain_id(values.get(columns.id)) if columns.id else None
        name = name or f"{Path(path).name}:{number}"
        for item in values[ITEMS]:
            problem = _problem(item, labelled=columns.label is not None)
            if problem:
                report.excluded[problem] += 1
                continue
            report.examples += 1
            yield Example(
                id=f"{name}:{item['item']}",
                text=text,
                text_pair=f"{item['item']} ({'; '.join(item['options'])})",
                gold=str(item["value"]) if columns.label else None,
                group=plain_id(values.get(columns.group)) or name,
                meta=tuple((column, str(values[column])) for column in columns.meta),
            )


def _problem(item: Any, *, labelled: bool) -> str | None:
    if not isinstance(item, dict) or not isinstance(item.get("item"), str):
        return "item without a name"
    options = item.get("options")
    if not isinstance(options, list) or not all(isinstance(own, str) for own in options):
        return "item without a list of options"
    if labelled and item.get("value") is None:
        return "item without a value"
    if labelled and str(item["value"]) not in options:
        return "value is none of the item's options"
    return None
