"""Tokenizer folders: what a model must know of one (`Vocabulary`) and how notes become ids.

A folder is whatever `transformers.AutoTokenizer` reads: T5, BERT, RoBERTa, ModernBERT. Encoding
goes through the Rust `tokenizers` backend in batches, or, for whole corpora, word by word with the
same ids and several times faster (`word_table.py`). Neighbours: `word_spans.py` maps
masked words to the tokens made here, `shards.py` stores the ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from medjax.config import UserError
from medjax.data.word_table import WordTable, parts_at_white_space

if TYPE_CHECKING:
    import tokenizers

SENTINEL = re.compile(r"<extra_id_(\d+)>")
# What a tokenizer does to this text, together with its pieces, is its identity (tokenizer_hash).
PROBE = (
    "Pt is a 67 y/o M w/ PMH of T2DM, HTN; BP 142/91, HR 88, T 98.6°F, SpO2 96%.\n\n"
    "Plan:\n - Metformin 1,000 mg PO BID\t(held)\n - f/u w/ [**Last Name**] ___ in 2-3 wks. "
    "No CP/SOB. Å ångström café ½ tablet ≥5 µg ﬁne １２ naïve 患者 \u00a0x  y\r\n</s> [SEP] <mask>"
)
# Stands before the name of a special piece so that no cleaned note can spell it (clean.py removes
# control characters): a Unigram model would otherwise match "</s>" in a note as a piece of text.
UNSPELLABLE = "\x00"


class Vocabulary(NamedTuple):
    """What objectives and models must know of a tokenizer; no JAX in it."""

    size: int
    """Number of ids that the model must be able to emit (the largest id plus one)."""
    pad_id: int
    separator_id: int
    """The id that ends every note: `</s>` or `[SEP]`."""
    mask_id: int | None
    sentinel_ids: Int32[np.ndarray, " N"]
    """`<extra_id_0>` first; empty where the tokenizer has none."""
    special_ids: Int32[np.ndarray, " S"]
    """Never chosen for masking: padding, separators, mask, unknown, sentinels; ascending."""
    continues_word: Bool[np.ndarray, " V"]
    """True where the piece continues the word that the piece before it began; at the beginning
    of a note, byte-level BPE has no space to tell, and whatever stands there begins a word."""


class Encoded(NamedTuple):
    """One document: its ids with the tokenizer's own special tokens, and where they come from."""

    ids: Int32[np.ndarray, " T"]
    offsets: Int32[np.ndarray, "T 2"] | None
    """First character and end of each token in the text; (0, 0) for added special tokens."""


def load_tokenizer(folder: str | Path) -> Any:
    """The transformers tokenizer (fast, torch-free) of a folder; never looks anywhere else.

    Raises:
      UserError: where the folder is missing, holds no tokenizer or one without a Rust backend.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such tokenizer folder; give a folder, not a hub name")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "PyTorch was not found"
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises a different type for each kind of damage
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder}: holds no tokenizer that transformers can load ({reason}); "
            "a folder with tokenizer.json and tokenizer_config.json is needed"
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"{folder}: {type(tokenizer).__name__} has no Rust backend (tokenizer.json)"
        )
    return tokenizer


def padding_id(tokenizer: Any) -> int:
    """The id that rows are filled up with; what has none (GPT-2, Llama) takes its end."""
    ids = tokenizer.pad_token_id, tokenizer.eos_token_id
    return next((own for own in ids if own is not None), 0)


def load_vocabulary(folder: str | Path) -> Vocabulary:
    """Reads a tokenizer folder's vocabulary; see `vocabulary`."""
    return vocabulary(load_tokenizer(folder), folder)


