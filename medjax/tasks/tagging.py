"""Tagging: spans from column files (IOB), brat stand-off, PubTator or JSON lines, as BIO tags.

Words are what the tags stand for: the file's own in column files, runs of letters and digits and
single other characters elsewhere. A span that does not begin and end with a word, overlaps a longer
one or is discontinuous has no BIO tags; it stays in the gold all the same, and counts as missed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from medjax.config import UserError
from medjax.data.files import bytes_of
from medjax.scoring.spans import chunks
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example, Report, Span

WORD = re.compile(r"\w+|[^\w\s]")
NO_BIO = "span that BIO tags cannot express (stays in the gold)"
ORPHAN = "I- without B- (read as B-)"


def read_tagging(path: str, config: TaskConfig, report: Report) -> Iterator[Example]:
    """Examples with spans as gold; text and offsets are those of the file.

    Raises:
      UserError: a file is missing or of another form, or a span lies outside its text.
    """
    readers = {"iob": _read_iob, "brat": _read_brat, "pubtator": _read_pubtator}
    for example in readers.get(config.file_format, _read_spans)(Path(path), config, report):
        for span in example.gold:
            for start, end in span.fragments:
                if not 0 <= start < end <= len(example.text):
                    raise UserError(
                        f"{path}: example {example.id}: a span from {start} to {end} does not lie "
                        f"in its text of {len(example.text)} characters; offsets count characters"
                    )
        report.examples += 1
        example = in_words(example)
        _, left_out = tags_of_words(example.gold, example.words)
        report.repaired[NO_BIO] += left_out
        yield example
    report.repaired = +report.repaired


def in_words(example: Example) -> Example:
    """The example with the words that its tags stand for."""
    words = example.words or tuple(match.span() for match in WORD.finditer(example.text))
    return example._replace(words=words)


def tag_names(labels: Sequence[str]) -> list[str]:
    """O, and B- and I- of every type."""
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


def tags_of_words(spans: Sequence[Span], words: Sequence[tuple[int, int]]) -> tuple[list[str], int]:
    """The words' BIO tags, longer spans first, and how many spans they leave out."""
    tags, left_out = ["O"] * len(words), 0
    starts = {start: i for i, (start, _) in enumerate(words)}
    ends = {end: i for i, (_, end) in enumerate(words)}
    for span in sorted(spans, key=lambda s: (s.fragments[0][0] - s.fragments[-1][1], s)):
        first, last = starts.get(span.fragments[0][0]), ends.get(span.fragments[-1][1])
        free = first is not None and last is not None
        free = free and all(tag == "O" for tag in tags[first : last + 1])
        if len(span.fragments) > 1 or not free or first > last:
            left_out += 1
            continue
        tags[first : last + 1] = [f"B-{span.type}"] + [f"I-{span.type}"] * (last - first)
    return tags, left_out


