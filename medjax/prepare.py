"""Notes to token shards: `python -m medjax.prepare CONFIG.yaml [--field value]`.

Reads the configured sources as a stream, cleans the notes, leaves out exact and near duplicates,
held-out patients and notes with evaluation examples, splits by patient, tokenizes, and writes a
folder of flat memory-mapped shards with `manifest.json` (counts, drops by reason, hashes, licence
and access of the sources). The folder appears when it is complete; interrupted, the same command
goes on. For validation, word spans are drawn from the text itself, the same for any tokenizer.

    sources:
    - path: export/notes.csv.gz    # or .tsv, .jsonl, .parquet, .xlsx, .txt, a folder, a pattern
      text: TEXT                   # names of columns
      id: ROW_ID
      patient: SUBJECT_ID
    tokenizer: runs/tokenizer
    output: runs/prepared
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medjax.config import UserError, differences, main
from medjax.data.config import PrepareConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medjax.data.contamination import Contamination
    from medjax.data.manifest import HoldOutInfo, Manifest, SplitInfo
    from medjax.data.selection import Selection
    from medjax.data.shards import SplitWriter
    from medjax.data.sources import Tally
    from medjax.data.spool import Spool
    from medjax.data.tokenize import Encoder

BATCH = 4000
OFFSETS_BATCH = 1000  # where the place of each token in the text is kept, at 150 bytes a token
CHUNK_CHARACTERS = 2**26
"""Of a chunk of the spool: what an interruption may cost."""


class Inputs(NamedTuple):
    """What the result is made of, by checksum."""

    files: list[dict[str, str]]
    """Of each source."""
    others: dict[str, str]
    """Id lists and evaluation files."""
    tokenizer: str


def run(config: PrepareConfig) -> None:
    """Prepares the folder and prints a summary."""
    from medjax.data.contamination import load_contamination
    from medjax.data.manifest import MANIFEST, read_manifest, write_manifest
    from medjax.data.output import RESULT, is_complete, work_folder
    from medjax.data.selection import select
    from medjax.data.sources import check_sources
    from medjax.data.tokenize import Encoder, load_tokenizer

    total_bytes = check_sources(config.sources)
    tokenizer = load_tokenizer(config.tokenizer)
    inputs = read_inputs(config, tokenizer)
    changes = partial(changed_since, config, inputs)
    if is_complete(config.output, MANIFEST, changes, config.overwrite):
        print(f"{config.output}: already prepared by this configuration; left alone")
        print(summary(read_manifest(config.output)))
        return
    begin = time.monotonic()
    warn_of_split_tags(config, tokenizer)
    contamination = load_contamination(config.evaluation) if config.evaluation else None
    with work_folder(config.output, identity(config, inputs)) as work:
        spool, tallies, held_out = fill_spool(config, work, contamination, total_bytes)
        chosen = select(spool, config, contamination, tallies)
        result = work / RESULT
        result.mkdir(exist_ok=True)
        tokenizer.save_pretrained(result / "tokenizer")
        # of this very copy, so that the tokens belong to it
        encoder = Encoder(result / "tokenizer", for_corpus=True)
        splits = write_splits(config, spool, chosen, encoder, work)
        manifest = describe(config, inputs, splits, encoder, tallies, held_out, chosen)
        write_manifest(manifest, result)
    print(summary(manifest))
    seconds = time.monotonic() - begin
    tokens = sum(split.tokens for split in splits.values())
    print(f"{config.output}: ready in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s")


def warn_of_split_tags(config: PrepareConfig, tokenizer: Any) -> None:
    """Says which tags of cleaning are no tokens of the tokenizer's."""
    from medjax.data.placeholders import tags_of

    tags = tags_of(config.cleaning.placeholders)
    split = [tag for tag in tags if len(tokenizer.encode(tag, add_special_tokens=False)) > 1]
    if split:
        print(
            f"{config.tokenizer}: {', '.join(split)} take several tokens each; a tokenizer trained "
            f"with --cleaning.placeholders {config.cleaning.placeholders} has them as one",
            file=sys.stderr,
        )


