"""Extractive question answering: SQuAD v1 and v2 files, and answers out of start and end scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.config import UserError
from medjax.data.files import bytes_of
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Answer, Example, Report

MAX_SHIFT = 16  # characters by which an answer may stand beside its answer_start
MOVED = "answer_start off by a few characters (moved to the answer)"
N_BEST = 20


class Found(NamedTuple):
    """The best answer that is not empty, and how much better none would be."""

    text: str
    start: int
    end: int
    margin: float
    """Score of no answer less that of this one: the null threshold is compared with it."""


def read_squad(path: str, config: TaskConfig, report: Report) -> Iterator[Example]:
    """Questions of a SQuAD file; the paragraph is the group.

    An answer that stands a few characters beside its `answer_start` is moved there and counted.

    Raises:
      UserError: the file is of another form, an id occurs twice, or an answer is not where it says.
    """
    seen: set[str] = set()
    for title, paragraph in _paragraphs(Path(path)):
        context = paragraph["context"]
        for question in paragraph["qas"]:
            report.rows += 1
            name = str(question["id"])
            if name in seen:
                raise UserError(f"{path}: the id {name} occurs twice; ids must differ")
            seen.add(name)
            if not context.strip() or not question["question"].strip():
                report.excluded["empty context or question"] += 1
                continue
            gold = []
            if not question.get("is_impossible"):
                for answer in question.get("answers", ()):
                    start = _place(context, answer["text"], answer["answer_start"])
                    if start is None:
                        raise UserError(
                            f"{path}: question {name}: its answer does not stand within "
                            f"{MAX_SHIFT} characters of answer_start {answer['answer_start']}; "
                            "correct the file (offsets count characters, from 0)"
                        )
                    report.repaired[MOVED] += start != answer["answer_start"]
                    gold.append(Answer(answer["text"], start))
            report.examples += 1
            yield Example(name, context, question["question"], tuple(gold), group=title)
    report.repaired = +report.repaired


def best_answer(
    example: Example,
    scores: Sequence[Float[np.ndarray, "T 2"]],
    offsets: Sequence[np.ndarray],
    max_tokens: int,
) -> Found:
    """The best span over the windows of a context.

    Args:
      scores: of beginning and end, for each token of each window; the first token is "no answer".
      offsets: characters of the context for each token of each window; -1 outside of it.
    """
    best, null = Found("", 0, 0, 0.0), np.inf
    highest = -np.inf
    for window, places in zip(scores, offsets, strict=True):
        null = min(null, float(window[0].sum()))
        inside = np.flatnonzero(places[:, 0] >= 0)
        starts, ends = (inside[np.argsort(-window[inside, i])[:N_BEST]] for i in (0, 1))
        totals = window[starts, 0][:, None] + window[ends, 1][None]
        length = ends[None] - starts[:, None]
        totals = np.where((length >= 0) & (length < max_tokens), totals, -np.inf)
        if totals.size and totals.max() > highest:
            highest = float(totals.max())
            first, last = np.unravel_index(np.argmax(totals), totals.shape)
            begin, end = int(places[starts[first], 0]), int(places[ends[last], 1])
            best = Found(example.text[begin:end], begin, end, 0.0)
    return best._replace(margin=null - highest)


def _paragraphs(path: Path) -> list[tuple[str, dict]]:
    """(document, paragraph) of a file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the task's paths")
    with bytes_of(path) as (content, _):
        data = content.read()
    try:
        found = [
            (str(paragraph.get("document_id") or article.get("title") or place), paragraph)
            for place, article in enumerate(json.loads(data)["data"])
            for paragraph in article["paragraphs"]
        ]
        if not all(
            isinstance(text, str)
            for _, paragraph in found
            for text in (paragraph["context"], *(q["question"] for q in paragraph["qas"]))
        ) or not all("id" in question for _, paragraph in found for question in paragraph["qas"]):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path}: no SQuAD file (data, paragraphs, context, qas, question, id, answers)"
        ) from None
    return found


def _place(context: str, answer: str, start: int) -> int | None:
    """Where the answer stands, next to `start`."""
    if not answer or not isinstance(start, int):
        return None
    near = [s for s in range(start - MAX_SHIFT, start + MAX_SHIFT + 1) if s >= 0]
    near = [s for s in near if context.startswith(answer, s)]
    return min(near, key=lambda s: abs(s - start)) if near else None
