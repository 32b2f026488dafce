"""The tokenizing case of bench.py: MB/s of `prepare`'s encoder beside the batch encoder in Rust.

Both take the same notes in the same batches on all cores, in one process: WordPiece and Unigram,
plain notes and notes with tags of placeholders. Ours learns words as it meets them: `first` is the
pass in which all of them are new, `again` the next one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from medjax.data.config import TokenizerConfig
from medjax.data.placeholders import TAGS
from medjax.data.synthetic import patient_notes
from medjax.data.tokenize import Encoder, text_tokenizer
from medjax.data.trainers import train
from medjax.prepare import BATCH

MAX_MEGABYTES = 64
EVERY = 40  # words between tags: as many as placeholders in MIMIC-III
LEARNT_FROM = 20_000  # notes


def run(notes: str | None, repeats: int) -> dict:
    """Measures every kind of tokenizer on every kind of notes."""
    texts = {"plain": read_notes(notes)}
    texts["tagged"] = [with_tags(text) for text in texts["plain"]]
    found = [
        measure(kind, form, own, repeats)
        for kind in ("wordpiece", "unigram")
        for form, own in texts.items()
    ]
    return {"case": "prepare", "notes": notes or "synthetic", "results": found}


def read_notes(path: str | None) -> list[str]:
    """Notes of a JSON-lines file (`text`), or synthetic ones."""
    if path:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        source = (json.loads(line)["text"] for line in lines)
    else:
        source = (note["text"] for i in range(10**9) for note in patient_notes(i, seed=0))
    texts, size = [], 0
    for text in source:
        texts.append(text)
        size += len(text)
        if size > MAX_MEGABYTES * 1e6:
            break
    return texts


def with_tags(text: str) -> str:
    """A tag in the place of every so many words."""
    words = text.split(" ")
    for n, i in enumerate(range(EVERY // 2, len(words), EVERY)):
        words[i] = TAGS[n % len(TAGS)]
    return " ".join(words)


def measure(kind: str, form: str, texts: list[str], repeats: int) -> dict:
    """One tokenizer on one form of the notes; the best of several passes of either side."""
    cleaning = {"placeholders": "typed" if form == "tagged" else "untouched"}
    config = TokenizerConfig(
        sources=[{"path": "none"}], output="none", kind=kind, vocab_size=16_000, cleaning=cleaning
    )
    learnt = texts[:LEARNT_FROM]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        train(learnt, Counter(chain.from_iterable(learnt)), config).save_pretrained(folder)
        first, again, theirs = [], [], []
        for _ in range(repeats):
            encode = text_tokenizer(Encoder(folder).tokenizer).encode_batch_fast
            theirs.append(seconds(lambda batch, e=encode: [one.ids for one in e(batch)], texts))
            encoder = Encoder(folder, for_corpus=True)
            first.append(seconds(encoder.encode, texts))
            again.append(seconds(encoder.encode, texts))
    return {
        "kind": kind,
        "notes": form,
        "megabytes": round(megabytes, 1),
        "mb_per_s": {"first": rate(megabytes, first), "again": rate(megabytes, again)},
        "tokenizers_mb_per_s": rate(megabytes, theirs),
        "ratio": {
            "first": round(min(theirs) / min(first), 2),
            "again": round(min(theirs) / min(again), 2),
        },
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
    }


def rate(megabytes: float, seconds: list[float]) -> float:
    """MB/s of the best pass."""
    return round(megabytes / min(seconds), 2)


def seconds(encode: Callable[[list[str]], object], texts: list[str]) -> float:
    """Of one pass over all batches."""
    begin = time.perf_counter()
    for first in range(0, len(texts), BATCH):
        encode(texts[first : first + BATCH])
    return time.perf_counter() - begin
