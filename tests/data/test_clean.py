"""Cleaning, duplicates and the split."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medjax.config import UserError
from medjax.data.clean import clean
from medjax.data.config import CleaningConfig
from medjax.data.dedup import text_key
from medjax.data.sources import Note
from medjax.data.split import TRAIN, VALIDATION, check_split, split_of, split_unit

DEFAULT = CleaningConfig()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a\tb \u00a0 c  ", "a b c"),
        ("one\r\ntwo\rthree\x0bfour\x85five\u2028six", "one\ntwo\nthree\nfour\nfive\nsix"),
        ("A: \n\n\n\n\n  B", "A:\n\nB"),
        ("a\x00b\x07\ufeffc\x9f\ud800d", "abcd"),
        ("e\u0301 ½ ﬁ", "é ½ ﬁ"),
        (" \n\t\x00 ", ""),
    ],
)
def test_cleaning(text, cleaned):
    assert clean(text, DEFAULT) == cleaned


def test_cleaning_options():
    assert clean("½ ﬁ Å", CleaningConfig(unicode="NFKC")) == "1⁄2 fi Å"
    table = "Na   139\nK     4.1\n\n\n\nCr\t0.9"
    assert clean(table, CleaningConfig(collapse_spaces=False)) == table.replace("\t", " " * 6)


@example("0 \x1b\r0")
@given(st.text())
def test_cleaning_twice_changes_nothing(text):
    once = clean(text, DEFAULT)
    assert clean(once, DEFAULT) == once
    once.encode()


def test_exact_duplicates_ignore_white_space_alone():
    assert text_key("No fever.") == text_key(" No  fever.\n")
    assert len({text_key(t) for t in ("No fever.", "no fever.", "No fever", "Nofever.")}) == 4


def note(text="text", patient="7", source="a"):
    return Note(text, "id", patient, source)


def test_a_patient_is_never_divided_and_never_moves():
    units = [split_unit(note(patient=str(i))) for i in range(4000)]
    sides = [split_of(unit, 0, 0.1) for unit in units]
    assert 0.08 < sides.count(VALIDATION) / len(sides) < 0.12
    assert split_unit(note("other text")) == split_unit(note())
    assert split_unit(note(source="b")) != split_unit(note())
    assert [split_of(u, 0, 0.1) for u in units[2000:]] == sides[2000:]
    assert [split_of(u, 1, 0.1) for u in units] != sides
    wider = [split_of(u, 0, 0.2) for u in units]  # a larger share only adds patients
    assert all(b == VALIDATION for a, b in zip(sides, wider, strict=True) if a == VALIDATION)
    assert {split_of(u, 0, 0.0) for u in units} == {TRAIN}
    pinned = "".join(split_of(u, 0, 0.5)[0] for u in units[:16])
    assert pinned == "vvttvvttvvttvvtv"


def test_without_a_patient_the_document_decides():
    a, b = note("one", None), note("two", None)
    assert split_unit(a) != split_unit(b)
    assert split_unit(a) == split_unit(a._replace(id="other", source="other"))


def test_a_split_with_an_empty_side_says_why():
    with pytest.raises(UserError, match="all 12 notes belong to one patient"):
        check_split({TRAIN: 12, VALIDATION: 0}, {TRAIN: 1, VALIDATION: 0}, 0.1)
    with pytest.raises(UserError, match="validation got none of 9 patients at .*fraction 0.01"):
        check_split({TRAIN: 12, VALIDATION: 0}, {TRAIN: 9, VALIDATION: 0}, 0.01)
    with pytest.raises(UserError, match="train got none of 3 documents"):
        check_split({TRAIN: 0, VALIDATION: 3}, {TRAIN: 0, VALIDATION: 0}, 0.9)
    check_split({TRAIN: 1, VALIDATION: 1}, {TRAIN: 0, VALIDATION: 0}, 0.5)
    check_split({TRAIN: 5}, {TRAIN: 1}, 0)