def fill_spool(
    config: PrepareConfig, work: Path, contamination: Contamination | None, total_bytes: int
) -> tuple[Spool, list[Tally], list[HoldOutInfo]]:
    """Reads and cleans all notes into the spool, from where an earlier run was interrupted."""
    from medjax.data.hold_out import HoldOut
    from medjax.data.manifest import HoldOutInfo
    from medjax.data.progress import Progress
    from medjax.data.sources import Tally, identities
    from medjax.data.spool import Spool
    from medjax.data.stream import Recipe, add_counts, process_notes, read_all

    spool, done = Spool(work / "spool"), work / "read.json"
    if done.exists():
        saved = json.loads(done.read_text())
        tallies = [Tally.from_json(values) for values in saved["tallies"]]
        print("reading: done by an earlier run", file=sys.stderr)
        return spool, tallies, [HoldOutInfo(**values) for values in saved["hold_out"]]
    scratch = work / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    tallies = [Tally() for _ in config.sources]
    held_out = HoldOut(config.hold_out, config.sources, identities)
    notes = read_all(config.sources, tallies, scratch, held_out)
    if spool.read:
        print(f"reading: goes on after {spool.read:,} notes of an earlier run", file=sys.stderr)
    for _ in islice(notes, spool.read):
        pass
    progress = Progress("reading", total_bytes, sum(t.bytes_read for t in tallies))
    recipe = Recipe(config.cleaning, config.threshold, contamination)
    pieces, size = [], 0
    for piece in process_notes(notes, recipe):
        pieces.append(piece)
        size += sum(map(len, piece.texts))
        if size >= CHUNK_CHARACTERS:
            spool.append(pieces)
            pieces, size = [], 0
        progress.show(sum(t.bytes_read for t in tallies))
    if pieces:
        spool.append(pieces)
    progress.end(total_bytes)
    for info in spool.infos:
        add_counts(info, tallies)
    check_not_empty(spool, tallies)
    infos = held_out.report()
    saved = {
        "tallies": [tally.to_json() for tally in tallies],
        "hold_out": [info.model_dump(mode="json") for info in infos],
    }
    write_atomically(done, saved)
    return spool, tallies, infos


def write_splits(
    config: PrepareConfig, spool: Spool, chosen: Selection, encoder: Encoder, work: Path
) -> dict[str, SplitInfo]:
    """Tokenizes the chosen notes into shards, from where an earlier run was interrupted."""
    from medjax.data.output import RESULT
    from medjax.data.progress import Progress
    from medjax.data.selection import SPLITS
    from medjax.data.shards import split_info
    from medjax.data.split import check_split

    path = work / "written.json"
    saved = json.loads(path.read_text()) if path.exists() else {"chunks": 0, "writers": {}}
    writers = open_writers(config, work / RESULT, encoder, saved["writers"])
    sizes = [info["bytes"] for info in spool.infos]
    done = sum(sizes[: saved["chunks"]])
    progress = Progress("tokenizing", sum(sizes), done)
    for chunk in range(saved["chunks"], len(sizes)):
        texts, start = spool.texts(chunk), int(spool.starts[chunk])
        own = chosen.splits[start : start + len(texts)]
        sources = spool.array(chunk, "notes")["source"]
        for (name, source), writer in writers.items():
            is_own = own == SPLITS.index(name)
            places = (is_own if source is None else is_own & (sources == source)).nonzero()[0]
            size = OFFSETS_BATCH if "words" in writer.endings else BATCH
            for first in range(0, len(places), size):
                batch = texts.take(places[first : first + size]).to_pylist()
                write_texts(writer, encoder, batch)
        done += sizes[chunk]
        state = {f"{name} {source}": writer.state() for (name, source), writer in writers.items()}
        write_atomically(path, {"chunks": chunk + 1, "writers": state})
        progress.show(done)
    progress.end(done)
    splits = {}
    for name in dict.fromkeys(name for name, _ in writers):
        own = [writer for (split, _), writer in writers.items() if split == name]
        splits[name] = split_info(own, chosen.patients[name])
    documents = {name: split.documents for name, split in splits.items()}
    patients = {name: split.patients for name, split in splits.items()}
    check_split(documents, patients, config.validation_fraction)
    return splits


def open_writers(
    config: PrepareConfig, folder: Path, encoder: Encoder, saved: dict
) -> dict[tuple[str, int | None], SplitWriter]:
    """A writer for each split; for each source of the training split where sources have weights."""
    from medjax.data.shards import SplitWriter, token_dtype
    from medjax.data.split import TRAIN, VALIDATION

    weighted = any(source.weight is not None for source in config.sources)
    keys: list[tuple[str, int | None]] = [(TRAIN, None)]
    if weighted:
        keys = [(TRAIN, index) for index in range(len(config.sources))]
    if config.validation_fraction:
        keys.append((VALIDATION, None))
    return {
        (name, source): SplitWriter(
            folder,
            name,
            token_dtype(encoder.vocabulary.size),
            words=name == VALIDATION,
            shard_tokens=config.shard_tokens,
            source=source,
            state=saved.get(f"{name} {source}"),
        )
        for name, source in keys
    }


def write_texts(writer: SplitWriter, encoder: Encoder, texts: list[str]) -> None:
    """Tokenizes a batch of one split and appends it, with masked words where they are stored."""
    from medjax.data.word_spans import draw_word_spans, words_of_tokens

    encoded = encoder.encode(texts, offsets="words" in writer.endings)
    ids = [document.ids for document in encoded]
    if "words" not in writer.endings:
        writer.add(ids, texts)
        return
    spans = [draw_word_spans(text) for text in texts]
    words = [
        words_of_tokens(text, span, document.offsets)
        for text, span, document in zip(texts, spans, encoded, strict=True)
    ]
    writer.add(ids, texts, words, masked_words=sum(map(len, spans)))


