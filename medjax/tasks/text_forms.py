"""Every task as text: what a T5 reads, what it is to write, and what its output says.

The inputs are those of Lehman et al. 2023 (their code): `question: ... context: ...` for questions,
labels joined by commas, the empty text for none. What names no label is wrong, never left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from medjax.config import UserError
from medjax.tasks.config import TaskConfig
from medjax.tasks.entities import (
    AFTER_TYPE,
    EntityForm,
    folded,
    locate,
    read_entities,
    write_entities,
)
from medjax.tasks.examples import Example
from medjax.tasks.question_answering import Found

SEPARATOR = ", "
UNKNOWN = -1


class Written(NamedTuple):
    """A text as a prediction."""

    text: str


class Parsed(NamedTuple):
    """What an output says."""

    value: object
    """As in `decode.Predictions`."""
    understood: bool = True
    """False where it, or a part of it, has no meaning for the task."""


def source(example: Example, config: TaskConfig) -> str:
    """What the encoder reads, before it is cut to length."""
    if config.kind == "question_answering":
        return f"question: {example.text_pair.strip()} context: {example.text}"
    if example.text_pair is not None:
        return f"sentence1: {example.text} sentence2: {example.text_pair}"
    return example.text


def check_labels(labels: Sequence[str], config: TaskConfig) -> None:
    """Refuses names that could not be told apart in an output.

    Raises:
      UserError: two names differ in case or white space alone, or hold a separator.
    """
    separator = _separator(config)
    forms: dict[str, str] = {}
    for label in labels:
        other = forms.setdefault(folded(label), label)
        if other != label:
            raise UserError(
                f"the labels {other!r} and {label!r} are the same text for a T5; rename one"
            )
        if config.kind == "multilabel" and separator in label:
            raise UserError(
                f"label {label!r} holds {separator!r}, which stands between labels in what a T5 "
                "writes; set task.label_separator"
            )
        if config.kind == "tagging" and AFTER_TYPE.strip() in label:
            raise UserError(f"label {label!r} holds a colon, which ends it in what a T5 writes")


def target(
    example: Example,
    labels: Sequence[str],
    config: TaskConfig,
    seen: tuple[int, int],
    form: EntityForm = "plain",
) -> str:
    """What the decoder is to write.

    Args:
      seen: tagging: first character and end of what the row holds of the text.
      form: tagging: how entities are written.
    """
    if config.kind == "text_to_text":
        return example.gold
    if config.kind == "question_answering":
        return example.gold[0].text if example.gold else ""
    if config.kind == "multilabel":
        return _separator(config).join(labels[i] for i in example.gold)
    if config.kind == "tagging":
        return write_entities(example.gold, example.text, seen, form)
    return labels[example.gold]


def parse(
    output: str,
    example: Example,
    labels: Sequence[str],
    config: TaskConfig,
    seen: tuple[int, int],
    form: EntityForm = "plain",
) -> Parsed:
    """The prediction that an output stands for.

    Entities are looked for in the text (`entities.locate`). An answer that is not in the context
    has no offsets.
    """
    output = output.strip()
    if config.kind == "text_to_text":
        return Parsed(Written(output))
    if config.kind == "question_answering":
        return Parsed(_answer(output, example.text))
    names = {folded(label): i for i, label in enumerate(labels)}
    if config.kind == "multilabel":
        parts = [part for part in output.split(_separator(config).strip()) if part.strip()]
        found = [names.get(folded(part), UNKNOWN) for part in parts]
        known = tuple(sorted({i for i in found if i != UNKNOWN}))
        return Parsed(known, UNKNOWN not in found)
    if config.kind == "tagging":
        types = {name: labels[i] for name, i in names.items()}
        return Parsed(*locate(read_entities(output, form), example.text, types, seen))
    value = names.get(folded(output), UNKNOWN)
    return Parsed(value, value != UNKNOWN)


def _separator(config: TaskConfig) -> str:
    return config.label_separator or SEPARATOR


def _answer(output: str, context: str) -> Found | None:
    if not output:
        return None
    match = re.search(r"\s+".join(map(re.escape, output.split())), context)
    start, end = match.span() if match else (UNKNOWN, UNKNOWN)
    return Found(output, start, end, float("-inf"))
