"""Reads a task: every split's examples, the labels, and what happened on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from medjax.config import UserError
from medjax.tasks.clip import read_clip
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import SPLITS, TRAIN, Example, Report, TaskData
from medjax.tasks.forms import read_forms
from medjax.tasks.question_answering import read_squad
from medjax.tasks.relations import read_relations
from medjax.tasks.splits import count_leaks, divide, refuse_leaks
from medjax.tasks.tables import read_table
from medjax.tasks.tagging import read_tagging

READERS: dict[str, Callable[[str, TaskConfig, Report], Iterator[Example]]] = {
    "table": read_table,
    "iob": read_tagging,
    "brat": read_tagging,
    "pubtator": read_tagging,
    "spans": read_tagging,
    "squad": read_squad,
    "clip": read_clip,
    "forms": read_forms,
}
MANY_NUMBERS = 50  # classes that are numbers: more look like a measurement


def read_task(config: TaskConfig) -> TaskData:
    """All splits, with class indices in the place of labels.

    Raises:
      UserError: a file cannot be used, a class of validation or test is unknown, a class has a
        single example, or the splits are not apart.
    """
    reader = reader_of(config)
    if config.file_format == "table" and config.columns.label is None:
        raise UserError("columns.label is missing: it names the column to be learnt")
    splits: dict[str, list[Example]] = {}
    reports: dict[str, Report] = {}
    for split in SPLITS:
        path = config.path(split)
        if path is not None:
            reports[split] = Report()
            splits[split] = list(reader(path, config, reports[split]))
            if not splits[split]:
                reasons = ", ".join(f"{n:,} {r}" for r, n in reports[split].excluded.items())
                raise UserError(f"{path}: no example in it ({reasons or 'no rows'})")
    splits = divide(splits, config.split)
    refuse_leaks(count_leaks(splits), allowed=config.allow_leaks)
    labels = _labels(splits, config)
    numbered = {split: _number(splits[split], labels, config, split) for split in splits}
    return TaskData(tuple(labels), numbered, reports)


def reader_of(config: TaskConfig) -> Callable[[str, TaskConfig, Report], Iterator[Example]]:
    """The function that reads a file of this task."""
    if config.kind == "relations" and config.file_format == "pubtator":
        return read_relations
    return READERS[config.file_format]


def _labels(splits: dict[str, list[Example]], config: TaskConfig) -> list[str]:
    if config.kind in ("question_answering", "text_to_text"):
        return []
    counts: Counter[str] = Counter(
        label for example in splits[TRAIN] for label in _names(example, config)
    )
    labels = config.labels or sorted(counts)
    single = [label for label in labels if counts[label] == 1]
    if config.kind in ("classification", "relations") and config.labels is None:
        if single:
            raise UserError(
                f"class {single[0]!r} has one example in train; merge it with another, leave it "
                "out, or list all classes in labels to keep it"
            )
        if len(labels) < 2:
            raise UserError(f"there is one class in train ({labels[0]!r}); check columns.label")
        if len(labels) > MANY_NUMBERS and all(_is_number(label) for label in labels):
            raise UserError(f"{len(labels)} classes that are numbers: is this a measurement?")
    if config.no_relation is not None and config.no_relation not in labels:
        raise UserError(
            f"no_relation {config.no_relation!r} is no class of train; there are "
            f"{', '.join(map(repr, labels))}"
        )
    return labels


def _number(
    examples: list[Example], labels: list[str], config: TaskConfig, split: str
) -> list[Example]:
    if not labels:
        return examples
    index = {label: i for i, label in enumerate(labels)}
    unknown = Counter(n for e in examples for n in _names(e, config) if n not in index)
    if unknown:
        name, count = unknown.most_common(1)[0]
        raise UserError(
            f"{split}: {count:,} examples have the label {name!r}, which train has not "
            f"({len(unknown)} such labels); correct them, or list all classes in labels"
        )
    if config.kind == "tagging":
        return examples
    if config.kind == "multilabel":
        return [e._replace(gold=tuple(sorted({index[n] for n in e.gold}))) for e in examples]
    return [e._replace(gold=index[e.gold]) for e in examples]


def _names(example: Example, config: TaskConfig) -> list[str]:
    if config.kind == "tagging":
        return [span.type for span in example.gold]
    return list(example.gold) if config.kind == "multilabel" else [example.gold]


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
