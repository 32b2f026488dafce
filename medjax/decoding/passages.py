"""Passages of a row's own text as tokens: which may come next, for verbatim answers and entities.

The tokens that stand at each place of a text are looked up once. While a passage is written, the
places that it has come to in the text are kept, at most PLACES of them, so that any tokenization of
any passage can be followed. White space of any length is one space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from medjax.decoding.automaton import PASSAGE

LONGEST = 32  # bytes of a token that is looked for
UNREACHABLE = 2**20
SPACE = ord(" ")
PLACES = 32  # places that are kept of a passage that occurs often


class Passages(NamedTuple):
    """Of each row the tokens at each byte of its text, and how far they reach."""

    tokens: Int32[np.ndarray, "B N E"]
    """-1: no more. The second half of the places is the first again, see `_of_text`."""
    ends: Int32[np.ndarray, "B N E"]
    """The place after a token."""
    first_tokens: Int32[np.ndarray, "B F"]
    """Tokens that a passage may begin with, a space before its first word included."""
    first_ends: Int32[np.ndarray, "B F"]
    open: Int32[np.ndarray, "B N"]
    """Tokens from a place to the end of the word that it is within, where a passage may end; 0: it
    may end there; UNREACHABLE: tokens cannot spell the rest."""
    usable: Bool[np.ndarray, " B"]
    """Texts with a passage of at most PASSAGE tokens."""


class Lookup(NamedTuple):
    """Tokens by their bytes."""

    ids: dict[bytes, list[int]]
    longest: int


def token_lookup(tokens: Sequence[bytes | None], without: str = "") -> Lookup:
    """The tokens that a text is looked through for.

    Args:
      without: characters that no passage holds.
    """
    ids: dict[bytes, list[int]] = {}
    for i, token in enumerate(tokens):
        if token and len(token) <= LONGEST and not set(without.encode()) & set(token):
            ids.setdefault(token, []).append(i)
    return Lookup(ids, max(map(len, ids), default=0))


def passages_of(texts: Sequence[str], lookup: Lookup) -> Passages:
    """The tokens of every text; sizes are powers of two, so that few programs are compiled.

    Passages are of whole words: none begins or ends between two letters or numbers.
    """
    plain = [" ".join(text.split()).encode() for text in texts]
    found = [_of_text(text, lookup) for text in plain]
    width = max((len(own) for inner, _ in found for own in inner), default=1)
    length = _size(64, max((len(inner) for inner, _ in found), default=1) + 1)
    firsts = _size(length // 2, max((len(first) for _, first in found), default=1))
    shape = (len(texts), length, _size(16, width))
    tokens, ends = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    first_tokens = np.full((len(texts), firsts), -1, np.int32)
    first_ends = np.zeros((len(texts), firsts), np.int32)
    unfinished, usable = np.zeros(shape[:2], np.int32), np.zeros(len(texts), bool)
    for row, (inner, first) in enumerate(found):
        unfinished[row, : len(inner) + 1] = own_open = _open(plain[row], inner)
        usable[row] = any(1 + own_open[end] <= PASSAGE for _, end in first)
        for place, own in enumerate(inner):
            for k, (token, end) in enumerate(own):
                tokens[row, place, k], ends[row, place, k] = token, end
        for k, (token, end) in enumerate(first):
            first_tokens[row, k], first_ends[row, k] = token, end
    return Passages(tokens, ends, first_tokens, first_ends, unfinished, usable)


Tokens = list[tuple[int, int]]


def _of_text(text: bytes, lookup: Lookup) -> tuple[list[Tokens], Tokens]:
    """The tokens at every place, then at every place once more, for passages of which but the space
    before them is written, so that they cannot end there; and those that passages begin with."""
    inner = [_at(text, place, place, lookup) for place in range(len(text))]
    again, first = len(text) + 1, []
    for place in range(len(text)):
        within = place and _is_word(text[place]) and _is_word(text[place - 1])
        if text[place] == SPACE or within:
            continue
        first += inner[place]
        spaced = _at(b" " + text[place : place + lookup.longest], 0, place - 1, lookup)
        first += [(token, again + end if end == place else end) for token, end in spaced]
    return [*inner, [], *inner], first


def _open(text: bytes, inner: Sequence[Tokens]) -> Int32[np.ndarray, " N"]:
    """Tokens from every place to the next end of a word."""
    found, count = np.zeros(len(inner) + 1, np.int32), len(text)

    def rest(place: int) -> int:
        further = [found[end] for _, end in inner[place]]
        return min(UNREACHABLE, 1 + min(further, default=UNREACHABLE))

    for place in range(count - 1, 0, -1):
        if _is_word(text[place]) and _is_word(text[place - 1]):
            found[place] = rest(place)
    for place in range(count + 1, len(inner)):
        found[place] = rest(place)
    return found


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


def _size(least: int, count: int) -> int:
    return max(least, 1 << (count - 1).bit_length())
