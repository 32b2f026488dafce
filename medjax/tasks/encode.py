"""Examples to rows of token ids: template, truncation or windows, and where each token stands.

A row is what the model sees at once; a long text has several (windows), of which neighbours share
`stride` tokens. Ids come from the tokenizer's own template for one text or a pair; special tokens
that stand in a text are text. A sentence of a document is seen in its context and said again after
`;` (Lehman et al. 2023, CLIP).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from medjax.config import UserError
from medjax.data.tokenize import text_tokenizer
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example

BATCH = 1000
NOWHERE = -1
AGAIN = ";"


class Template(NamedTuple):
    """Special tokens around one text, or around and between two."""

    single: tuple[list[int], list[int]]
    """Before and after."""
    pair: tuple[list[int], list[int], list[int]]
    """Before, between and after."""
    second_type: int
    """token_type_ids of the second text and what follows it."""


class Rows(NamedTuple):
    """What the model is given, row by row."""

    input_ids: list[Int32[np.ndarray, " T"]]
    token_type_ids: list[Int32[np.ndarray, " T"]] | None
    """None for tokenizers that have none."""
    example: Int64[np.ndarray, " R"]
    """Index of the row's example."""
    places: list[Int32[np.ndarray, "T 2"]]
    """First character and end of each token in the text; -1 for all other tokens. tagging: the
    word's number twice, at its first token alone."""
    cut: Bool[np.ndarray, " N"]
    """Examples of which tokens were left out."""

    @property
    def lengths(self) -> Int64[np.ndarray, " R"]:
        """Tokens of each row."""
        return np.array([len(ids) for ids in self.input_ids], np.int64)


class Piece(NamedTuple):
    """A tokenized text without special tokens."""

    ids: Int32[np.ndarray, " T"]
    places: Int32[np.ndarray, "T 2"]


def encode_examples(
    examples: Sequence[Example], tokenizer: Any, config: TaskConfig, *, windows: bool
) -> Rows:
    """The rows of examples, in order.

    Args:
      tokenizer: of `data.tokenize.load_tokenizer`.
      windows: a text beyond max_length has several rows; else it is cut as `config.long` says.
    """
    backend = text_tokenizer(tokenizer)
    template = read_template(backend)
    if examples and examples[0].document:
        return _in_context(examples, backend, template, config.max_length)
    ids, types, owners, places, cut = [], [], [], [], []
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        texts = (
            _words(backend, batch)
            if config.kind == "tagging"
            else _pieces(backend, [example.text for example in batch])
        )
        others: Sequence[Piece | None] = [None] * len(batch)
        if batch[0].text_pair is not None:
            others = _pieces(backend, [example.text_pair for example in batch])
        for number, (text, other) in enumerate(zip(texts, others, strict=True), start):
            rows, was_cut = _rows_of(text, other, template, config, windows)
            cut.append(was_cut)
            for row in rows:
                ids.append(row[0])
                types.append(row[1])
                places.append(row[2])
                owners.append(number)
    has_types = template.second_type != 0 and any(map(np.any, types))
    return Rows(
        ids, types if has_types else None, np.array(owners, np.int64), places, np.array(cut, bool)
    )


def read_template(backend: Any) -> Template:
    """The tokenizer's template, read off what it makes of two letters."""
    bare = [backend.encode(text, add_special_tokens=False).ids for text in ("a", "b")]
    single, pair = backend.encode("a"), backend.encode("a", "b")
    first = _find(single.ids, bare[0], 0)
    start = _find(pair.ids, bare[0], 0)
    second = _find(pair.ids, bare[1], start + len(bare[0]))
    end = second + len(bare[1])
    return Template(
        (single.ids[:first], single.ids[first + len(bare[0]) :]),
        (pair.ids[:start], pair.ids[start + len(bare[0]) : second], pair.ids[end:]),
        pair.type_ids[second],
    )


def _find(ids: list[int], part: list[int], start: int) -> int:
    for place in range(start, len(ids)):
        if ids[place : place + len(part)] == part:
            return place
    raise UserError("the tokenizer's template changes the text that it is put around")


def _pieces(backend: Any, texts: list[str]) -> list[Piece]:
    found = backend.encode_batch(texts, add_special_tokens=False)
    return [
        Piece(np.array(e.ids, np.int32), np.array(e.offsets, np.int32).reshape(-1, 2))
        for e in found
    ]


def _words(backend: Any, examples: Sequence[Example]) -> list[Piece]:
    """The tokens of the words one by one; a space goes before a word where one does in the text."""
    spelled = [
        [
            (" " if start == 0 or example.text[start - 1].isspace() else "")
            + example.text[start:end]
            for start, end in example.words
        ]
        for example in examples
    ]
    flat = [word for words in spelled for word in words]
    found = iter(backend.encode_batch_fast(flat, add_special_tokens=False) if flat else ())
    pieces = []
    for words in spelled:
        lists = [next(found).ids for _ in words]
        ids = np.array([i for own in lists for i in own], np.int32)
        places = np.full((len(ids), 2), NOWHERE, np.int32)
        first = 0
        for number, own in enumerate(lists):
            if own:
                places[first] = number
                first += len(own)
        pieces.append(Piece(ids, places))
    return pieces