def spans_of_tags(tags: Sequence[str], words: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """The spans that BIO tags say, an I- that continues nothing read as B-."""
    found = chunks(tags, strict=False)
    return tuple(Span(((words[a][0], words[b - 1][1]),), kind) for a, b, kind in found)


def _read_iob(path: Path, config: TaskConfig, report: Report) -> Iterator[Example]:
    """Columns (word first), a blank line after each sentence; separated by tab or spaces."""
    sentence: list[tuple[str, str]] = []
    count = 0
    for number, line in enumerate([*_lines(path, config), ""], 1):
        if line.strip() and not line.startswith("-DOCSTART-"):
            cells = line.split("\t") if "\t" in line else line.split()
            if len(cells) <= config.tag_column:
                raise UserError(
                    f"{path}, line {number}: {len(cells)} columns, but tag_column is "
                    f"{config.tag_column} (from 0)"
                )
            if not re.fullmatch(r"O|[BI]-.+", cells[config.tag_column].strip()):
                raise UserError(
                    f"{path}, line {number}: column {config.tag_column} holds no tag of the form "
                    "O, B-type or I-type; set tag_column (from 0)"
                )
            sentence.append((cells[0], cells[config.tag_column].strip()))
        elif sentence:
            count += 1
            report.rows += 1
            yield _sentence(sentence, f"{path.name}:{count}", report.repaired)
            sentence = []


def _sentence(cells: list[tuple[str, str]], name: str, repaired: Counter[str]) -> Example:
    words, place = [], 0
    for word, _ in cells:
        words.append((place, place + len(word)))
        place += len(word) + 1
    tags = [tag for _, tag in cells]
    strict, lenient = (chunks(tags, strict=s) for s in (True, False))
    repaired[ORPHAN] += len(lenient) - len(strict)
    text = " ".join(word for word, _ in cells)
    return Example(name, text, gold=spans_of_tags(tags, words), group=name, words=tuple(words))


def _read_brat(path: Path, config: TaskConfig, report: Report) -> Iterator[Example]:
    """A folder of .txt files, each with an .ann file of its name; `T` lines are the spans."""
    files = sorted(path.rglob("*.txt")) if path.is_dir() else []
    if not files:
        raise UserError(f"{path}: no folder with .txt files; brat has a .txt and a .ann a document")
    for file in files:
        annotations = file.with_suffix(".ann")
        if not annotations.exists():
            raise UserError(f"{annotations}: missing; every .txt needs one, if only an empty one")
        report.rows += 1
        spans = []
        for line in _lines(annotations, config):
            if not line.startswith("T"):
                continue
            kind, _, offsets = line.split("\t")[1].partition(" ")
            pairs = [tuple(map(int, pair.split())) for pair in offsets.split(";")]
            spans.append(Span(tuple(pairs), kind))
        name = str(file.relative_to(path).with_suffix(""))
        yield Example(name, _text(file, config), gold=tuple(spans), group=name)


def _read_pubtator(path: Path, config: TaskConfig, report: Report) -> Iterator[Example]:
    for document in pubtator_documents(path, config):
        report.rows += 1
        spans = tuple(dict.fromkeys(Span(((s, e),), kind) for s, e, kind, _ in document.mentions))
        yield Example(document.id, document.text, gold=spans, group=document.id)


class Document:
    """A PubTator document: text (title, space, abstract), mentions and relations."""

    def __init__(self, name: str):
        self.id = name
        self.parts: list[str] = []
        self.mentions: list[tuple[int, int, str, str]] = []
        """Start, end, type, id of the concept."""
        self.relations: set[tuple[str, str]] = set()

    @property
    def text(self) -> str:
        """Title and abstract, as the offsets count them."""
        return " ".join(self.parts)


def pubtator_documents(path: Path, config: TaskConfig) -> Iterator[Document]:
    """The documents of a PubTator file."""
    document: Document | None = None
    for number, line in enumerate([*_lines(path, config), ""], 1):
        header = re.match(r"([^|\t]+)\|[ta]\|", line)
        if header:
            document = document or Document(header[1])
            document.parts.append(line[header.end() :])
        elif line.strip() and document:
            cells = line.split("\t")
            if len(cells) >= 5:
                for concept in (cells[5] if len(cells) > 5 else "").split("|"):
                    mention = (int(cells[1]), int(cells[2]), cells[4], concept)
                    document.mentions.append(mention)
            elif len(cells) == 4:
                document.relations.add((cells[2], cells[3]))
            else:
                raise UserError(f"{path}, line {number}: no line of PubTator's; check the format")
        elif document:
            yield document
            document = None


def _read_spans(path: Path, config: TaskConfig, report: Report) -> Iterator[Example]:
    """JSON lines: a text, and a list of {start, end, label} or {fragments: [[s, e]], label}."""
    columns = config.columns
    for number, line in enumerate(_lines(path, config), 1):
        if not line.strip():
            continue
        report.rows += 1
        try:
            row = json.loads(line)
            text, items = row[columns.text], row[columns.label]
            gold = tuple(
                Span(tuple(map(tuple, s.get("fragments") or [(s["start"], s["end"])])), s["label"])
                for s in items
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path}, line {number}: not an object with {columns.text!r} and a list "
                f"{columns.label!r} of spans with start, end and label"
            ) from None
        if not text.strip():
            report.excluded[f"empty {columns.text}"] += 1
            continue
        name = str(row.get(columns.id or "id", f"{path.name}:{number}"))
        group = str(row.get(columns.group, name)) if columns.group else name
        yield Example(name, text, gold=gold, group=group)


def _lines(path: Path, config: TaskConfig) -> list[str]:
    text = _text(path, config).removeprefix("\ufeff")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _text(path: Path, config: TaskConfig) -> str:
    """A text file, every character where it was."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the task's paths")
    with bytes_of(path) as (content, _):
        data = content.read()
    try:
        return data.decode(config.encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not valid {config.encoding} at byte {error.start}; set `encoding`"
        ) from None
