"""Evaluation masks that are the same for every tokenizer.

Masking 15% of the tokens hides different bytes under each tokenizer, so losses would not compare.
Here spans of whole words (divided by white space) are drawn once from the text, by a generator
seeded with the text itself, and then mapped to a tokenizer's tokens through character offsets.
Each byte of a masked word is counted at one of its tokens, so that nats per masked byte has the
same denominator whatever the pieces. `shards.py` stores the result beside the validation tokens.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
from jaxtyping import Int32, Int64, UInt16

MASKED_SHARE = 0.15
LONGEST_SPAN = 3
WORD = re.compile(r"\S+")
# Words that no tokenizer's normaliser deletes: they have a letter, a digit or printable ASCII.
# Longer ones are no words (a token's share must fit in 16 bits), but line noise.
LASTING = re.compile(r"[^\W_]|[!-~]")
MAX_CHARACTERS = 1000


def draw_word_spans(text: str) -> Int64[np.ndarray, "N 2"]:
    """First character and end of each masked word: 15% of the words, in spans of 1 to 3 words.

    A pure function of the text. Texts of fewer than four words have none.
    """
    words = [m.span() for m in WORD.finditer(text) if _is_maskable(m[0])]
    total = int(MASKED_SHARE * len(words) + 0.5)
    if not total:
        return np.empty((0, 2), np.int64)
    # raw bits: NumPy keeps the stream of a bit generator, but not that of Generator's methods
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    bits = np.random.PCG64(seed)
    lengths = _span_lengths(bits.random_raw(total), total)
    # the spans go into different gaps between the words that stay, so that none touch
    gaps = len(words) - total + 1
    chosen = np.sort(np.argsort(bits.random_raw(gaps), kind="stable")[: len(lengths)])
    starts = chosen + np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.array(words, np.int64)[np.repeat(starts, lengths) + within]


def words_of_tokens(
    text: str, masked: Int64[np.ndarray, "N 2"], offsets: Int32[np.ndarray, "T 2"]
) -> UInt16[np.ndarray, " T"]:
    """For each token 0, or 1 plus the UTF-8 bytes of masked words that it covers.

    Where tokens share a character the first has its bytes; characters that the tokenizer dropped
    count at the token before them in their word, else at the one behind.

    Args:
      text: the note.
      masked: first character and end of each masked word.
      offsets: first character and end of each token; empty for special tokens.
    """
    result = np.zeros(len(offsets), np.uint16)
    if not len(masked):
        return result
    hidden, word = _ranges(masked[:, 0], masked[:, 1])  # masked characters and their words
    is_hidden = np.zeros(len(text) + 1, np.bool_)
    is_hidden[hidden] = True
    covered, token = _ranges(offsets[:, 0], offsets[:, 1])
    owner = np.full(len(text) + 1, -1, np.int64)
    owner[covered[::-1]] = token[::-1]  # the last assignment stays: the first token owns
    owners = _fill_within_words(owner[hidden], word)
    sizes = _utf8_lengths(text)[hidden]
    counts = np.bincount(owners[owners >= 0], sizes[owners >= 0], minlength=len(offsets))
    touches = np.zeros(len(offsets), np.bool_)
    touches[token[is_hidden[covered]]] = True
    result[touches] = 1 + counts[touches].astype(np.uint16)
    return result


def _is_maskable(word: str) -> bool:
    return len(word) <= MAX_CHARACTERS and LASTING.search(word) is not None


def _span_lengths(bits: np.ndarray, total: int) -> Int64[np.ndarray, " S"]:
    """Lengths of 1 to 3 with equal chance, cut so that they sum to `total`."""
    lengths = 1 + (bits % np.uint64(LONGEST_SPAN)).astype(np.int64)
    ends = np.cumsum(lengths)
    count = int(np.searchsorted(ends, total)) + 1
    lengths = lengths[:count]
    lengths[-1] -= ends[count - 1] - total
    return lengths


def _ranges(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All integers of the ranges, one after the other, and which range each belongs to."""
    lengths = (ends - starts).astype(np.int64)
    which = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return starts[which] + within, which


def _fill_within_words(owners: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Replaces -1 by the last owner before it in the same word, else by the first behind it."""
    place = np.arange(len(owners))
    before = np.maximum.accumulate(np.where(owners >= 0, place, -1))
    behind = np.minimum.accumulate(np.where(owners >= 0, place, len(owners))[::-1])[::-1]
    behind = np.minimum(behind, len(owners) - 1)
    use_before = (before >= 0) & (word[before] == word)
    use_behind = ~use_before & (word[behind] == word)
    return np.where(use_before, owners[before], np.where(use_behind, owners[behind], -1))


def _utf8_lengths(text: str) -> Int64[np.ndarray, " C"]:
    """Bytes of each character."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    return 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