def _rows_of(
    text: Piece, other: Piece | None, template: Template, config: TaskConfig, windows: bool
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], bool]:
    """(ids, types, places) of each row of an example, and whether something was cut."""
    around = template.single if other is None else template.pair
    room = config.max_length - sum(map(len, around))
    was_cut = False
    if other is not None:
        limit = room // 2 if windows else max(room // 2, room - len(text.ids))
        was_cut = len(other.ids) > limit
        other = Piece(other.ids[:limit], other.places[:limit])
        room -= len(other.ids)
    count = len(text.ids)
    if windows and count > room:
        step = max(room - config.stride, 1)
        starts = [*range(0, count - room, step), count - room]
        kept = [np.arange(start, start + room) for start in starts]
    elif count > room:
        was_cut = True
        kept = [kept_tokens(count, room, config.long)]
    else:
        kept = [np.arange(count)]
    question_first = config.kind == "question_answering"
    return [_row(text, keep, other, template, question_first) for keep in kept], was_cut


def kept_tokens(count: int, room: int, rule: str) -> np.ndarray:
    """Which tokens of so many are kept where there is room for fewer: head, tail or head_tail."""
    if count <= room:
        return np.arange(count)
    if rule == "tail":
        return np.arange(count - room, count)
    head = room if rule == "head" else room // 2
    return np.concatenate([np.arange(head), np.arange(count - (room - head), count)])


def _row(
    text: Piece, keep: np.ndarray, other: Piece | None, template: Template, other_first: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    own = Piece(text.ids[keep], text.places[keep])
    if other is None:
        parts = [_special(template.single[0]), own, _special(template.single[1])]
        second = 3
    else:
        hidden = Piece(other.ids, np.full_like(other.places, NOWHERE))
        pair = (hidden, own) if other_first else (own, hidden)
        before, between, after = map(_special, template.pair)
        parts, second = [before, pair[0], between, pair[1], after], 3
    lengths = [len(part.ids) for part in parts]
    types = np.zeros(sum(lengths), np.int32)
    types[sum(lengths[:second]) :] = template.second_type
    return (
        np.concatenate([part.ids for part in parts]),
        types,
        np.concatenate([part.places for part in parts]),
    )


def _special(ids: list[int]) -> Piece:
    return Piece(np.array(ids, np.int32), np.full((len(ids), 2), NOWHERE, np.int32))


def _in_context(
    examples: Sequence[Example], backend: Any, template: Template, max_length: int
) -> Rows:
    """What stands before a sentence, the sentence, what stands after it, `;`, the sentence again.

    The sentence takes half of the row at most; both sides get as much of the rest, and what one of
    them does not need goes to the other.
    """
    before, after = (np.array(part, np.int32) for part in template.single)
    again = _pieces(backend, [f" {AGAIN}"])[0].ids
    room = max_length - len(before) - len(again) - len(after)
    sentences: dict[int, list[np.ndarray]] = {}
    ids, cut = [], []
    for example in examples:
        key = id(example.document)
        if key not in sentences:
            first, *others = example.document
            spelled = [first, *(f" {sentence}" for sentence in others)]
            sentences[key] = [piece.ids for piece in _pieces(backend, spelled)]
        pieces = sentences[key]
        own = pieces[example.place][: room // 2]
        cut.append(len(own) < len(pieces[example.place]))
        rest = room - 2 * len(own)
        left = _take(pieces[: example.place][::-1], rest)
        right = _take(pieces[example.place + 1 :], rest)
        num_left = min(sum(map(len, left)), max(rest // 2, rest - sum(map(len, right))))
        left_ids = np.concatenate([*left[::-1], before[:0]])
        right_ids = np.concatenate([*right, before[:0]])[: rest - num_left]
        left_ids = left_ids[len(left_ids) - num_left :]
        ids.append(np.concatenate([before, left_ids, own, right_ids, again, own, after]))
    places = [np.full((len(row), 2), NOWHERE, np.int32) for row in ids]
    return Rows(ids, None, np.arange(len(examples)), places, np.array(cut, bool))


def _take(pieces: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """As many of the first pieces as hold so many tokens."""
    taken, total = [], 0
    for piece in pieces:
        if total >= count:
            break
        taken.append(piece)
        total += len(piece)
    return taken


def subset(rows: Rows, kept: Bool[np.ndarray, " N"]) -> Rows:
    """The rows of some of the examples, numbered anew."""
    own = take_rows(rows, np.flatnonzero(kept[rows.example]))
    numbers = np.cumsum(kept) - 1
    return own._replace(example=numbers[own.example], cut=rows.cut[kept])


def take_rows(rows: Rows, chosen: Int64[np.ndarray, " K"]) -> Rows:
    """Some of the rows, of the same examples."""
    types = rows.token_type_ids
    return Rows(
        [rows.input_ids[i] for i in chosen],
        None if types is None else [types[i] for i in chosen],
        rows.example[chosen],
        [rows.places[i] for i in chosen],
        rows.cut,
    )
