"""What the configurations of `prepare` and `train_tokenizer` may say; imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from medjax.config import Schema

Format = Literal["auto", "csv", "tsv", "jsonl", "parquet", "text", "datasets"]


class SourceConfig(Schema):
    """Files of notes with named columns, and the terms they came on."""

    path: str
    """A file, a folder of files of one format, a pattern such as `notes/*.jsonl.gz`, or a folder
    written by `datasets.save_to_disk`. CSV, TSV and JSON lines may be gzipped."""
    format: Format = "auto"
    """auto goes by the file name's ending; text: every .txt file below the folder is a note."""
    text: str = "text"
    """Column of the note's text (ignored for format text)."""
    id: str | None = None
    """Column of the note's id; without it, file name and row number."""
    patient: str | None = None
    """Column of the patient's id; without it, notes are split one by one."""
    name: str | None = None
    """Namespace of the patient ids (default: `path`); sources of one name share their patients."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Of CSV and TSV columns; by default a comma and a tab."""
    quote: Annotated[str, Field(max_length=1)] = '"'
    """Quotes CSV and TSV fields; empty where the file has no quoting."""
    encoding: str = "utf-8"
    """Of CSV, TSV, JSON lines and text files: utf-8, cp1252, latin-1, ..."""
    licence: str | None = None
    """Terms of use, carried into the manifest and the model card."""
    access: Literal["open", "credentialed", "internal"] = "internal"
    """Who may have the notes; carried into the manifest and the model card."""

    @property
    def namespace(self) -> str:
        """What sets this source's patient ids apart from another's."""
        return self.name or self.path


class CleaningConfig(Schema):
    """Cleaning of a note's text; control characters always go and newlines always stay."""

    unicode: Literal["NFC", "NFKC"] = "NFC"
    """NFKC also turns look-alikes into plain letters (½, º, full-width forms)."""
    collapse_spaces: bool = True
    """Runs of spaces become one, and of empty lines one; false keeps columns aligned."""
    min_characters: int = Field(1, ge=1)
    """Shorter notes are dropped and counted."""


class PrepareConfig(Schema):
    """Notes to tokenized shards: `python -m medjax.prepare`."""

    sources: list[SourceConfig] = Field(min_length=1)
    """Where the notes are."""
    tokenizer: str
    """Folder of the tokenizer."""
    output: str
    """Folder to write; it appears when it is complete."""
    validation_fraction: float = Field(0.01, ge=0, lt=1)
    """Share of the patients (or documents) held out for validation; 0 holds out none."""
    seed: int = Field(0, ge=0)
    """Of the split."""
    cleaning: CleaningConfig = CleaningConfig()
    """Of the text."""
    deduplicate: Literal["exact", "none"] = "exact"
    """exact: of notes that differ in white space alone the first stays."""
    shard_tokens: int = Field(2**28, ge=1)
    """Tokens per shard file; a note is never divided."""
    overwrite: bool = False
    """Replaces an output that was prepared differently."""


class TokenizerConfig(Schema):
    """Notes to a tokenizer folder: `python -m medjax.train_tokenizer`."""

    sources: list[SourceConfig] = Field(min_length=1)
    """Where the notes are."""
    output: str
    """Folder to write; it appears when it is complete."""
    kind: Literal["wordpiece", "unigram", "bpe"] = "unigram"
    """wordpiece: as BERT; unigram: as T5, with sentinels; bpe: byte-level as RoBERTa."""
    vocab_size: int = Field(32_000, ge=300)
    """Number of pieces, special tokens and sentinels included."""
    lowercase: bool = False
    """WordPiece alone: the classes of the other two have no lower-casing in transformers 5."""
    cleaning: CleaningConfig = CleaningConfig()
    """Of the text; as in `prepare`."""
    overwrite: bool = False
    """Replaces an output that was trained differently."""

    @pydantic.model_validator(mode="after")
    def _lowercase_needs_wordpiece(self) -> Self:
        if self.lowercase and self.kind != "wordpiece":
            raise ValueError(
                f"lowercase is for kind wordpiece; transformers loads a {self.kind} tokenizer "
                "without lower-casing, so the pieces would not fit; set lowercase to false"
            )
        return self
