"""De-identification placeholders: the paper's inventory, and what is not one."""

from collections import Counter

import pytest

from medjax.data.clean import clean
from medjax.data.config import CleaningConfig
from medjax.data.placeholders import TAGS, UNKNOWN, placeholder_type, remove_tags

TYPED = CleaningConfig(placeholders="typed")


@pytest.mark.parametrize(
    ("inner", "tag"),
    [
        ("Last Name (un) 123", "[Name]"),
        ("Known firstname 5", "[Name]"),
        ("Doctor First Name 17", "[Name]"),
        ("Name Initial (NameIs)", "[Name]"),
        ("Attending Info 99", "[Name]"),
        ("Hospital1 18", "[LOC]"),
        ("Hospital Ward Name", "[LOC]"),
        ("Street Address(2) 4", "[LOC]"),
        ("Company 22", "[Company]"),
        ("University/College 5", "[Company]"),
        ("State 350", "[State]"),
        ("Country 9362", "[Country]"),
        ("Telephone/Fax (1) 7", "[CI]"),
        ("Pager number 8", "[CI]"),
        ("Medical Record Number 3", "[Reg#]"),
        ("Numeric Identifier 76", "[Reg#]"),
        ("12345", "[Reg#]"),
        ("Age over 90 43", "[Age]"),
        ("Date range (1) 4", "[DR]"),
        ("URL 8", "[URL]"),
        ("Year (4 digits) 5", "[YR]"),
        ("Month (only) 3", "[MO]"),
        ("Holiday 1", "[DAY]"),
        ("Quux 7", None),
    ],
)
def test_types(inner, tag):
    assert placeholder_type(inner) == tag
    assert tag is None or tag in TAGS


@pytest.mark.parametrize(
    ("text", "typed", "one"),
    [
        ("Mr.[**Last Name (un) 5**]'s", "Mr.[Name]'s", "Mr.[DEID]'s"),
        ("on [**2151-7-16**] and [**7-16**]", "on 2151-7-16 and 7-16", "on [DEID] and [DEID]"),
        ("[**July 2151**], [**16 July**]", "July 2151, 16 July", "[DEID], [DEID]"),
        ("seen by [**Hospital\nUnit Name 4**]", "seen by [LOC]", "seen by [DEID]"),
        ("Dr. ___ at ______, but a_b __", "Dr. [MISC] at [MISC], but a_b __", None),
        ("empty [** **] one", "empty one", "empty one"),
        ("[**never closed", "[**never closed", "[**never closed"),
    ],
)
def test_forms(text, typed, one):
    assert clean(text, TYPED) == typed
    one = one or typed.replace("[MISC]", "[DEID]")
    assert clean(text, CleaningConfig(placeholders="tag")) == one
    assert clean(text, CleaningConfig(collapse_spaces=False)) == text


def test_an_unknown_type_is_counted_and_never_shown():
    notices = Counter()
    text = "[**Zebra 9**] and [**Last Name**] and [**Zebra 10**]"
    assert clean(text, TYPED, notices) == "[MISC] and [Name] and [MISC]"
    assert notices == {UNKNOWN: 2}


def test_tags_are_removed_for_training():
    assert remove_tags(["by [Name], at [LOC]", "[Name]"], "typed") == ["by, at", ""]
    assert remove_tags(["by [Name]"], "tag") == ["by [Name]"]
