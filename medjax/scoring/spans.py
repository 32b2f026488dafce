"""Tagging, scored on character spans: type and all boundaries must be right.

The gold spans are those of the files, so that an entity which was cut off, is discontinuous or
does not begin and end with a word counts as missed. Beside it stands seqeval's strict figure over
the words' BIO tags, which most papers print.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medjax.scoring.metric import Metric, additive, ratio

if TYPE_CHECKING:
    from medjax.tasks.examples import Span


def span_metrics(
    gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], kind: str | None = None
) -> list[Metric]:
    """Strict micro F1, precision and recall, of one type of span or of all."""
    counts = np.zeros((len(gold), 3))
    for i, (own, found) in enumerate(zip(gold, predicted, strict=True)):
        own, found = ({s for s in spans if kind in (None, s.type)} for spans in (own, found))
        counts[i] = len(own & found), len(found), len(own)
    return _metrics("span", counts)


def string_set_metrics(
    gold: Sequence[frozenset[tuple[str, str]]], predicted: Sequence[frozenset[tuple[str, str]]]
) -> list[Metric]:
    """Micro F1, precision and recall of the sets of (type, words) of each example.

    How generated entities are mostly scored elsewhere: where they stand, and how often, is not
    asked, so that the figures are not those of spans.
    """
    counts = np.zeros((len(gold), 3))
    for i, (own, found) in enumerate(zip(gold, predicted, strict=True)):
        counts[i] = len(own & found), len(found), len(own)
    return _metrics("string_set", counts)


def seqeval_metrics(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> list[Metric]:
    """seqeval's strict mode (scheme IOB2) over the tags of the words of each example."""
    counts = np.zeros((len(gold), 3))
    for i, (own, found) in enumerate(zip(gold, predicted, strict=True)):
        own, found = (set(chunks(tags, strict=True)) for tags in (own, found))
        counts[i] = len(own & found), len(found), len(own)
    return _metrics("seqeval", counts)


def chunks(tags: Sequence[str], *, strict: bool) -> list[tuple[int, int, str]]:
    """(first word, end, type) of the chunks of BIO tags.

    Args:
      strict: only B- begins a chunk, as in IOB2; otherwise an I- that continues nothing does too
        (conlleval).
    """
    found, begin, kind = [], None, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, own = tag.partition("-")
        goes_on = begin is not None and prefix == "I" and own == kind
        if begin is not None and not goes_on:
            found.append((begin, place, kind))
            begin = None
        if prefix == "B" or (prefix == "I" and begin is None and not goes_on and not strict):
            begin, kind = place, own
    return found


def _metrics(name: str, counts: np.ndarray) -> list[Metric]:
    return [
        additive(f"{name}_f1", counts, "f1"),
        additive(f"{name}_precision", counts, lambda s: ratio(s[:, 0], s[:, 1])),
        additive(f"{name}_recall", counts, lambda s: ratio(s[:, 0], s[:, 2])),
    ]
