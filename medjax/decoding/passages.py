"""Passages of a row's own text as tokens: which may come next, for verbatim answers and entities.

The tokens that stand at each place of a text are looked up once. While a passage is written, the
places that it has come to in the text are kept, at most PLACES of them, so that any tokenization of
any passage can be followed. White space of any length is one space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

LONGEST = 32  # bytes of a token that is looked for
PLACES = 32  # places that are kept of a passage that occurs often


class Passages(NamedTuple):
    """Of each row the tokens at each byte of its text, and how far they reach."""

    tokens: Int32[np.ndarray, "B N E"]
    """-1: no more."""
    ends: Int32[np.ndarray, "B N E"]
    """The place after a token."""
    first_tokens: Int32[np.ndarray, "B F"]
    """Tokens that a passage may begin with, a space before its first word included."""
    first_ends: Int32[np.ndarray, "B F"]
    open: Int32[np.ndarray, "B N"]
    """Bytes from a place to the end of the character that it is within; 0: within none. A passage
    does not end there; each byte is a token, or there would be no token that ends there."""


class Lookup(NamedTuple):
    """Tokens by their bytes."""

    ids: dict[bytes, list[int]]
    longest: int


def token_lookup(tokens: Sequence[bytes | None]) -> Lookup:
    """The tokens that a text is looked through for."""
    ids: dict[bytes, list[int]] = {}
    for i, token in enumerate(tokens):
        if token and len(token) <= LONGEST:
            ids.setdefault(token, []).append(i)
    return Lookup(ids, max(map(len, ids), default=0))


def passages_of(texts: Sequence[str], lookup: Lookup, multiple: int = 64) -> Passages:
    """The tokens of every text; sizes are rounded up, so that there are few shapes.

    A passage begins with a letter or number that follows none, or with any other character.
    """
    plain = [" ".join(text.split()).encode() for text in texts]
    found = [_of_text(text, lookup) for text in plain]
    width = max((len(own) for inner, _ in found for own in inner), default=1)
    length = _up(max((len(inner) for inner, _ in found), default=1) + 1, multiple)
    firsts = _up(max((len(first) for _, first in found), default=1), multiple)
    shape = (len(texts), length, _up(max(width, 1), 4))
    tokens, ends = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    first_tokens = np.full((len(texts), firsts), -1, np.int32)
    first_ends = np.zeros((len(texts), firsts), np.int32)
    unfinished = np.zeros(shape[:2], np.int32)
    for row, (inner, first) in enumerate(found):
        for place in range(len(inner) - 1, 0, -1):
            inside = plain[row][place] & 0xC0 == 0x80  # a byte that goes on with a character
            unfinished[row, place] = unfinished[row, place + 1] + 1 if inside else 0
        for place, own in enumerate(inner):
            for k, (token, end) in enumerate(own):
                tokens[row, place, k], ends[row, place, k] = token, end
        for k, (token, end) in enumerate(first):
            first_tokens[row, k], first_ends[row, k] = token, end
    return Passages(tokens, ends, first_tokens, first_ends, unfinished)


Tokens = list[tuple[int, int]]


def _of_text(text: bytes, lookup: Lookup) -> tuple[list[Tokens], Tokens]:
    inner = [_at(text, place, place, lookup) for place in range(len(text))]
    first: Tokens = []
    for place in range(len(text)):
        within = place and _is_word(text[place]) and _is_word(text[place - 1])
        if text[place] == 32 or within:
            continue
        first += inner[place]
        first += _at(b" " + text[place : place + lookup.longest], 0, place - 1, lookup)
    return inner, first


def _at(text: bytes, place: int, number: int, lookup: Lookup) -> Tokens:
    """(token, place after it) of all tokens at a place, which is called `number`."""
    stretch = text[place : place + lookup.longest]
    return [
        (token, number + length)
        for length in range(1, len(stretch) + 1)
        for token in lookup.ids.get(stretch[:length], ())
    ]


def _is_word(byte: int) -> bool:
    return byte >= 128 or chr(byte).isalnum()


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
