"""Tagging files of every form, spans to tags and back, and what cannot be said in BIO."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.config import UserError
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Report, Span
from medjax.tasks.tagging import (
    NO_BIO,
    ORPHAN,
    WORD,
    read_tagging,
    spans_of_tags,
    tag_names,
    tags_of_words,
)

TEXT = "Left arm pain and swelling, no fever."


def read(path, **options):
    config = TaskConfig(kind="tagging", train=str(path), **options)
    report = Report()
    return list(read_tagging(str(path), config, report)), report


def test_columns(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("Acute\tB-P\npain\tI-P\n.\tO\n\n-DOCSTART- O\n\nRash\tI-P\n\n", "utf-8")
    (first, second), report = read(path)
    assert first.text == "Acute pain ." and first.gold == (Span(((0, 10),), "P"),)
    assert first.words == ((0, 5), (6, 10), (11, 12)) and first.id == "a.tsv:1"
    assert second.gold == (Span(((0, 4),), "P"),)
    assert report.repaired == {ORPHAN: 1} and (report.rows, report.examples) == (2, 2)
    path.write_text("x 1 2 O\ny 1 2 B-P\n")
    assert len(read(path, tag_column=3)[0][0].gold) == 1
    with pytest.raises(UserError, match=r"line 1: 4 columns, but tag_column is 7"):
        read(path, tag_column=7)
    with pytest.raises(UserError, match=r"line 1: column 1 holds no tag of the form"):
        read(path)


def test_brat_with_a_discontinuous_span(tmp_path):
    (tmp_path / "n1.txt").write_text(TEXT)
    lines = ["T1\tSymptom 0 13\tLeft arm pain", "T2\tSymptom 0 8;18 26\tLeft arm swelling"]
    (tmp_path / "n1.ann").write_text("\n".join([*lines, "A1\tNegated T2", "#1\tnote T1\tsure"]))
    (example,), report = read(tmp_path, format="brat")
    assert example.gold[1] == Span(((0, 8), (18, 26)), "Symptom")
    assert report.repaired == {NO_BIO: 1} and len(example.gold) == 2  # it stays in the gold
    (tmp_path / "n2.txt").write_text("x")
    with pytest.raises(UserError, match=r"n2\.ann: missing"):
        read(tmp_path, format="brat")
    (tmp_path / "n2.ann").write_text("T1\tSymptom 0 9\tx")
    with pytest.raises(UserError, match="a span from 0 to 9 does not lie in its text of 1"):
        read(tmp_path, format="brat")


def test_pubtator(tmp_path):
    path = tmp_path / "a.txt"
    rows = ["7|t|Naloxone reverses.", "7|a|In rats, clonidine.", "7\t0\t8\tNaloxone\tChemical\tD1"]
    rows += ["7\t28\t37\tclonidine\tChemical\tD2|D3", "7\tCID\tD1\tM1", "", "8|t|None.", "8|a|"]
    path.write_text("\n".join(rows) + "\n")
    (first, second), _ = read(path, format="pubtator")
    assert first.text == "Naloxone reverses. In rats, clonidine."
    assert [first.text[s.fragments[0][0] : s.fragments[0][1]] for s in first.gold] == [
        "Naloxone",
        "clonidine",
    ]
    assert second.gold == () and second.id == "8"


def test_json_lines_with_spans(tmp_path):
    path = tmp_path / "a.jsonl"
    spans = [{"start": 9, "end": 13, "label": "S"}, {"fragments": [[0, 4], [18, 26]], "label": "S"}]
    rows = [{"text": TEXT, "label": spans, "id": 5}, {"text": " ", "label": []}]
    path.write_text("\n".join(map(json.dumps, rows)))
    (example,), report = read(path, format="spans")
    assert example.id == "5" and len(example.gold) == 2
    assert report.excluded == {"empty text": 1}
    path.write_text('{"text": "Xylocanary"}')
    with pytest.raises(UserError, match="line 1: not an object with 'text' and a list") as error:
        read(path, format="spans")
    assert "canary" not in str(error.value)


def test_spans_that_overlap_or_cut_words_are_left_out_of_the_tags():
    words = [m.span() for m in WORD.finditer(TEXT)]
    long, inner = Span(((0, 13),), "S"), Span(((5, 8),), "S")
    cut = Span(((18, 21),), "S")
    tags, left_out = tags_of_words([inner, long, cut], words)
    assert tags[:3] == ["B-S", "I-S", "I-S"] and left_out == 2
    assert Counter(tags)["O"] == len(words) - 3


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4), st.sampled_from("XY"))))
def test_tags_and_spans_are_inverse(choices):
    words = [(6 * i, 6 * i + 5) for i in range(35)]
    spans, end = [], 0
    for first, length, kind in sorted(choices):
        if first >= end:
            end = first + length
            spans.append(Span(((words[first][0], words[end - 1][1]),), kind))
    tags, left_out = tags_of_words(spans, words)
    assert left_out == 0 and set(tags) <= set(tag_names("XY"))
    assert set(spans_of_tags(tags, words)) == set(spans)
