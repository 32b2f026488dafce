"""CLIP (Mullenbach et al. 2021) as PhysioNet hands it out: sentences of discharge summaries, each
with the kinds of follow-up that it holds.

A split is a file of document ids, one a line (`train_ids.csv`, `val_ids.csv`, `test_ids.csv`);
`sentence_level.csv` beside it has the sentences of all documents: doc_id, sent_index, and the words
and labels as Python lists. Every sentence is an example that is seen in its document.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from medjax.config import UserError
from medjax.data.readers import READERS
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example, Report
from medjax.tasks.tables import Table

SENTENCES = "sentence_level.csv"
PREFIX = "I-"


def read_clip(path: str, config: TaskConfig, report: Report) -> Iterator[Example]:
    """The sentences of the documents that `path` lists, in their order; a document is a group.

    Raises:
      UserError: a file is missing or of another form, or a document has no sentences.
    """
    wanted = _ids(Path(path))
    documents = _documents(Path(path).parent / SENTENCES, set(wanted), config)
    missing = [name for name in wanted if name not in documents]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of its {len(wanted)} documents have no sentences in "
            f"{SENTENCES} ({missing[0]} is one); take both files from the same release"
        )
    for name in wanted:
        rows = sorted(documents[name])
        document = tuple(text for _, text, _ in rows)
        for place, (index, text, labels) in enumerate(rows):
            report.rows += 1
            report.examples += 1
            yield Example(
                f"{name}:{index}", text, gold=labels, group=name, document=document, place=place
            )


def _ids(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give CLIP's train_ids.csv (val, test)")
    lines = path.read_text(encoding="utf-8-sig").split()
    return list(dict.fromkeys(line.strip(",") for line in lines))


def _documents(
    path: Path, wanted: set[str], config: TaskConfig
) -> dict[str, list[tuple[int, str, tuple[str, ...]]]]:
    """(sent_index, text, labels) of the documents' sentences."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; it must stand beside the lists of ids")
    names = ("doc_id", "sent_index", "sentence", "labels")
    table = Table({name: name for name in names}, "sentence", encoding=config.encoding)
    found: dict[str, list[tuple[int, str, tuple[str, ...]]]] = defaultdict(list)
    for number, row in enumerate(READERS["csv"](path, table), 2):
        if row.problem:
            raise UserError(f"{path}, row {number}: {row.problem}")
        document, index, words, labels = (row.values[name] for name in names)
        if document not in wanted:
            continue
        try:
            own = tuple(str(label).removeprefix(PREFIX) for label in ast.literal_eval(labels))
            text = " ".join(map(str, ast.literal_eval(words)))
            found[document].append((int(index), text, own))
        except (ValueError, SyntaxError, TypeError):
            raise UserError(
                f"{path}, row {number}: sent_index must be a number, sentence and labels lists as "
                "Python writes them"
            ) from None
    return found
