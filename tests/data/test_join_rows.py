"""Notes in several rows, as hospital systems export them."""

import json

import pytest

from tests.data.test_sources import read

LINES = [("n1", 1, "Chief"), ("n2", 2, "b"), ("n1", 10, "end"), ("n2", 1, "a"), ("n1", 2, "mid")]


def write(folder, rows=LINES):
    lines = [
        json.dumps({"note": note, "line": line, "patient": f"p{note}", "text": text})
        for note, line, text in rows
    ]
    path = folder / "lines.jsonl"
    path.write_text("\n".join(lines))
    return path


def joined(path, **options):
    notes, tally = read(path, id=None, join_by="note", **options)
    return {n.id: n.text for n in notes}, tally


def test_rows_are_joined_in_order_wherever_they_stand(tmp_path):
    path = write(tmp_path)
    found, tally = joined(path, order_by="line")
    assert found == {"n1": "Chief\nmid\nend", "n2": "a\nb"}
    assert tally.rows == 5 and not tally.drops
    assert joined(path)[0] == {"n1": "Chief\nend\nmid", "n2": "b\na"}
    assert joined(path, order_by="line", join_with="")[0]["n1"] == "Chiefmidend"
    notes, _ = read(path, id=None, join_by="note", order_by="line")
    assert {n.id: n.patient for n in notes} == {"n1": "pn1", "n2": "pn2"}


def test_lines_that_are_no_numbers_go_by_their_text(tmp_path):
    path = write(tmp_path, [("n", "b", "2"), ("n", "a10", "1"), ("n", None, "0")])
    assert joined(path, order_by="line")[0] == {"n": "0\n1\n2"}


def test_rows_without_a_key_or_text_are_counted(tmp_path):
    rows = [("n", 1, "x"), (None, 1, "lost"), ("n", 2, ""), ("e", 1, None), ("t", 1, 5)]
    found, tally = joined(write(tmp_path, rows), order_by="line")
    assert found == {"n": "x"} and tally.rows == 5
    assert tally.drops == {
        "no value in join_by": 1,
        "empty text": 1,
        "text is not a string": 1,
    }


def test_many_buckets_give_the_same_notes(tmp_path, monkeypatch):
    rows = [(f"n{i % 50}", i, str(i)) for i in range(1000)]
    path = write(tmp_path, rows)
    expected, _ = joined(path, order_by="line")
    assert len(expected) == 50 and expected["n7"].split("\n")[:2] == ["7", "57"]
    monkeypatch.setattr("medjax.data.join_rows.BUCKET_BYTES", 10_000)
    assert joined(path, order_by="line")[0] == expected


def test_order_by_needs_join_by():
    from medjax.data.config import SourceConfig

    with pytest.raises(ValueError, match="set join_by too"):
        SourceConfig(path="x", order_by="line")
