"""What a task is made of, whatever file it came from: examples, their gold, the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")


class Span(NamedTuple):
    """A stretch of text with a type, as tagging marks it."""

    fragments: tuple[tuple[int, int], ...]
    """First character and end; more than one pair where the entity is discontinuous."""
    type: str


class Answer(NamedTuple):
    """An extractive answer and the character of the context at which it begins."""

    text: str
    start: int


class Example(NamedTuple):
    """One labelled item."""

    id: str
    text: str
    """For question answering the context."""
    text_pair: str | None = None
    """The second text of a pair; for question answering the question."""
    gold: Any = None
    """classification, relations: index of the class; multilabel: tuple of indices; tagging: tuple
    of Span; question_answering: tuple of Answer (empty: no answer); text_to_text: the text. Until a
    task's labels are known, names stand for indices."""
    group: str = ""
    """What stays together in splits and intervals: patient, document, report, premise; else id."""
    meta: tuple[tuple[str, str], ...] = ()
    """Columns by which results are sliced."""
    words: tuple[tuple[int, int], ...] = ()
    """tagging: the words of the text."""
    document: tuple[str, ...] = ()
    """All sentences of the document, where a sentence is seen in its context (clip)."""
    place: int = 0
    """Which of them the text is."""


@dataclass
class Report:
    """What happened to the rows of one split's files."""

    rows: int = 0
    examples: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    """Rows that are no examples, by reason."""
    repaired: Counter[str] = field(default_factory=Counter)
    """What was put right in rows that are."""


class TaskData(NamedTuple):
    """A task's labels and examples."""

    labels: tuple[str, ...]
    """Class names in order of their index; types of spans; empty for answers."""
    splits: dict[str, list[Example]]
    reports: dict[str, Report]


def text_bytes(examples: Sequence[Example]) -> int:
    """UTF-8 bytes of the texts and their pairs."""
    texts = (text for own in examples for text in (own.text, own.text_pair or ""))
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
