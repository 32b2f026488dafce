"""Patients of evaluation sets stay out of the corpus; ids that occur nowhere are reported."""

import json

import pytest

from medjax.config import UserError
from medjax.data.config import HoldOutConfig, SourceConfig
from medjax.data.hold_out import HoldOut
from medjax.data.sources import identities


@pytest.fixture
def sources(tmp_path):
    rows = [{"id": i, "patient": i % 4, "text": "x"} for i in range(12)]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = str(tmp_path / "notes.jsonl")
    return [SourceConfig(path=path, id="id", patient="patient", name=n) for n in ("a", "b")]


def hold_out(sources, tmp_path, text, name="ids.txt", **options):
    (tmp_path / name).write_text(text)
    config = HoldOutConfig(path=str(tmp_path / name), **{"source": "a"} | options)
    return HoldOut([config], sources, identities)


def meet(held):
    """Asks for the patients 0 to 3 of both sources."""
    return [(n, p) for n in "ab" for p in "0123" if held.is_held_out(n, p)]


def test_patients_of_one_namespace_alone(sources, tmp_path):
    held = hold_out(sources, tmp_path, "1\n3.0\n99\n", evaluation="radqa")
    assert meet(held) == [("a", "1"), ("a", "3")] and not held.is_held_out("a", None)
    (info,) = held.report()
    assert (info.ids, info.found, info.notes, info.evaluation) == (3, 2, 2, "radqa")


def test_lists_of_notes_hold_out_their_patients(sources, tmp_path):
    held = hold_out(
        sources, tmp_path, "ROW_ID,x\n5,1\n6,1\n77,1\n", "i.csv", column="row_id", ids="note"
    )
    assert meet(held) == [("a", "1"), ("a", "2")]
    (info,) = held.report()
    assert (info.ids, info.found, info.notes) == (3, 2, 2)


def test_bad_input(sources, tmp_path):
    held = hold_out(sources, tmp_path, "88\n99\n")
    meet(held)
    with pytest.raises(
        UserError, match="none of its 2 patient ids occurs in the sources named 'a'"
    ):
        held.report()
    with pytest.raises(UserError, match="'c' is no source's name; there are a, b"):
        hold_out(sources, tmp_path, "1\n", source="c")
    with pytest.raises(UserError, match="2 columns; set the `column`"):
        hold_out(sources, tmp_path, "x,y\n1,2\n")
    with pytest.raises(UserError, match="no column 'z'"):
        hold_out(sources, tmp_path, "x,y\n1,2\n", column="z")
    with pytest.raises(UserError, match="is empty"):
        hold_out(sources, tmp_path, "")
    with pytest.raises(UserError, match="no `id` or no `patient` column"):
        bare = [SourceConfig(path=sources[0].path, name="a")]
        hold_out(bare, tmp_path, "1\n", ids="note")
