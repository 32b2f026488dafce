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
from medjax.tasks.examples import Example, Span
from medjax.tasks.question_answering import Found

SEPARATOR = ", "
BETWEEN_SPANS = "; "
AFTER_TYPE = ": "
UNKNOWN = -1
NO_TYPE = "no type"  # in the place of what was written, which may be text of the note


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
        other = forms.setdefault(_plain(label), label)
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
    example: Example, labels: Sequence[str], config: TaskConfig, seen: tuple[int, int]
) -> str:
    """What the decoder is to write.

    Args:
      seen: tagging: first character and end of what the row holds of the text.
    """
    if config.kind == "text_to_text":
        return example.gold
    if config.kind == "question_answering":
        return example.gold[0].text if example.gold else ""
    if config.kind == "multilabel":
        return _separator(config).join(labels[i] for i in example.gold)
    if config.kind == "tagging":
        spans = sorted(s for s in example.gold if _is_writable(s, example.text, seen))
        return BETWEEN_SPANS.join(
            f"{span.type}{AFTER_TYPE}{_words(_covered(example.text, span))}" for span in spans
        )
    return labels[example.gold]


def parse(
    output: str,
    example: Example,
    labels: Sequence[str],
    config: TaskConfig,
    seen: tuple[int, int],
) -> Parsed:
    """The prediction that an output stands for.

    Entities are found from left to right where their words stand next; one that stands nowhere is a
    span outside of the text, which is wrong. An answer that is not in the context has no offsets.
    """
    output = output.strip()
    if config.kind == "text_to_text":
        return Parsed(Written(output))
    if config.kind == "question_answering":
        return Parsed(_answer(output, example.text))
    names = {_plain(label): i for i, label in enumerate(labels)}
    if config.kind == "multilabel":
        parts = [part for part in output.split(_separator(config).strip()) if part.strip()]
        found = [names.get(_plain(part), UNKNOWN) for part in parts]
        known = tuple(sorted({i for i in found if i != UNKNOWN}))
        return Parsed(known, UNKNOWN not in found)
    if config.kind == "tagging":
        return _spans(output, example.text, {n: labels[i] for n, i in names.items()}, seen)
    value = names.get(_plain(output), UNKNOWN)
    return Parsed(value, value != UNKNOWN)


def entity_strings(output: str, labels: Sequence[str]) -> frozenset[tuple[str, str]]:
    """(type, words) of the entities that an output of tagging names, in small letters."""
    types, found = {_plain(label): label for label in labels}, []
    for part in re.split(rf"{BETWEEN_SPANS.strip()}|\n", output):
        name, colon, mention = part.partition(AFTER_TYPE.strip())
        kind = types.get(_plain(name))
        if colon and kind and mention.strip():
            found.append((kind, _words(mention).casefold()))
    return frozenset(found)


def gold_strings(example: Example) -> frozenset[tuple[str, str]]:
    """The same of the gold entities of an example."""
    spans = ((span.type, _covered(example.text, span)) for span in example.gold)
    return frozenset((kind, _words(text).casefold()) for kind, text in spans)


def _separator(config: TaskConfig) -> str:
    return config.label_separator or SEPARATOR


def _plain(text: str) -> str:
    """Names that differ in case and white space are the same."""
    return "".join(text.casefold().split())


def _words(text: str) -> str:
    return " ".join(text.split())


def _is_writable(span: Span, text: str, seen: tuple[int, int]) -> bool:
    """Whether a span is one piece, within what is seen, and without the separator."""
    (start, end), *others = span.fragments
    inside = seen[0] <= start and end <= seen[1]
    return inside and not others and BETWEEN_SPANS.strip() not in text[start:end]


def _covered(text: str, span: Span) -> str:
    return text[span.fragments[0][0] : span.fragments[-1][1]]


def _spans(output: str, text: str, types: dict[str, str], seen: tuple[int, int]) -> Parsed:
    found, understood = [], True
    cursor = seen[0]
    for number, part in enumerate(p for p in output.split(BETWEEN_SPANS.strip()) if p.strip()):
        name, colon, mention = part.partition(AFTER_TYPE.strip())
        kind, words = types.get(_plain(name)), mention.split()
        place = _next(words, text, cursor, seen) if colon and kind and words else None
        if place is None:
            understood = False
            nowhere = -2 - number - 1000 * seen[0]  # apart from all others, so that each counts
            found.append(Span(((nowhere, nowhere),), kind or NO_TYPE))
            continue
        cursor = place[1]
        found.append(Span((place,), kind))
    return Parsed(tuple(dict.fromkeys(found)), understood)


def _next(
    words: Sequence[str], text: str, cursor: int, seen: tuple[int, int]
) -> tuple[int, int] | None:
    """Where the words stand next, else where they stand first."""
    letters = "".join(words)
    before, after = (r"\b" if c.isalnum() else "" for c in (letters[0], letters[-1]))
    spaced = r"\s*".join(map(re.escape, letters))
    pattern = re.compile(f"{before}{spaced}{after}", re.IGNORECASE)
    match = pattern.search(text, cursor, seen[1]) or pattern.search(text, seen[0], seen[1])
    return match.span() if match else None


def _answer(output: str, context: str) -> Found | None:
    if not output:
        return None
    match = re.search(r"\s+".join(map(re.escape, output.split())), context)
    start, end = match.span() if match else (UNKNOWN, UNKNOWN)
    return Found(output, start, end, float("-inf"))
