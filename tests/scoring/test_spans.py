"""Tagging: strict spans, and seqeval's figure by its own rules."""

import pytest

from medjax.scoring.spans import chunks, seqeval_metrics, span_metrics
from medjax.tasks.examples import Span


def value(metrics, name):
    return next(metric.value for metric in metrics if metric.name == name)


@pytest.mark.parametrize(
    ("tags", "strict", "lenient"),
    [
        ("B-X I-X O B-Y", [(0, 2, "X"), (3, 4, "Y")], [(0, 2, "X"), (3, 4, "Y")]),
        ("B-X B-X I-X", [(0, 1, "X"), (1, 3, "X")], [(0, 1, "X"), (1, 3, "X")]),
        ("I-X I-X O", [], [(0, 2, "X")]),
        ("B-X I-Y I-Y", [(0, 1, "X")], [(0, 1, "X"), (1, 3, "Y")]),
        ("B-X O I-X", [(0, 1, "X")], [(0, 1, "X"), (2, 3, "X")]),
        ("", [], []),
    ],
)
def test_chunks(tags, strict, lenient):
    assert chunks(tags.split(), strict=True) == strict
    assert chunks(tags.split(), strict=False) == lenient


def test_spans_must_agree_in_type_and_all_boundaries():
    gold = [[Span(((0, 4),), "X"), Span(((0, 2), (5, 7)), "X")], [Span(((3, 5),), "Y")]]
    found = [[Span(((0, 4),), "X"), Span(((0, 7),), "X")], [Span(((3, 5),), "X")]]
    metrics = span_metrics(gold, found)
    assert value(metrics, "span_precision") == pytest.approx(1 / 3)
    assert value(metrics, "span_recall") == pytest.approx(1 / 3)
    assert value(span_metrics(gold, found, "Y"), "span_recall") == 0
    assert value(span_metrics(gold, gold), "span_f1") == 1


def test_seqeval_in_strict_mode():
    """Figures of seqeval 1.2.2, mode="strict", scheme=IOB2."""
    gold = [["B-X", "I-X", "O", "B-Y"], ["O", "B-X", "O"]]
    found = [["B-X", "I-X", "O", "I-Y"], ["O", "B-X", "I-X"]]
    metrics = seqeval_metrics(gold, found)
    assert value(metrics, "seqeval_precision") == pytest.approx(0.5)
    assert value(metrics, "seqeval_recall") == pytest.approx(1 / 3)
