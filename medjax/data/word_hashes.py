"""Words of many texts as 64-bit hashes, and the hashes of their n-grams, without a Python loop.

Near-duplicates (`dedup.py`) and contamination (`contamination.py`) both compare n-grams of words;
they differ in what a word is. pyarrow splits, pandas hashes every different word once, NumPy rolls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64

if TYPE_CHECKING:
    import pyarrow as pa

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, bits well mixed: Knuth's golden-ratio constant
# De-identification placeholders: MIMIC-III's, MIMIC-IV's, and tags such as [Name]
PLACEHOLDERS = r"\[\*\*[^\]]*\*\*\]|_{3,}|\[[a-z#]{1,8}\]"

# Every byte of an ASCII text as a small letter or a space
LETTERS = bytes(ord(chr(i).lower()) if i < 128 and chr(i).isalpha() else 32 for i in range(256))


class Words(NamedTuple):
    """The words of a batch of texts, one after the other."""

    hashes: UInt64[np.ndarray, " W"]
    texts: Int64[np.ndarray, " W"]
    """Which text each word stands in."""
    counts: Int64[np.ndarray, " N"]
    """Words of each text."""


def plain_words(texts: Sequence[str]) -> Words:
    """Lower-cased words between white space, digits and punctuation included."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return _words(pc.utf8_lower(pa.array(texts, pa.large_string())))


def bare_words(texts: Sequence[str]) -> Words:
    """Lower-cased runs of letters: no punctuation, digits or de-identification placeholders."""
    import pyarrow as pa

    plain = [_bare_ascii(text) if text.isascii() else None for text in texts]
    others = [text for text in texts if not text.isascii()]
    bare = iter(_bare(others) if others else ())
    return _words(pa.array([next(bare) if p is None else p for p in plain], pa.large_string()))


def _bare(texts: Sequence[str]) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    lowered = pc.utf8_lower(pc.utf8_normalize(pa.array(texts, pa.large_string()), form="NFKC"))
    without = pc.replace_substring_regex(lowered, PLACEHOLDERS, " ")
    return pc.replace_substring_regex(without, r"[^\pL\pM]+", " ").to_pylist()


def _bare_ascii(text: str) -> str:
    """The same, several times faster."""
    if "[" in text or "___" in text:
        text = re.sub(PLACEHOLDERS, " ", text.lower())
    return text.encode().translate(LETTERS).decode()


def _words(texts: pa.Array) -> Words:
    import pyarrow.compute as pc
    from pandas.util import hash_array

    lists = pc.ascii_split_whitespace(texts)
    encoded = lists.flatten().dictionary_encode()
    spelled = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    hashes = hash_array(spelled, categorize=False)[encoded.indices.to_numpy()]
    counts = np.diff(lists.offsets.to_numpy())
    places = np.repeat(np.arange(len(counts)), counts)
    real = hashes != hash_array(np.array([""], object), categorize=False)[0]  # of an empty text
    return Words(hashes[real], places[real], np.bincount(places[real], minlength=len(counts)))


def ngrams(words: Words, n: int) -> tuple[UInt64[np.ndarray, " M"], Bool[np.ndarray, " M"]]:
    """The hash of the n-gram from each word on, and whether it lies within one text."""
    count = max(len(words.hashes) - n + 1, 0)
    rolled = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(n):
            rolled = rolled * MULTIPLIER + words.hashes[i : i + count]
        rolled ^= rolled >> np.uint64(29)
        rolled *= MULTIPLIER
    return rolled, words.texts[:count] == words.texts[n - 1 : n - 1 + count]
