"""Entities as text: how they are written, and where what was written stands in a text.

Plain they are `kind: words` with semicolons between them; as JSON, a list of objects, each with a
`type` and a `text`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from medjax.tasks.examples import Example, Span

EntityForm = Literal["plain", "json"]
BETWEEN_SPANS = "; "
AFTER_TYPE = ": "
UNHELD: dict[EntityForm, str] = {"plain": BETWEEN_SPANS.strip(), "json": '"\\'}
"""What words that are held to a passage of the text have none of, so that none needs an escape."""
NO_TYPE = "no type"  # in the place of what was written, which may be text of the note


class Mention(NamedTuple):
    """An entity as it is written; two empty texts stand for what cannot be read."""

    type: str = ""
    text: str = ""


def folded(text: str) -> str:
    """Names that differ in case and white space alone are the same."""
    return "".join(text.casefold().split())


def write_entities(
    spans: Sequence[Span], text: str, seen: tuple[int, int], form: EntityForm
) -> str:
    """The entities of a text that can be written: of one piece, within what is seen, and plain
    without a semicolon."""
    found = []
    for span in sorted(spans):
        (start, end), *others = span.fragments
        words = _words(text[start:end])
        unwritable = form == "plain" and UNHELD[form] in words
        if seen[0] <= start and end <= seen[1] and not others and not unwritable:
            found.append(Mention(span.type, words))
    if form == "json":
        return json.dumps([own._asdict() for own in found], ensure_ascii=False)
    return BETWEEN_SPANS.join(f"{own.type}{AFTER_TYPE}{own.text}" for own in found)


def read_entities(output: str, form: EntityForm) -> list[Mention]:
    """What is written, in its order. Of JSON it is the first list, whatever stands around it."""
    if form == "plain":
        parts = re.split(rf"{BETWEEN_SPANS.strip()}|\n", output)
        pairs = [part.partition(AFTER_TYPE.strip()) for part in parts if part.strip()]
        return [Mention(name, text) if colon else Mention() for name, colon, text in pairs]
    if not output.strip():
        return []
    try:
        found, _ = json.JSONDecoder(strict=False).raw_decode(output, output.index("["))
    except (ValueError, RecursionError):  # no list, or one that is cut off
        return [Mention()]
    return [_mention(item) for item in found]


def _mention(item: Any) -> Mention:
    own = (item.get("type"), item.get("text")) if isinstance(item, dict) else ()
    return Mention(*own) if own and all(isinstance(part, str) for part in own) else Mention()


def locate(
    mentions: Sequence[Mention], text: str, types: Mapping[str, str], seen: tuple[int, int]
) -> tuple[tuple[Span, ...], bool]:
    """The places of entities, and whether all of them were found.

    They are looked for from left to right where their words stand next, whatever their case and
    white space. One that stands nowhere is a span outside of the text, which is wrong.

    Args:
      types: folded name -> the class.
      seen: first character and end of what the model read of the text.
    """
    found, understood, cursor = [], True, seen[0]
    for number, mention in enumerate(mentions):
        kind, words = types.get(folded(mention.type)), mention.text.split()
        place = _next(words, text, cursor, seen) if kind and words else None
        if place is None:
            understood = False
            nowhere = -2 - number - 1000 * seen[0]  # apart from all others, so that each counts
            found.append(Span(((nowhere, nowhere),), kind or NO_TYPE))
            continue
        cursor = place[1]
        found.append(Span((place,), kind))
    return tuple(dict.fromkeys(found)), understood


def entity_strings(
    mentions: Sequence[Mention], labels: Sequence[str]
) -> frozenset[tuple[str, str]]:
    """(class, words) of entities, in small letters, wherever they stand in a text or not."""
    types = {folded(label): label for label in labels}
    known = ((types.get(folded(own.type)), _words(own.text).casefold()) for own in mentions)
    return frozenset((kind, words) for kind, words in known if kind and words)


def gold_strings(example: Example) -> frozenset[tuple[str, str]]:
    """The same of the gold entities of an example."""
    found = []
    for span in example.gold:
        covered = example.text[span.fragments[0][0] : span.fragments[-1][1]]
        found.append((span.type, _words(covered).casefold()))
    return frozenset(found)


def _words(text: str) -> str:
    return " ".join(text.split())


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
