"""Notes to token shards: `python -m medjax.prepare CONFIG.yaml [--field value]`.

Reads the configured sources as a stream, cleans the notes, leaves out exact duplicates, splits by
patient, tokenizes, and writes a folder of flat memory-mapped shards with `manifest.json` (counts,
drops by reason, hashes, licence and access of the sources). The folder appears when it is
complete. For validation, word spans are drawn from the text itself, the same for any tokenizer.

    sources:
    - path: export/notes.csv.gz    # or .tsv, .jsonl, .parquet, .txt, a folder, a pattern
      text: TEXT                   # names of columns
      id: ROW_ID
      patient: SUBJECT_ID
    tokenizer: runs/tokenizer
    output: runs/prepared
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from medjax.config import UserError, differences, main
from medjax.data.config import PrepareConfig

if TYPE_CHECKING:
    from medjax.data.manifest import Manifest, SplitInfo
    from medjax.data.shards import SplitWriter
    from medjax.data.sources import Note, Tally
    from medjax.data.tokenize import Encoder

BATCH = 1000


def run(config: PrepareConfig) -> None:
    """Prepares the folder and prints a summary."""
    from medjax.data.manifest import MANIFEST, read_manifest, write_manifest
    from medjax.data.output import is_complete, new_folder
    from medjax.data.sources import Tally, check_sources, hash_files
    from medjax.data.stream import stream_notes
    from medjax.data.tokenize import Encoder, load_tokenizer, tokenizer_hash

    total_bytes = check_sources(config.sources)
    tokenizer = load_tokenizer(config.tokenizer)
    files = [hash_files(source) for source in config.sources]
    changes = partial(changed_since, config, files, tokenizer_hash(tokenizer))
    if is_complete(config.output, MANIFEST, changes, config.overwrite):
        print(f"{config.output}: already prepared by this configuration; left alone")
        print(summary(read_manifest(config.output)))
        return
    begin = time.monotonic()
    tallies = [Tally() for _ in config.sources]
    notes = stream_notes(
        config.sources,
        config.cleaning,
        tallies,
        total_bytes,
        deduplicate=config.deduplicate == "exact",
    )
    with new_folder(config.output) as folder:
        tokenizer.save_pretrained(folder / "tokenizer")
        encoder = Encoder(folder / "tokenizer")  # so that the tokens belong to this very copy
        splits = write_splits(config, notes, encoder, folder)
        manifest = describe(config, splits, encoder, tallies, files)
        write_manifest(manifest, folder)
    print(summary(manifest))
    seconds = time.monotonic() - begin
    tokens = sum(split.tokens for split in splits.values())
    print(f"{config.output}: ready in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s")


def write_splits(
    config: PrepareConfig, notes: Iterator[tuple[int, Note]], encoder: Encoder, folder: Path
) -> dict[str, SplitInfo]:
    """Splits and tokenizes the stream of notes into shards below `folder`."""
    from medjax.data.shards import SplitWriter, token_dtype
    from medjax.data.split import TRAIN, VALIDATION, check_split, split_of, split_unit

    names = [TRAIN, VALIDATION] if config.validation_fraction else [TRAIN]
    dtype = token_dtype(encoder.vocabulary.size)
    writers = {
        name: SplitWriter(
            folder, name, dtype, words=name == VALIDATION, shard_tokens=config.shard_tokens
        )
        for name in names
    }
    patients: dict[str, set[bytes]] = {name: set() for name in names}
    while batch := list(islice(notes, BATCH)):
        texts: dict[str, list[str]] = {name: [] for name in names}
        for _, note in batch:
            unit = split_unit(note)
            name = split_of(unit, config.seed, config.validation_fraction)
            texts[name].append(note.text)
            if note.patient is not None:
                patients[name].add(unit)
        for name in names:
            write_texts(writers[name], encoder, texts[name], masked=name == VALIDATION)
    splits = {name: writers[name].finish(len(patients[name])) for name in names}
    check_split(
        {name: split.documents for name, split in splits.items()},
        {name: split.patients for name, split in splits.items()},
        config.validation_fraction,
    )
    return splits


def write_texts(writer: SplitWriter, encoder: Encoder, texts: list[str], *, masked: bool) -> None:
    """Tokenizes a batch of one split and appends it, with masked words where they are stored."""
    from medjax.data.word_spans import draw_word_spans, words_of_tokens

    encoded = encoder.encode(texts, offsets=masked)
    ids = [document.ids for document in encoded]
    if not masked:
        writer.add(ids, texts)
        return
    spans = [draw_word_spans(text) for text in texts]
    words = [
        words_of_tokens(text, span, document.offsets)
        for text, span, document in zip(texts, spans, encoded, strict=True)
    ]
    writer.add(ids, texts, words, masked_words=sum(map(len, spans)))


def describe(
    config: PrepareConfig,
    splits: dict[str, SplitInfo],
    encoder: Encoder,
    tallies: list[Tally],
    files: list[dict[str, str]],
) -> Manifest:
    """The manifest of what was written."""
    from medjax.data.manifest import MANIFEST_VERSION, Manifest, SourceInfo, TokenizerInfo
    from medjax.data.stream import all_drops
    from medjax.data.tokenize import tokenizer_hash

    return Manifest(
        version=MANIFEST_VERSION,
        seed=config.seed,
        tokenizer=TokenizerInfo(
            sha256=tokenizer_hash(encoder.tokenizer),
            vocab_size=encoder.vocabulary.size,
            separator_id=encoder.vocabulary.separator_id,
            pad_id=encoder.vocabulary.pad_id,
        ),
        splits=splits,
        drops=all_drops(tallies),
        sources=[
            SourceInfo(
                name=source.namespace,
                files=hashes,
                licence=source.licence,
                access=source.access,
                rows=tally.rows,
                documents=tally.documents,
                drops=tally.drops,
            )
            for source, hashes, tally in zip(config.sources, files, tallies, strict=True)
        ],
        config=config.model_dump(mode="json"),
    )


def changed_since(
    config: PrepareConfig, files: list[dict[str, str]], tokenizer_sha256: str
) -> list[str]:
    """What an existing prepared folder was made of that is not so now."""
    from medjax.data.manifest import read_manifest

    try:
        manifest = read_manifest(config.output)
        old = PrepareConfig.model_validate(manifest.config)
    except (UserError, ValueError) as error:
        return [f"its manifest cannot be compared ({type(error).__name__})"]
    free = {name: getattr(config, name) for name in ("output", "overwrite", "tokenizer")}
    changed = differences(old.model_copy(update=free), config)
    if [source.files for source in manifest.sources] != files:
        changed.append("the source files have changed")
    if manifest.tokenizer.sha256 != tokenizer_sha256:
        changed.append(f"the tokenizer is another (now {config.tokenizer})")
    return changed


def summary(manifest: Manifest) -> str:
    """A table of the splits, and the dropped rows by reason."""
    columns = ("documents", "patients", "tokens", "bytes", "characters")
    lines = ["".join(f"{title:>15}" for title in ("split", *columns, "tokens/byte"))]
    for name, split in manifest.splits.items():
        counts = "".join(f"{getattr(split, column):>15,}" for column in columns)
        lines.append(f"{name:>15}{counts}{split.tokens / max(split.bytes, 1):>15.4f}")
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in manifest.drops.items())
    rows = sum(source.rows for source in manifest.sources)
    return "\n".join([*lines, f"rows read: {rows:,}; dropped: {dropped or 'none'}"])


if __name__ == "__main__":
    main(PrepareConfig, run, __doc__)
