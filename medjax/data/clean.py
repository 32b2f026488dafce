"""Cleaning of notes: placeholders, Unicode form, control characters, white space; newlines stay."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from medjax.data.config import CleaningConfig
from medjax.data.placeholders import replace_placeholders

# Controls, byte order marks, and halves of surrogate pairs, which cannot be encoded
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
BLANK_LINES = re.compile(r"\n{3,}")
OTHER_SPACE = re.compile(r"[^\S\n ]")


def clean(text: str, config: CleaningConfig, notices: Counter[str] | None = None) -> str:
    """The cleaned text; empty when nothing is left. Line ends of every system become newlines.

    Args:
      notices: counts what was met that is worth a look, by kind.
    """
    text = replace_placeholders(text, config.placeholders, notices)
    # White space last: what is removed or normalised before it can leave some at a line's ends.
    text = CONTROL.sub("", "\n".join(text.splitlines()))
    if not text.isascii():
        text = unicodedata.normalize(config.unicode, text)
    lines = text.split("\n")
    if config.collapse_spaces:
        text = BLANK_LINES.sub("\n\n", "\n".join([" ".join(line.split()) for line in lines]))
    else:
        text = "\n".join(OTHER_SPACE.sub(" ", line.expandtabs()).rstrip() for line in lines)
    return text.strip()
