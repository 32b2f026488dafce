"""Configuration of a task: files, columns, labels, lengths, splits. No JAX here."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field

from medjax.config import Schema
from medjax.data.config import CleaningConfig

Kind = Literal[
    "classification", "multilabel", "tagging", "question_answering", "relations", "text_to_text"
]
Format = Literal["table", "iob", "brat", "pubtator", "spans", "squad", "clip", "forms"]
FORMATS = {  # the files that each kind comes in; the first is the default
    "classification": ("table", "forms"),
    "multilabel": ("table", "clip"),
    "tagging": ("iob", "brat", "pubtator", "spans"),
    "question_answering": ("squad",),
    "relations": ("table", "pubtator", "forms"),
    "text_to_text": ("table",),
}
FIELD = re.compile(r"{([^{}]+)}")


class ColumnsConfig(Schema):
    """Columns of a table (CSV, TSV, JSON lines, Parquet, .xlsx, `datasets` folder)."""

    text: str = "text"
    """The text."""
    text_pair: str | None = None
    """The second text, where pairs are classified."""
    template: str | None = None
    """The text made of several columns, such as `premise: {sentence1} hypothesis: {sentence2}`; in
    the place of text and text_pair."""
    ending: str = ""
    """template: what the text ends with, added where it does not."""
    label: str | None = "label"
    """The class; for multilabel a list of classes or a text of several; for text_to_text the text
    to be written; none in a file to be predicted."""
    id: str | None = None
    """The id; file name and row number without it."""
    options: str | list[str] | None = None
    """classification, multiple choice: the column with the list of an example's options, or the
    columns of one each. They are lettered at the end of the text; the classes are the letters."""
    options_from: Literal[0, 1] = 0
    """options: what the first one is called where labels are numbers; letters and texts of options
    are labels too."""
    group: str | None = None
    """What must not be divided between splits: patient, document, premise."""
    meta: list[str] = []
    """More columns, by whose values results are given apart."""

    @pydantic.model_validator(mode="after")
    def _one_kind_of_text(self) -> Self:
        if self.template is None:
            if self.ending:
                raise ValueError("ending is for a template; remove it")
        elif not FIELD.search(self.template):
            raise ValueError("template names no column; write columns in braces: {sentence1}")
        elif self.text_pair is not None:
            raise ValueError("template holds all the text; remove text_pair")
        return self

    @property
    def of_options(self) -> tuple[str, ...]:
        """The columns that hold options."""
        if self.options is None:
            return ()
        return (self.options,) if isinstance(self.options, str) else tuple(self.options)

    @property
    def of_text(self) -> tuple[str, ...]:
        """The columns that the text is made of."""
        if self.template is not None:
            return tuple(dict.fromkeys(FIELD.findall(self.template)))
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)


class SplitConfig(Schema):
    """How examples are divided where files do not say it; groups stay whole."""

    by: Literal["chance", "time", "site"] = "chance"
    """chance; time: the latest groups are for test, those before them for validation; site: those
    of the named sites are for test, validation is chosen by chance."""
    column: str | None = None
    """time: dates as YYYY-MM-DD (and a time); site: names."""
    test_sites: list[str] = []
    """site: the ones for test."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Share of the groups of `train` that becomes validation, if no file is given for it."""
    test: float = Field(0.2, gt=0, lt=1)
    """Share of the groups of `train` that becomes test, if no file is given for it."""
    seed: int = Field(0, ge=0)
    """Decides which ones, by chance."""

    @pydantic.model_validator(mode="after")
    def _has_its_column(self) -> Self:
        if (self.by == "chance") != (self.column is None):
            raise ValueError("column is for splits by time or site, which need it")
        if (self.by == "site") != bool(self.test_sites):
            raise ValueError("test_sites is for splits by site, which need it")
        return self


