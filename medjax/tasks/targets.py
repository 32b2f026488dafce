"""What a model is trained to say of each row, and the arrays of a batch of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from medjax.config import UserError
from medjax.data.tokenize import text_tokenizer
from medjax.tasks.config import TaskConfig
from medjax.tasks.encode import NOWHERE, Rows, take_rows
from medjax.tasks.examples import Example, Span
from medjax.tasks.tagging import tag_names, tags_of_words
from medjax.tasks.text_forms import target

IGNORED = -100


def row_targets(
    examples: Sequence[Example], rows: Rows, labels: Sequence[str], config: TaskConfig
) -> list[np.ndarray]:
    """Of every row: the class (); 0 or 1 of each label [C]; tags [T]; the answer's ends [2].

    A window without the answer's span is trained as one without answer (its first token); the
    question keeps its gold.
    """
    if config.kind == "tagging":
        index = {tag: i for i, tag in enumerate(tag_names(labels))}
        tags = [
            np.array([index[tag] for tag in tags_of_words(e.gold, e.words)[0]], np.int32)
            for e in examples
        ]
        return [
            np.where(words[:, 0] >= 0, np.append(tags[i], 0)[words[:, 0]], IGNORED).astype(np.int32)
            for i, words in zip(rows.example, rows.places, strict=True)
        ]
    if config.kind == "question_answering":
        return [
            _ends(examples[i], places) for i, places in zip(rows.example, rows.places, strict=True)
        ]
    if config.kind == "multilabel":
        hot = np.zeros((len(examples), len(labels)), np.float32)
        for i, example in enumerate(examples):
            hot[i, list(example.gold)] = 1
        return list(hot[rows.example])
    return list(np.array([example.gold for example in examples], np.int32)[rows.example])


def text_targets(
    examples: Sequence[Example],
    rows: Rows,
    labels: Sequence[str],
    config: TaskConfig,
    tokenizer: Any,
) -> tuple[list[np.ndarray], int]:
    """Of every row the tokens that a T5 is to write [L], and how many were cut at the limit."""
    backend = text_tokenizer(tokenizer)
    written = [
        target(examples[i], labels, config, seen(examples[i], places, config))
        for i, places in zip(rows.example, rows.places, strict=True)
    ]
    limit, end = config.max_target_length - 1, [tokenizer.eos_token_id]
    ids = [found.ids for found in backend.encode_batch(written, add_special_tokens=False)]
    cut = sum(len(own) > limit for own in ids)
    return [np.array(own[:limit] + end, np.int32) for own in ids], cut


def seen(example: Example, places: np.ndarray, config: TaskConfig) -> tuple[int, int]:
    """First character and end of what a row of tagging holds of its text; else all of it."""
    if config.kind != "tagging":
        return 0, len(example.text)
    words = places[places[:, 0] != NOWHERE, 0]
    if not len(words):
        return 0, 0
    return example.words[words[0]][0], example.words[words[-1]][1]


def spans_within(example: Example, kept: str) -> tuple[Span, ...]:
    """The example's spans whose words stand in what was kept of its text."""
    ends = ((span, span.fragments[0][0], span.fragments[-1][1]) for span in example.gold)
    return tuple(span for span, start, end in ends if example.text[start:end] in kept)


def thin_null_windows(
    rows: Rows, targets: list[np.ndarray], share: float
) -> tuple[Rows, list[np.ndarray]]:
    """Of the rows that train "no answer" this share, by chance; all others."""
    null = np.array([not target.any() for target in targets])
    kept = np.flatnonzero(~null | (np.random.default_rng(0).random(len(null)) < share))
    return take_rows(rows, kept), [targets[i] for i in kept]


def collate(
    rows: Rows,
    targets: Sequence[np.ndarray] | None,
    chosen: Int64[np.ndarray, " B"],
    length: int,
    pad_id: int,
    target_length: int | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of a batch [B, length]; -1 in `chosen` is a row that counts nothing.

    Args:
      target_length: targets are filled up to it with IGNORED (tags, texts); none: all are alike.

    Keys: `input_ids`, `attention_mask`, `token_type_ids` where the tokenizer has them, `weight`
    and, with targets, `labels`.
    """
    batch = {
        "input_ids": np.full((len(chosen), length), pad_id, np.int32),
        "attention_mask": np.zeros((len(chosen), length), np.int32),
        "weight": (chosen >= 0).astype(np.float32),
    }
    if rows.token_type_ids is not None:
        batch["token_type_ids"] = np.zeros((len(chosen), length), np.int32)
    if targets is not None and target_length is not None:
        batch["labels"] = np.full((len(chosen), target_length), IGNORED, np.int32)
    elif targets is not None:
        batch["labels"] = np.zeros((len(chosen), *targets[0].shape), targets[0].dtype)
    for place, row in enumerate(chosen):
        if row < 0:
            batch["attention_mask"][place, 0] = 1  # attention over nothing is not a number
            continue
        ids = rows.input_ids[row]
        batch["input_ids"][place, : len(ids)] = ids
        batch["attention_mask"][place, : len(ids)] = 1
        if rows.token_type_ids is not None:
            batch["token_type_ids"][place, : len(ids)] = rows.token_type_ids[row]
        if targets is not None and target_length is not None:
            batch["labels"][place, : len(targets[row])] = targets[row]
        elif targets is not None:
            batch["labels"][place] = targets[row]
    return batch


def _ends(example: Example, places: np.ndarray) -> np.ndarray:
    """First and last token of the first answer; 0, 0 where it does not lie within the row."""
    if not example.gold:
        return np.zeros(2, np.int32)
    start = example.gold[0].start
    end = start + len(example.gold[0].text)
    inside = places[:, 0] != NOWHERE
    first = np.flatnonzero(inside & (places[:, 0] <= start) & (places[:, 1] > start))
    last = np.flatnonzero(inside & (places[:, 0] < end) & (places[:, 1] >= end))
    if not len(first) or not len(last):
        return np.zeros(2, np.int32)
    return np.array([first[0], last[-1]], np.int32)


def class_weights(
    wanted: str | list[float] | None, examples: Sequence[Example], labels: Sequence[str], kind: str
) -> list[float] | None:
    """The weight of each class in the loss; "balanced": by inverse frequency.

    Raises:
      UserError: the kind has no classes, or another number of them.
    """
    if wanted is None:
        return None
    if kind in ("tagging", "question_answering", "text_to_text"):
        raise UserError(f"training.class_weights is not for {kind}; remove it")
    if wanted == "balanced":
        golds = (e.gold if isinstance(e.gold, tuple) else (e.gold,) for e in examples)
        counts = Counter(label for gold in golds for label in gold)
        total = sum(counts.values())
        return [total / (len(labels) * max(counts[i], 1)) for i in range(len(labels))]
    if len(wanted) != len(labels):
        raise UserError(
            f"training.class_weights has {len(wanted)} numbers for {len(labels)} classes "
            f"({', '.join(labels)})"
        )
    return list(wanted)
