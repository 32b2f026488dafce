"""Trains a tokenizer on notes: `python -m medjax.train_tokenizer CONFIG.yaml [--field value]`.

Reads the configured sources, cleans them as `prepare` does, and writes a folder that
`transformers.AutoTokenizer` loads with the class of its family: WordPiece (BERT), Unigram with
sentinels (T5) or byte-level BPE (RoBERTa). The same notes give the same tokenizer.

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
from typing import TYPE_CHECKING

from medjax.config import UserError, differences, main
from medjax.data.config import TokenizerConfig

if TYPE_CHECKING:
    from medjax.data.sources import Tally

RECORD = "training.json"


def run(config: TokenizerConfig) -> None:
    """Trains and saves the tokenizer; prints what came of it."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "PyTorch was not found"
    from medjax.data.output import is_complete, new_folder
    from medjax.data.sources import check_sources, hash_files
    from medjax.data.trainers import TRAINERS

    total_bytes = check_sources(config.sources)
    files = [hash_files(source) for source in config.sources]
    if is_complete(config.output, RECORD, partial(changed_since, config, files), config.overwrite):
        print(f"{config.output}: already trained by this configuration; left alone")
        return
    begin = time.monotonic()
    tallies: list[Tally] = []
    with new_folder(config.output) as folder:
        texts = partial(clean_texts, config, tallies, total_bytes)
        tokenizer = TRAINERS[config.kind](texts, config.vocab_size, config.lowercase)
        if len(tokenizer) != config.vocab_size:
            raise UserError(
                f"vocab_size is {config.vocab_size:,}, but these notes give {len(tokenizer):,} "
                f"pieces; set vocab_size to {len(tokenizer)} or less, or use more notes"
            )
        tokenizer.save_pretrained(folder)
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


def clean_texts(config: TokenizerConfig, tallies: list[Tally], total_bytes: int) -> Iterator[str]:
    """A pass over every usable note's text; `tallies` are set to those of this pass."""
    from medjax.data.progress import Progress
    from medjax.data.sources import Tally
    from medjax.data.stream import Recipe, add_counts, process_notes, read_all

    tallies[:] = [Tally() for _ in config.sources]
    progress = Progress("reading", total_bytes)
    seen: set[bytes] = set()
    with tempfile.TemporaryDirectory(dir=Path(config.output).parent) as scratch:
        notes = read_all(config.sources, tallies, Path(scratch))
        for piece in process_notes(notes, Recipe(config.cleaning)):
            add_counts({"drops": piece.drops, "notices": piece.notices}, tallies)
            records = piece.arrays["notes"]
            for text, key, source in zip(
                piece.texts, records["key"], records["source"], strict=True
            ):
                before = len(seen)
                seen.add(key.tobytes())
                if len(seen) == before:
                    tallies[source].drops["exact duplicate"] += 1
                else:
                    tallies[source].documents += 1
                    yield text
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
