"""manifest.json of a prepared folder: counts, drops by reason, hashes, sources, configuration.

Written last by `prepare.py`, so that a folder with a manifest is a finished one; read by training
(which tokenizer, how many tokens), by `shards.py` and by reports (licence and access of sources).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pydantic

from medjax.config import Schema, UserError

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"


class Shard(Schema):
    """One pair of files `<split>/<name>.tokens` and `.offsets` (and `.words`)."""

    name: str
    """Files begin with it: 00000."""
    tokens: int
    """Number of tokens."""
    documents: int
    """Number of notes; none is divided between shards."""
    source: int | None = None
    """Place of the source that all of its notes are from, where sources have weights."""
    sha256: dict[str, str]
    """SHA-256 of each file by its ending: tokens, offsets, words."""


class SplitInfo(Schema):
    """What a split holds."""

    documents: int
    """Notes."""
    patients: int
    """Different patients among the notes that have one."""
    tokens: int
    """Tokens, special ones included."""
    bytes: int
    """UTF-8 bytes of the cleaned notes."""
    characters: int
    """Characters of the cleaned notes."""
    dtype: Literal["uint16", "uint32"]
    """Type of a stored token."""
    masked_words: int = 0
    """Words of the fixed evaluation spans (validation only)."""
    shards: list[Shard]
    """In order."""


class TokenizerInfo(Schema):
    """The tokenizer that made the tokens; a copy stands in `tokenizer/`."""

    sha256: str
    """Of its pieces and behaviour (`tokenize.tokenizer_hash`)."""
    vocab_size: int
    """Ids that a model must be able to emit."""
    separator_id: int
    """Ends every note."""
    pad_id: int
    """Padding."""


class SourceInfo(Schema):
    """Where notes came from, and on which terms."""

    name: str
    """Namespace of its patient ids."""
    files: dict[str, str]
    """SHA-256 by path."""
    licence: str | None
    """As declared in the configuration."""
    access: str
    """open, credentialed or internal."""
    weight: float | None = None
    """Share in training relative to the other sources'; by size if none has one."""
    rows: int
    """Rows read."""
    documents: int
    """Notes kept."""
    drops: dict[str, int]
    """Rows left out, by reason."""
    notices: dict[str, int] = {}
    """What was repaired or is worth a look in notes that were kept."""


class HoldOutInfo(Schema):
    """What a hold-out file did, for the manifest."""

    path: str
    """The file."""
    source: str
    """Namespace of the ids."""
    evaluation: str | None
    """The evaluation set that its patients belong to."""
    ids: int
    """Different ids in the file."""
    found: int
    """Of these, how many occur in the sources."""
    notes: int
    """Notes left out."""


class FieldInfo(Schema):
    """How much of one field of an evaluation set stands in the notes."""

    examples: int
    """Different texts."""
    checkable: int
    """Of these, with 5 words or more."""
    contaminated: int
    """Of these, how many stand in a note."""
    notes: int
    """Notes that hold one of them."""


class EvaluationInfo(Schema):
    """One evaluation set, for the manifest; counted over the notes left after de-duplication."""

    name: str
    """As configured."""
    path: str
    """Its file or folder."""
    fields: dict[str, FieldInfo]
    """By field."""
    removed: str
    """by id (its patients), by text (the notes that match), by id and text, or not removed."""
    notes_removed: int
    """Notes left out because of their text."""


class Manifest(Schema):
    """manifest.json: everything about a prepared folder but the tokens."""

    version: int
    """Layout version."""
    seed: int
    """Of the split."""
    tokenizer: TokenizerInfo
    """What made the tokens."""
    splits: dict[str, SplitInfo]
    """train and validation."""
    drops: dict[str, int]
    """Rows of all sources that were left out, by reason."""
    hold_out: list[HoldOutInfo] = []
    """Lists of patients that were left out."""
    evaluations: list[EvaluationInfo] = []
    """Evaluation sets that were looked for in the notes."""
    other_files: dict[str, str] = {}
    """SHA-256 of id lists and evaluation files by path."""
    sources: list[SourceInfo]
    """In the order of the configuration."""
    config: dict[str, Any]
    """The resolved configuration of `prepare`."""


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a finished prepared folder.

    Raises:
      UserError: where there is none, it is damaged, or written in another layout version.
    """
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder}: not a prepared folder (no {MANIFEST}); make one with "
            "`python -m medjax.prepare`"
        ) from None
    except ValueError:
        raise UserError(f"{path}: damaged, not valid JSON; prepare the notes again") from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != MANIFEST_VERSION:
        raise UserError(
            f"{path}: layout version {version}, but this medjax reads version {MANIFEST_VERSION}; "
            "prepare the notes again"
        )
    try:
        return Manifest.model_validate(content)
    except pydantic.ValidationError as error:
        names = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise UserError(f"{path}: damaged at {names}; prepare the notes again") from None


def write_manifest(manifest: Manifest, folder: str | Path) -> None:
    """Writes manifest.json; the last file of a prepared folder."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (Path(folder) / MANIFEST).write_text(text + "\n", encoding="utf-8")