def vocabulary(tokenizer: Any, folder: str | Path) -> Vocabulary:
    """The vocabulary of a transformers tokenizer; `folder` is named in errors.

    Raises:
      UserError: without padding, or when no special token ends an encoded text.
    """
    ids = tokenizer.get_vocab()
    special = _special_ids(tokenizer)
    ending = text_tokenizer(tokenizer).encode("a").ids[-1:]
    if tokenizer.pad_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no padding token; add `pad_token` to it")
    if not ending or ending[0] not in special:
        raise UserError(
            f"{folder}: the tokenizer ends a text with no special token, so notes could not be "
            "told apart; give its tokenizer.json a post_processor that adds </s> or [SEP]"
        )
    numbered = {int(m[1]): i for p, i in ids.items() if (m := SENTINEL.fullmatch(p))}
    sentinels = [numbered[n] for n in range(len(numbered)) if n in numbered]
    size = max(ids.values()) + 1
    return Vocabulary(
        size=size,
        pad_id=tokenizer.pad_token_id,
        separator_id=ending[0],
        mask_id=tokenizer.mask_token_id,
        sentinel_ids=np.array(sentinels, np.int32),
        special_ids=np.array(sorted(special | set(sentinels)), np.int32),
        continues_word=_continues_word(tokenizer.backend_tokenizer, ids, special, size),
    )


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 over a tokenizer's pieces and what it makes of a probe text.

    Equal for two folders that do the same, whatever version of the libraries wrote their files.
    """
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    probes = [text_tokenizer(tokenizer).encode(text).ids for text in (PROBE, PROBE.upper())]
    content = json.dumps([pieces, probes, sorted(_special_ids(tokenizer))])
    return hashlib.sha256(content.encode()).hexdigest()


class Encoder:
    """Encodes batches of notes; special tokens that stand in a note come out as plain text.

    `for_corpus`: word by word where that gives the same ids, which repays itself on many notes.
    """

    def __init__(self, folder: str | Path, *, for_corpus: bool = False):
        tokenizer = load_tokenizer(folder)
        self.folder = Path(folder)
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary(tokenizer, folder)
        self._backend = text_tokenizer(tokenizer)
        template, bare = (
            self._backend.encode("a", add_special_tokens=special).ids for special in (True, False)
        )
        start = next(i for i in range(len(template)) if template[i : i + len(bare)] == bare)
        self._before, self._after = template[:start], template[start + len(bare) :]
        self._added = len(self._before) + len(self._after)
        self._table = None
        if for_corpus and parts_at_white_space(self._backend):
            self._table = WordTable(self._backend)
        unknown = {tokenizer.unk_token_id}
        self._controls = np.array(sorted(set(self.vocabulary.special_ids.tolist()) - unknown))

    def encode(self, texts: Sequence[str], *, offsets: bool = False) -> list[Encoded]:
        """Ids of each text with the tokenizer's own special tokens around it."""
        if offsets:
            found = self._backend.encode_batch(list(texts))
            places = [np.array(e.offsets, np.int32).reshape(-1, 2) for e in found]
            ids = [np.array(e.ids, np.int32) for e in found]
            documents = [Encoded(i, o) for i, o in zip(ids, places, strict=True)]
        else:
            by_words = [self._table is not None and self._table.takes(text) for text in texts]
            fast = iter(self._by_words([t for t, own in zip(texts, by_words, strict=True) if own]))
            others = [t for t, own in zip(texts, by_words, strict=True) if not own]
            whole = iter(self._backend.encode_batch_fast(others) if others else ())
            documents = [
                Encoded(next(fast) if own else np.array(next(whole).ids, np.int32), None)
                for own in by_words
            ]
        self._check(documents)
        return documents

    def _by_words(self, texts: Sequence[str]) -> list[Int32[np.ndarray, " T"]]:
        if not texts:
            return []
        ids, ends = self._table.encode(texts)
        around = np.array(self._before, np.int32), np.array(self._after, np.int32)
        pairs = zip(ends[:-1], ends[1:], strict=True)
        return [np.concatenate([around[0], ids[start:end], around[1]]) for start, end in pairs]

    def _check(self, documents: list[Encoded]) -> None:
        """Special ids stand only where the tokenizer's template puts them."""
        if not documents:
            return
        flat = np.concatenate([d.ids for d in documents])
        if np.isin(flat, self._controls).sum() != self._added * len(documents):
            raise UserError(
                f"{self.folder}: the tokenizer turns some text into its own special tokens, so "
                "notes could not be told apart; use a tokenizer whose special tokens are marked so"
            )


def text_tokenizer(tokenizer: Any) -> tokenizers.Tokenizer:
    """A copy of the Rust backend that reads special tokens in a text as text, and cuts nothing."""
    import tokenizers

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    if state["model"]["type"] == "Unigram":
        special = {t["content"] for t in state["added_tokens"] if t["special"]}
        for token in state["added_tokens"]:
            if token["special"]:
                token["content"] = UNSPELLABLE + token["content"]
        state["model"]["vocab"] = [
            [UNSPELLABLE + piece if piece in special else piece, score]
            for piece, score in state["model"]["vocab"]
        ]
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = True
    return backend


def _special_ids(tokenizer: Any) -> set[int]:
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)


def _continues_word(
    backend: tokenizers.Tokenizer, ids: dict[str, int], special: set[int], size: int
) -> Bool[np.ndarray, " V"]:
    """WordPiece marks continuations (##), Unigram and byte-level BPE mark beginnings (a space)."""
    model = json.loads(backend.to_str())["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    # byte-level BPE spells space, newline, tab and return as these letters (GPT-2's byte table)
    starts = "▁" if model["type"] == "Unigram" or "▁" in ids else ("Ġ", "Ċ", "ĉ", "č")
    result = np.zeros(size, np.bool_)
    for piece, i in ids.items():
        continues = piece.startswith(prefix) if prefix else not piece.startswith(starts)
        result[i] = continues and i not in special
    return result
