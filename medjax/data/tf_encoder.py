"""WordPiece with tensorflow-text, several times faster than the batch encoder of `tokenizers`.

`FastBertTokenizer` gets the texts on which it cannot differ from the transformers tokenizer: ASCII
ones, on which all Unicode tables agree, without added tokens. `word_table.py` does the others, and
Unigram: `FastSentencepieceTokenizer` breaks ties between equally good paths ("11"+"1", "1"+"11")
another way than `tokenizers` (8 of 26,845 documents). Only `prepare` encodes this way: importing
TensorFlow takes seconds and 0.9 GiB. Where there is no wheel (macOS, Arm) the table does it all.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.data.word_table import Flat

ROWS = 128  # texts a call: enough for a thread, few enough for several threads


class Route(NamedTuple):
    """A tensorflow-text tokenizer and the texts that it may have."""

    encode: Callable[[Sequence[str]], Flat]
    """Ids of each text, without special tokens around."""
    takes: Callable[[str], bool]


def build_route(backend: Any) -> Route | None:
    """The fast way to encode as a Rust tokenizer of BERT's kind does; None for other kinds.

    Args:
      backend: of `tokenize.text_tokenizer`, without special tokens that a text can spell.
    """
    state = json.loads(backend.to_str())
    model, normalizer = state["model"], state["normalizer"] or {}
    lowercase = normalizer.get("lowercase", False)
    ids = sorted(model["vocab"].values()) if model["type"] == "WordPiece" else []
    if (
        not ids
        or ids != list(range(len(ids)))
        or normalizer.get("type") != "BertNormalizer"
        or normalizer["strip_accents"] not in (None, lowercase)
        or (state["pre_tokenizer"] or {}).get("type") != "BertPreTokenizer"
    ):
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # nothing here is for the GPU
    try:
        import tensorflow as tf
        import tensorflow_text
    except ImportError:
        return None
    tokenizer = tensorflow_text.FastBertTokenizer(
        vocab=sorted(model["vocab"], key=model["vocab"].__getitem__),
        suffix_indicator=model["continuing_subword_prefix"],
        max_bytes_per_word=model["max_input_chars_per_word"],
        token_out_type=tf.int32,
        unknown_token=model["unk_token"],
        lower_case_nfd_strip_accents=lowercase,
    )
    added = [t["content"] for t in state["added_tokens"] if not t["special"]]
    holds_added = re.compile("|".join(map(re.escape, added))).search if added else None
    return Route(
        _runner(tf, tokenizer.tokenize),
        lambda text: text.isascii() and not (holds_added and holds_added(text)),
    )


def _runner(tf: Any, tokenize: Callable[[Any], Any]) -> Callable[[Sequence[str]], Flat]:
    """Runs a tokenizer op over texts on all cores, in order."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def step(batch):
        ragged = tokenize(batch)
        return ragged.values, ragged.row_lengths()

    def run(texts: Sequence[str]) -> Flat:
        rows = tf.data.Dataset.from_tensor_slices(tf.constant(list(texts), tf.string)).batch(ROWS)
        parts = list(rows.map(step, tf.data.AUTOTUNE, deterministic=True).as_numpy_iterator())
        ids, lengths = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        return ids, np.concatenate([[0], np.cumsum(lengths)])

    return run
