"""What the configurations of `prepare` and `train_tokenizer` may say; imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from medjax.config import Schema

Format = Literal[
    "auto",
    "csv",
    "tsv",
    "jsonl",
    "parquet",
    "xlsx",
    "text",
    "json",
    "datasets",
    "mimic3",
    "mimic4",
]
Access = Literal["open", "credentialed", "internal"]

PHYSIONET = "PhysioNet Credentialed Health Data Use Agreement 1.5.0"
# What the official files of MIMIC-III (NOTEEVENTS) and MIMIC-IV-Note (discharge, radiology) say
MIMIC_COLUMNS = {
    "mimic3": {
        "text": "TEXT",
        "id": "ROW_ID",
        "patient": "SUBJECT_ID",
        "charttime": "CHARTTIME",
        "storetime": "STORETIME",
        "category": "CATEGORY",
        "caregiver": "CGID",
        "iserror": "ISERROR",
    },
    "mimic4": {"text": "text", "id": "note_id", "patient": "subject_id"},
}


class SourceConfig(Schema):
    """Files of notes with named columns, and the terms they came on."""

    path: str
    """A file, a folder of files of one format, a pattern such as `notes/*.jsonl.gz`, or a folder
    written by `datasets.save_to_disk`. CSV, TSV, JSON lines and text may be .gz or .zst."""
    format: Format = "auto"
    """auto goes by the file name's ending; text, json: every .txt or .json file below the folder is
    a note (json: an object, as in E3C's layers); mimic3, mimic4: PhysioNet's official files (or
    their folder) under the rules of the papers."""
    text: str = "text"
    """Column of the note's text (ignored for format text)."""
    id: str | None = None
    """Column of the note's id; without it, `join_by`, or file name and row number."""
    patient: str | None = None
    """Column of the patient's id; without it, notes are split one by one. 123.0 is 123."""
    name: str | None = None
    """Namespace of the patient ids (default: `path`; mimic3, mimic4); sources of one name share
    their patients."""
    weight: float | None = Field(None, gt=0)
    """Share of this source in training, relative to the others'; by size if no source has one."""
    sheet: str | None = None
    """Of an .xlsx file; the first one if left out."""
    join_by: str | None = None
    """Column whose equal values mark the rows of one note, wherever in the file they stand."""
    order_by: str | None = None
    """Column that orders the rows of a note (as numbers where all are); file order without it."""
    join_with: str = "\n"
    """Stands between the joined texts of a note's rows."""
    carevue_patients: str | None = None
    """mimic3: a file of the SUBJECT_IDs of the CareVue era. All of their notes are read, of other
    patients none that MIMIC-IV has too (Radiology, Discharge summary): the papers' union rule."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Of CSV and TSV columns; by default a comma and a tab."""
    quote: Annotated[str, Field(max_length=1)] = '"'
    """Quotes CSV and TSV fields; empty where the file has no quoting."""
    encoding: str = "utf-8"
    """Of CSV, TSV, JSON and text files: utf-8, cp1252, latin-1, ..."""
    licence: str | None = None
    """Terms of use, carried into the manifest, checkpoints and the model card."""
    access: Access = "internal"
    """Who may have the notes; carried into the manifest, checkpoints and the model card."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _mimic_defaults(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("format") in MIMIC_COLUMNS:
            columns = MIMIC_COLUMNS[values["format"]]
            fixed = {"access": "credentialed", "licence": PHYSIONET, "name": values["format"]}
            fixed |= {role: columns[role] for role in ("text", "id", "patient")}
            return fixed | values
        return values

    @pydantic.model_validator(mode="after")
    def _fields_that_are_read(self) -> Self:
        if self.order_by and not self.join_by:
            raise ValueError("order_by orders the rows of a note: set join_by too, or remove it")
        if self.carevue_patients and self.format != "mimic3":
            raise ValueError("carevue_patients is for format mimic3; remove it")
        if self.format in MIMIC_COLUMNS and self.join_by:
            raise ValueError(f"format {self.format} has a row a note; remove join_by")
        return self

    @property
    def namespace(self) -> str:
        """What sets this source's patient ids apart from another's."""
        return self.name or self.path

    @property
    def columns(self) -> dict[str, str]:
        """The columns to read, by role."""
        named = {r: getattr(self, r) for r in ("text", "id", "patient", "join_by", "order_by")}
        official = MIMIC_COLUMNS.get(self.format, {})
        return official | {role: column for role, column in named.items() if column}


class HoldOutConfig(Schema):
    """Patients whose notes are left out, because an evaluation set has them."""

    path: str
    """CSV, TSV or text (one id a line), also .gz or .zst."""
    column: str | None = None
    """Column of the ids; without it the file is read as one id a line."""
    ids: Literal["patient", "note"] = "patient"
    """note: the file names notes; all notes of their patients are left out."""
    source: str
    """`name` of the sources whose ids these are (mimic3, mimic4, ...)."""
    evaluation: str | None = None
    """Name of the evaluation set that the patients belong to, for the manifest."""


class EvaluationConfig(Schema):
    """An evaluation set whose examples are looked for in the notes."""

    name: str
    """Names it in the manifest."""
    path: str
    """A file, or a folder or pattern of files."""
    format: Literal[
        "auto", "csv", "tsv", "jsonl", "parquet", "xlsx", "text", "datasets", "json", "xml"
    ] = "auto"
    """auto goes by the file name's ending."""
    fields: list[str] = Field(min_length=1)
    """Columns, or names at any depth of JSON and XML, whose texts are looked for, each on its own;
    for format text any one name."""
    encoding: str = "utf-8"
    """Of CSV, TSV, JSON lines and text files."""
    remove: bool = False
    """Leaves the notes out that hold an example."""


class CleaningConfig(Schema):
    """Cleaning of a note's text; control characters always go and newlines always stay."""

    placeholders: Literal["untouched", "tag", "typed"] = "untouched"
    """De-identification placeholders ([**...**], ___): as they are, as [DEID], or by type as
    [Name], [LOC], ... (Lehman et al. 2023); tags are added tokens of tokenizers trained here."""
    unicode: Literal["NFC", "NFKC"] = "NFC"
    """NFKC also turns look-alikes into plain letters (½, º, full-width forms)."""
    collapse_spaces: bool = True
    """Runs of spaces become one, and of empty lines one; false keeps columns aligned."""
    min_characters: int = Field(1, ge=1)
    """Shorter notes are dropped and counted."""
    max_characters: int = Field(1_000_000, ge=1)
    """Longer notes are dropped and counted: a sign of broken quoting or of a file, not a note."""


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
    deduplicate: Literal["near", "exact", "none"] = "near"
    """exact: of notes that differ in white space alone the first stays; near: also of notes whose
    words are nearly the same."""
    near_threshold: float = Field(0.8, gt=0, le=1)
    """near: Jaccard similarity of the sets of word 5-grams from which on notes are duplicates."""
    hold_out: list[HoldOutConfig] = []
    """Lists of patients whose notes are left out."""
    evaluation: list[EvaluationConfig] = []
    """Evaluation sets to look for in the notes."""
    shard_tokens: int = Field(2**28, ge=1)
    """Tokens per shard file; a note is never divided."""
    overwrite: bool = False
    """Replaces an output that was prepared differently."""

    @property
    def threshold(self) -> float | None:
        """near_threshold where near-duplicates are looked for."""
        return self.near_threshold if self.deduplicate == "near" else None


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
    """wordpiece; unigram with nmt_nfkc, which then folds case."""
    normalization: Literal["none", "nmt_nfkc"] = "none"
    """unigram: SentencePiece's NMT rules with NFKC; its character map goes with the model."""
    individual_digits: bool = False
    """unigram: every digit is a piece of its own."""
    split_punctuation: bool = False
    """unigram: no piece has punctuation beside letters or digits."""
    min_patients: int = Field(5, ge=1)
    """A vocabulary is published with its model: it is learnt from words alone that occur in notes
    of so many patients (notes, where a note has no patient), so that no name gets in. Single
    characters are exempt."""
    sample: float = Field(1.0, gt=0, le=1)
    """Share of the notes that is learnt from, always the same ones."""
    cleaning: CleaningConfig = CleaningConfig()
    """Of the text; as in `prepare`."""
    overwrite: bool = False
    """Replaces an output that was trained differently."""

    @pydantic.model_validator(mode="after")
    def _options_of_the_kind(self) -> Self:
        if self.lowercase and self.kind == "bpe":
            raise ValueError("lowercase is not for bpe, which keeps every byte; set it to false")
        if self.lowercase and self.kind == "unigram" and self.normalization == "none":
            raise ValueError(
                "lowercase is part of a unigram's character map; set normalization to nmt_nfkc"
            )
        if self.kind != "unigram":
            for name in ("normalization", "individual_digits", "split_punctuation"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is for unigram, not for {self.kind}; remove it")
        return self
