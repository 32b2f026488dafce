"""Encoding word by word: every different word goes through the Rust tokenizer once.

Where a pipeline first parts a text at white space, the ids of a text are those of its words, one
after the other. Notes repeat their words, so a table of the words met so far takes nearly all of
the work away, and what is in it is the tokenizer's own answer: added tokens, accents, ties between
equally good paths, everything is as `tokenizers` has it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

Flat = tuple[Int32[np.ndarray, " W"], Int64[np.ndarray, " N+1"]]
"""Ids of all texts, and where each text's begin and the last one's end."""

MAX_WORDS = 2**20  # about 200 MB; a table that has grown beyond is begun anew


class WordTable:
    """Ids of the words met so far; `encode` adds what is new."""

    def __init__(self, backend: Any):
        self._backend = backend
        self._begin()

    def encode(self, texts: Sequence[str]) -> Flat:
        """Ids of each text, without special tokens around."""
        import pyarrow as pa
        import pyarrow.compute as pc

        joined = pc.replace_substring(pa.array(texts, pa.large_string()), "\n", " ")
        words = pc.split_pattern(joined, " ")
        coded = words.flatten().dictionary_encode()
        spelled = coded.dictionary.to_pylist()
        rows = self._rows(spelled)[coded.indices.to_numpy()]
        lengths = self._lengths[rows]
        ends = np.cumsum(lengths)
        begin = np.repeat(self._starts[rows] - ends + lengths, lengths)
        total = np.concatenate([[0], ends])
        ids = self._ids[begin + np.arange(len(begin))]
        return ids, total[words.offsets.to_numpy()]

    def _begin(self) -> None:
        self._index: dict[str, int] = {"": 0}  # between two spaces there is nothing
        self._ids = np.zeros(0, np.int32)
        self._starts = self._lengths = np.zeros(1, np.int64)

    def _rows(self, words: Sequence[str]) -> Int64[np.ndarray, " U"]:
        if len(self._index) > MAX_WORDS:
            self._begin()
        new = [word for word in words if word not in self._index]
        if new:
            found = self._backend.encode_batch_fast(new, add_special_tokens=False)
            lists = [encoding.ids for encoding in found]
            lengths = np.array([len(ids) for ids in lists], np.int64)
            starts = len(self._ids) + np.cumsum(lengths) - lengths
            added = np.array([i for ids in lists for i in ids], np.int32)
            self._index |= {word: i for i, word in enumerate(new, len(self._index))}
            self._ids = np.concatenate([self._ids, added])
            self._starts = np.concatenate([self._starts, starts])
            self._lengths = np.concatenate([self._lengths, lengths])
        return np.array([self._index[word] for word in words], np.int64)


def parts_at_white_space(backend: Any) -> bool:
    """Whether a text's ids are those of its words: the pipeline parts at white space first."""
    state = json.loads(backend.to_str())
    splitter = state["pre_tokenizer"] or {}
    first = splitter.get("pretokenizers", [splitter])[0].get("type")
    added = [token for token in state["added_tokens"] if not token["special"]]
    return (
        first in ("WhitespaceSplit", "BertPreTokenizer")
        and (state["normalizer"] or {}).get("type") in (None, "BertNormalizer", "Sequence")
        and not any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in added)
        and not any(len(token["content"].split()) != 1 for token in added)
    )
