"""Cleaning of notes: Unicode form, control characters, white space; newlines are kept."""

from __future__ import annotations

import re
import unicodedata

from medjax.data.config import CleaningConfig

# Controls, byte order marks, and halves of surrogate pairs, which cannot be encoded
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
BLANK_LINES = re.compile(r"\n{3,}")
OTHER_SPACE = re.compile(r"[^\S\n ]")


def clean(text: str, config: CleaningConfig) -> str:
    """The cleaned text; empty when nothing is left. Line ends of every system become newlines."""
    lines = text.splitlines()
    if config.collapse_spaces:
        text = "\n".join(" ".join(line.split()) for line in lines)
        text = BLANK_LINES.sub("\n\n", text)
    else:
        text = "\n".join(OTHER_SPACE.sub(" ", line.expandtabs()).rstrip() for line in lines)
    text = CONTROL.sub("", text)
    # NFKC makes spaces of some characters, so this end is stripped again
    return unicodedata.normalize(config.unicode, text).strip()
