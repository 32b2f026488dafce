"""Multiple choice: an example's own options, lettered; the letters are the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medjax.tasks.config import ColumnsConfig

LETTERS = "ABCDEFGHIJ"


def options_of(values: dict[str, Any], columns: ColumnsConfig) -> list[str]:
    """The options of a row; empty where its column holds something else."""
    if isinstance(columns.options, str):
        found = values[columns.options]
        if isinstance(found, dict):  # {"A": text, ...}, as MedQA has them
            found = [found[name] for name in sorted(found)]
    else:
        found = [values[name] for name in columns.of_options]
        found = [own for own in found if own not in (None, "")]  # a fifth that some have not
    if not isinstance(found, list | tuple) or not all(isinstance(own, str) for own in found):
        return []
    return [own.strip() for own in found]


def lettered(options: Sequence[str]) -> str:
    """The options one a line, each after its letter."""
    return "\n".join(f"{letter}. {own}" for letter, own in zip(LETTERS, options, strict=False))


def letter_of(label: str, options: Sequence[str], first: int) -> str | None:
    """The letter that a label means: an option's text, a letter, or a number from `first`."""
    plain = [" ".join(own.casefold().split()) for own in options]
    if (own := " ".join(label.casefold().split())) in plain:
        return LETTERS[plain.index(own)]
    places = LETTERS[: len(options)]
    if len(label) == 1 and label.upper() in places:
        return label.upper()
    if label.isdigit() and 0 <= int(label) - first < len(options):
        return LETTERS[int(label) - first]
    return None
