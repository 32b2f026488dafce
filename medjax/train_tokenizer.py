"""Trains a tokenizer on notes: `python -m medjax.train_tokenizer CONFIG.yaml [--field value]`.

Reads the configured sources, cleans them as `prepare` does, and writes a folder that
`transformers.AutoTokenizer` loads with the class of its family: WordPiece (BERT), Unigram with
sentinels (T5) or byte-level BPE (RoBERTa). The same notes give the same tokenizer. Pieces are
learnt from words alone that occur in notes of `min_patients` patients.

    sources:                       # as for `python -m medjax.prepare`
    - path: export/notes.csv.gz
      text: TEXT
    kind: unigram
    vocab_size: 32000
    output: runs/tokenizer
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medjax.config import UserError, differences, main
from medjax.data.config import TokenizerConfig

if TYPE_CHECKING:
    from medjax.data.sources import Tally

RECORD = "training.json"


def run(config: TokenizerConfig) -> None:
    """Trains and saves the tokenizer; prints what came of it."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "PyTorch was not found"
    from medjax.data.output import is_complete, new_folder
    from medjax.data.sentencepiece_model import write_sentencepiece_model
    from medjax.data.sources import check_sources, hash_files

    total_bytes = check_sources(config.sources)
    files = [hash_files(source) for source in config.sources]
    if is_complete(config.output, RECORD, partial(changed_since, config, files), config.overwrite):
        print(f"{config.output}: already trained by this configuration; left alone")
        return
    begin = time.monotonic()
    tallies: list[Tally] = []
    with new_folder(config.output) as folder:
        tokenizer = learn(config, tallies, total_bytes, folder)
        tokenizer.save_pretrained(folder)
        write_sentencepiece_model(tokenizer, folder)
        record = {
            "config": config.model_dump(mode="json"),
            "files": files,
            "documents": sum(t.documents for t in tallies),
            "drops": dict(sum((t.drops for t in tallies), Counter())),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(
        f"{config.output}: {type(tokenizer).__name__} ({config.kind}) with {len(tokenizer):,} "
        f"pieces from {record['documents']:,} notes in {time.monotonic() - begin:.1f} s"
    )
    print(f"next: python -m medjax.prepare CONFIG.yaml --tokenizer {config.output}")


def learn(config: TokenizerConfig, tallies: list[Tally], total_bytes: int, folder: Path) -> Any:
    """Two passes over the notes: which words may be learnt from, then the pieces."""
    from medjax.data.frequent_words import WordCounter
    from medjax.data.trainers import train

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        counter = WordCounter(Path(scratch), config.min_patients, total_bytes)
        for texts, units in clean_texts(config, tallies, total_bytes, "counting words"):
            counter.add(texts, units)
        words = counter.finish()
    passes = clean_texts(config, tallies, total_bytes, "training")
    texts = (text for batch, _ in passes for text in words.keep(batch))
    tokenizer = train(texts, words.characters, config)
    if len(tokenizer) != config.vocab_size:
        raise UserError(
            f"vocab_size is {config.vocab_size:,}, but these notes give {len(tokenizer):,} pieces "
            f"from words of {config.min_patients} patients or more (min_patients); set vocab_size "
            f"to {len(tokenizer)} or less, or use more notes"
        )
    return tokenizer


def clean_texts(
    config: TokenizerConfig, tallies: list[Tally], total_bytes: int, title: str
) -> Iterator[tuple[list[str], np.ndarray]]:
    """A pass over every usable note, in batches of texts and numbers of their patients.

    `tallies` are set to those of this pass. Tags of placeholders are left out.
    """
    from medjax.data.placeholders import remove_tags
    from medjax.data.progress import Progress
    from medjax.data.sources import Tally
    from medjax.data.stream import Recipe, add_counts, process_notes, read_all

    tallies[:] = [Tally() for _ in config.sources]
    progress = Progress(title, total_bytes)
    seen: set[bytes] = set()
    with tempfile.TemporaryDirectory(dir=Path(config.output).parent) as scratch:
        notes = read_all(config.sources, tallies, Path(scratch))
        for piece in process_notes(notes, Recipe(config.cleaning)):
            add_counts({"drops": piece.drops, "notices": piece.notices}, tallies)
            records = piece.arrays["notes"]
            is_new = np.zeros(len(records), bool)
            for i, (key, source) in enumerate(zip(records["key"], records["source"], strict=True)):
                if key[0] >= config.sample * 2**64:
                    tallies[source].drops["outside the sample"] += 1
                elif key.tobytes() in seen:
                    tallies[source].drops["exact duplicate"] += 1
                else:
                    seen.add(key.tobytes())
                    tallies[source].documents += 1
                    is_new[i] = True
            texts = [piece.texts[i] for i in is_new.nonzero()[0]]
            yield remove_tags(texts, config.cleaning.placeholders), records["unit"][is_new, 0]
            progress.show(sum(t.bytes_read for t in tallies))
    progress.end(total_bytes)


def changed_since(config: TokenizerConfig, files: list[dict[str, str]]) -> list[str]:
    """What an existing tokenizer was trained with that is not so now."""
    try:
        record = json.loads((Path(config.output) / RECORD).read_text(encoding="utf-8"))
        old = TokenizerConfig.model_validate(record["config"])
        same_files = record["files"] == files
    except (ValueError, KeyError):
        return [f"{RECORD} cannot be read"]
    same = {"output": config.output, "overwrite": config.overwrite}
    changed = differences(old.model_copy(update=same), config)
    return changed + ([] if same_files else ["the source files have changed"])


if __name__ == "__main__":
    main(TokenizerConfig, run, __doc__)
