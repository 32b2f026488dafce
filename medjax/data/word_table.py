"""Encoding word by word: every different word goes through the Rust tokenizer once.

Where a pipeline first parts a text at white space, the ids of a text are those of its words, one
after the other. Notes repeat their words, so a table of the words met so far takes nearly all of
the work away, and what is in it is the tokenizer's own answer: added tokens, accents, ties between
equally good paths, everything is as `tokenizers` has it. (tensorflow-text is slower and differs:
WordPiece beyond ASCII, Unigram where two paths are equally good; and it knows no added tokens.)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

Flat = tuple[Int32[np.ndarray, " W"], Int64[np.ndarray, " N+1"]]
"""Ids of all texts, and where each text's begin and the last one's end."""

MAX_WORDS = 2**20  # about 200 MB; a table that has grown beyond is begun anew
MARK = "\x00|"  # between words that are encoded together; no cleaned note can spell it
CHUNK = 64  # words encoded together
MIN_SHARE = 64  # texts that repay a thread


# Beside a space, other characters may form one grapheme with it, which a character map reads whole
_SIMPLE = (  # of these no one does
    "!-\u02ff\u0370-\u03ff\u0400-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e"
    "\u20a0-\u20bf\u2100-\u22ff"
)
_EDGE = re.compile(rf"(?:^|[ \n])[^ \n{_SIMPLE}]|[^ \n{_SIMPLE}](?:[ \n]|$)")


class WordTable:
    """Ids of the words met so far; `encode` adds what is new."""

    def __init__(self, backend: Any):
        import tokenizers

        state = json.loads(backend.to_str())
        kind = (state["normalizer"] or {}).get("type")
        self._edge = _EDGE if kind == "Precompiled" else None
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(state))
        self._backend.encode_special_tokens = True
        self._backend.add_tokens([tokenizers.AddedToken(MARK, normalized=False)])
        self._mark = self._backend.token_to_id(MARK)
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads)
        self._begin()

    def takes(self, text: str) -> bool:
        """Whether the ids of this text are those of its words."""
        return text.isascii() or self._edge is None or not self._edge.search(text)

    def encode(self, texts: Sequence[str]) -> Flat:
        """Ids of each text, without special tokens around."""
        if len(self._index) > MAX_WORDS:
            self._begin()
        share = max(-(-len(texts) // self._threads), MIN_SHARE)
        shares = [texts[i : i + share] for i in range(0, len(texts), share)]
        coded = list(self._pool.map(_code_words, shares))
        rows = [self._rows(one.words.to_pylist()) for one in coded]  # all, before ids are read
        ids, ends = zip(*self._pool.map(self._read, rows, coded), strict=True)
        lengths = np.concatenate([np.diff(one) for one in ends])
        return np.concatenate(ids), np.concatenate([[0], np.cumsum(lengths)])

    def _begin(self) -> None:
        self._index: dict[str, int] = {"": 0}  # at the ends of a text
        self._ids = np.zeros(0, np.int32)
        self._starts = self._lengths = np.zeros(1, np.int64)

    def _rows(self, words: Sequence[str]) -> Int64[np.ndarray, " U"]:
        """Where the words stand in the table, to which new ones are added."""
        new = [word for word in words if word not in self._index]
        if new:
            self._add(new)
        return np.fromiter(map(self._index.__getitem__, words), np.int64, len(words))

    def _add(self, words: list[str]) -> None:
        joined = [MARK.join(words[i : i + CHUNK]) + MARK for i in range(0, len(words), CHUNK)]
        found = self._backend.encode_batch_fast(joined, add_special_tokens=False)
        flat = np.concatenate([np.array(encoding.ids, np.int32) for encoding in found])
        marks = (flat == self._mark).nonzero()[0]
        lengths = np.diff(marks, prepend=-1) - 1
        starts = len(self._ids) + np.cumsum(lengths) - lengths
        self._index |= {word: i for i, word in enumerate(words, len(self._index))}
        self._ids = np.concatenate([self._ids, flat[flat != self._mark]])
        self._starts = np.concatenate([self._starts, starts])
        self._lengths = np.concatenate([self._lengths, lengths])

    def _read(self, table_rows: Int64[np.ndarray, " U"], coded: _Coded) -> Flat:
        rows = table_rows[coded.indices]
        lengths = self._lengths[rows]
        ends = np.cumsum(lengths)
        begin = np.repeat(self._starts[rows] - ends + lengths, lengths)
        ids = self._ids[begin + np.arange(len(begin))]
        return ids, np.concatenate([[0], ends])[coded.offsets]


class _Coded(NamedTuple):
    words: Any  # pa.Array of the different words
    indices: Int32[np.ndarray, " W"]
    offsets: Int64[np.ndarray, " N+1"]


def _code_words(texts: Sequence[str]) -> _Coded:
    """Every word's number among the different ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.ascii_split_whitespace(pa.array(texts, pa.large_string()))
    coded = words.flatten().dictionary_encode()
    return _Coded(coded.dictionary, coded.indices.to_numpy(), words.offsets.to_numpy())


def parts_at_white_space(backend: Any) -> bool:
    """Whether a text's ids are those of its words: the pipeline parts at white space first."""
    state = json.loads(backend.to_str())
    splitter = state["pre_tokenizer"] or {}
    steps = splitter.get("pretokenizers", [splitter])
    first = steps[0].get("type")
    added = [token for token in state["added_tokens"] if not token["special"]]
    return (
        first in ("WhitespaceSplit", "BertPreTokenizer")
        and all(step.get("prepend_scheme", "always") == "always" for step in steps)
        and (state["normalizer"] or {}).get("type") in (None, "BertNormalizer", "Precompiled")
        and not any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in added)
        and not any(len(token["content"].split()) != 1 for token in added)
    )