def check_not_empty(spool: Spool, tallies: Sequence[Tally]) -> None:
    """Refuses a corpus of no note, with the counts of what was dropped."""
    if not spool.notes:
        rows = sum(tally.rows for tally in tallies)
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in all_drops(tallies).items())
        raise UserError(f"no usable note among {rows:,} rows ({reasons})")


def all_drops(tallies: Sequence[Tally]) -> dict[str, int]:
    """Dropped rows of all sources by reason, the most frequent first."""
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally.drops)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def describe(
    config: PrepareConfig,
    inputs: Inputs,
    splits: dict[str, SplitInfo],
    encoder: Encoder,
    tallies: Sequence[Tally],
    held_out: list[HoldOutInfo],
    chosen: Selection,
) -> Manifest:
    """The manifest of what was written."""
    from medjax.data.manifest import MANIFEST_VERSION, Manifest, SourceInfo, TokenizerInfo
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
        hold_out=held_out,
        evaluations=chosen.evaluations,
        other_files=inputs.others,
        sources=[
            SourceInfo(
                name=source.namespace,
                files=hashes,
                licence=source.licence,
                access=source.access,
                weight=source.weight,
                rows=tally.rows,
                documents=tally.documents,
                drops=tally.drops,
                notices=tally.notices,
            )
            for source, hashes, tally in zip(config.sources, inputs.files, tallies, strict=True)
        ],
        config=config.model_dump(mode="json"),
    )


def read_inputs(config: PrepareConfig, tokenizer: object) -> Inputs:
    """Checksums of all input files and of the tokenizer."""
    from medjax.data.files import hash_tree
    from medjax.data.sources import hash_files
    from medjax.data.tokenize import tokenizer_hash

    others: dict[str, str] = {}
    for item in (*config.hold_out, *config.evaluation):
        others |= hash_tree(item.path)
    for source in config.sources:
        others |= hash_tree(source.carevue_patients) if source.carevue_patients else {}
    return Inputs(
        [hash_files(source) for source in config.sources], others, tokenizer_hash(tokenizer)
    )


def identity(config: PrepareConfig, inputs: Inputs) -> str:
    """Of the work: a run with another one begins anew."""
    values = config.model_dump(mode="json", exclude={"output", "overwrite"})
    text = json.dumps([values, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def changed_since(config: PrepareConfig, inputs: Inputs) -> list[str]:
    """What an existing prepared folder was made of that is not so now."""
    from medjax.data.manifest import read_manifest

    try:
        manifest = read_manifest(config.output)
        old = PrepareConfig.model_validate(manifest.config)
    except (UserError, ValueError) as error:
        return [f"its manifest cannot be compared ({type(error).__name__})"]
    free = {name: getattr(config, name) for name in ("output", "overwrite", "tokenizer")}
    changed = differences(old.model_copy(update=free), config)
    if [source.files for source in manifest.sources] != inputs.files:
        changed.append("the source files have changed")
    if manifest.other_files != inputs.others:
        changed.append("id lists or evaluation files have changed")
    if manifest.tokenizer.sha256 != inputs.tokenizer:
        changed.append(f"the tokenizer is another (now {config.tokenizer})")
    return changed


def write_atomically(path: Path, values: dict) -> None:
    """JSON that is whole or not there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values))
    temporary.rename(path)


def summary(manifest: Manifest) -> str:
    """A table of the splits, the dropped rows by reason, and what evaluation sets share with it."""
    columns = ("documents", "patients", "tokens", "bytes", "characters")
    lines = ["".join(f"{title:>15}" for title in ("split", *columns, "tokens/byte"))]
    for name, split in manifest.splits.items():
        counts = "".join(f"{getattr(split, column):>15,}" for column in columns)
        lines.append(f"{name:>15}{counts}{split.tokens / max(split.bytes, 1):>15.4f}")
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in manifest.drops.items())
    rows = sum(source.rows for source in manifest.sources)
    lines.append(f"rows read: {rows:,}; dropped: {dropped or 'none'}")
    for source in manifest.sources:
        lines += [f"{source.name}: {n:,} x {what}" for what, n in source.notices.items()]
    for held in manifest.hold_out:
        lines.append(
            f"{held.path}: {held.found:,} of {held.ids:,} ids occur; {held.notes:,} notes out"
        )
    for evaluation in manifest.evaluations:
        for name, field in evaluation.fields.items():
            lines.append(
                f"{evaluation.name}, {name}: {field.contaminated:,} of {field.checkable:,} "
                f"checkable examples ({field.examples:,} in all) stand in {field.notes:,} notes; "
                f"{evaluation.removed}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main(PrepareConfig, run, __doc__)
