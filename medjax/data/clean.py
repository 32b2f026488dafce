"""Cleaning of notes: Unicode form, control characters, white space; newlines are kept."""

from __future__ import annotations

import re
import unicodedata

from medjax.data.config import CleaningConfig

# Line ends of all kinds: Windows, old Mac, form feed, NEL, Unicode separators
LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Controls but newline and tab; byte order marks; halves of surrogate pairs cannot be encoded
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
SPACES = re.compile(r"[^\S\n]+")
SPACES_AROUND_NEWLINE = re.compile(r" *\n *")
BLANK_LINES = re.compile(r"\n{3,}")
OTHER_SPACE = re.compile(r"[^\S\n ]")


def clean(text: str, config: CleaningConfig) -> str:
    """The cleaned text; empty when nothing is left."""
    text = LINE_END.sub("\n", text)
    text = CONTROL.sub("", text)
    text = unicodedata.normalize(config.unicode, text)
    if config.collapse_spaces:
        text = SPACES.sub(" ", text)
        text = SPACES_AROUND_NEWLINE.sub("\n", text)
        text = BLANK_LINES.sub("\n\n", text)
    else:
        text = OTHER_SPACE.sub(" ", text.expandtabs())
    return text.strip()
