"""Cleaning of notes: placeholders, Unicode form, control characters, white space; newlines stay."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from medjax.data.config import CleaningConfig
from medjax.data.placeholders import replace_placeholders

# Controls, byte order marks, and halves of surrogate pairs, which cannot be encoded
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
PLAIN = bytes([10, *range(32, 127)])
OTHER_SPACE = re.compile(r"[^\S\n ]")


def clean(text: str, config: CleaningConfig, notices: Counter[str] | None = None) -> str:
    """The cleaned text; empty when nothing is left. Line ends of every system become newlines.

    Args:
      notices: counts what was met that is worth a look, by kind.
    """
    text = replace_placeholders(text, config.placeholders, notices)
    is_plain = text.isascii() and not text.encode().translate(None, PLAIN)  # as most notes are
    if not is_plain:
        text = CONTROL.sub("", "\n".join(text.splitlines()))
        text = unicodedata.normalize(config.unicode, text)
    # White space last: what is removed or normalised before it can leave some at a line's ends.
    if not config.collapse_spaces:
        lines = text.split("\n")
        return "\n".join(OTHER_SPACE.sub(" ", line.expandtabs()).rstrip() for line in lines).strip()
    if not is_plain:
        text = OTHER_SPACE.sub(" ", text)
    for long, short in (("  ", " "), (" \n", "\n"), ("\n ", "\n"), ("\n\n\n", "\n\n")):
        while long in text:  # several times faster than an expression over all characters
            text = text.replace(long, short)
    return text.strip()