class TaskConfig(Schema):
    """Labelled data and how it is read."""

    kind: Kind
    """What is predicted: a class, several, spans, an answer's span, a relation's class, a text."""
    train: str
    """File or folder with training examples."""
    validation: str | None = None
    """The same for choosing epoch, learning rate and thresholds; else a part of train."""
    test: str | None = None
    """The same for the score; else a part of train."""
    format: Format | None = None
    """table; tagging: iob (columns), brat, pubtator, spans (JSON lines with character offsets);
    question_answering: squad; relations: table (entities marked in the text), pubtator or forms;
    multilabel: table, or clip (the list of ids beside PhysioNet's sentence_level.csv);
    classification: table, or forms (case report forms: JSON lines of a text and its items)."""
    columns: ColumnsConfig = ColumnsConfig()
    """Of tables."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Of CSV and TSV columns; by default a comma and a tab."""
    quote: Annotated[str, Field(max_length=1)] = '"'
    """Quotes CSV and TSV fields; empty where the file has no quoting."""
    encoding: str = "utf-8"
    """Of text files."""
    tag_column: int = 1
    """iob: which column holds the tag, from 0; the word is in column 0."""
    label_separator: str | None = None
    """multilabel: stands between the classes of a cell, and in what a T5 writes (there ", " without
    it)."""
    labels: list[str] | None = Field(None, min_length=1)
    """All classes, also those that train lacks; by default those of train, sorted."""
    no_relation: str | None = None
    """relations: the class that stands for none; F1 is over the others."""
    pair_types: tuple[str, str] | None = None
    """relations from pubtator: the types of the two entities."""
    cleaning: CleaningConfig | None = None
    """Of texts, as in `prepare`; offsets forbid it for tagging and question_answering."""
    max_length: int = Field(256, ge=8)
    """Tokens of a row, special ones included."""
    long: Literal["head", "tail", "head_tail", "windows"] = "head"
    """A text beyond it: what is kept; windows: all of it, in overlapping rows whose scores are
    averaged. Tagging always uses windows, and an encoder for question_answering."""
    stride: int = Field(64, ge=1)
    """Tokens that neighbouring windows share."""
    null_windows: float = Field(1.0, gt=0, le=1)
    """question_answering: share of the training windows without the answer's span that is trained
    on, by chance; contexts of many windows have little else (Alberti et al. 2019 keep 0.02)."""
    max_answer_length: int = Field(64, ge=1)
    """question_answering: tokens of an encoder's answer."""
    max_target_length: int = Field(64, ge=2)
    """Tokens that a T5 is trained to write, and may write, the end token included."""
    split: SplitConfig = SplitConfig()
    """Where files are not given for all splits."""
    open: bool = False
    """The data may be given to anyone; prompts made of them can then be exported."""
    terms: str | None = None
    """Licence or terms of use of the data, for messages."""
    allow_leaks: bool = False
    """Goes on, and counts, where a group, an id or a text is on two sides of a split."""

    @pydantic.model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        allowed = FORMATS[self.kind]
        if self.format is not None and self.format not in allowed:
            raise ValueError(
                f"format {self.format} is not for {self.kind}; use {' or '.join(allowed)}"
            )
        if self.cleaning and (
            self.kind in ("tagging", "question_answering") or self.format == "clip"
        ):
            raise ValueError(f"cleaning would move the offsets of {self.kind}; remove it")
        if self.split.column is not None and self.split.column not in self.columns.meta:
            raise ValueError(
                f"split.column {self.split.column} must also stand in columns.meta, so that it is "
                "read and results are given apart by it"
            )
        if self.columns.options is not None and self.kind != "classification":
            raise ValueError(f"columns.options is for classification, not for {self.kind}")
        if self.no_relation is not None and self.kind != "relations":
            raise ValueError(f"no_relation is for relations, not for {self.kind}; remove it")
        if self.null_windows < 1 and self.kind != "question_answering":
            raise ValueError(f"null_windows is for question_answering, not for {self.kind}")
        if self.label_separator is not None and self.kind != "multilabel":
            raise ValueError(f"label_separator is for multilabel, not for {self.kind}; remove it")
        if self.stride >= self.max_length - 4:
            raise ValueError(
                f"stride {self.stride} leaves windows of max_length {self.max_length} no room to "
                "move on; lower stride"
            )
        if self.file_format == "pubtator" and self.kind == "relations" and not self.pair_types:
            raise ValueError("relations from pubtator need pair_types, such as [Chemical, Disease]")
        return self

    @property
    def file_format(self) -> str:
        """The format of the files."""
        return self.format or FORMATS[self.kind][0]

    def path(self, split: str) -> str | None:
        """The path of a split's files."""
        return getattr(self, split)
