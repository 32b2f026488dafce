"""Entities as JSON: what is written is read again, and what is not such a list counts as wrong."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.decoding.automaton import HOLE
from medjax.tasks.config import TaskConfig
from medjax.tasks.entities import Mention, entity_strings, locate, read_entities
from medjax.tasks.entities import write_entities as write
from medjax.tasks.examples import Span
from medjax.tasks.prompts import Prompter
from medjax.tasks.templates import Template
from medjax.training.writing import outside_passages, possible

TEXT = 'No fever. Says "chest  pain"; metformin\n500 mg, più febbre \\ tosse.'
TYPES = {"finding": "Finding", "drug": "Drug"}
WHOLE = (0, len(TEXT))


def span(words, kind="Finding"):
    start = TEXT.index(words)
    return Span(((start, start + len(words)),), kind)


GOLD = (span('"chest  pain"; metformin\n500', "Drug"), span("febbre \\ tosse"), span("fever"))


def test_what_is_written_is_read_again():
    written = write(GOLD, TEXT, WHOLE, "json")
    assert json.loads(written)[0] == {"type": "Finding", "text": "fever"}
    assert "più" not in written and write([span("più")], TEXT, WHOLE, "json").count("più") == 1
    found, understood = locate(read_entities(written, "json"), TEXT, TYPES, WHOLE)
    assert set(found) == set(GOLD) and understood
    assert write(GOLD, TEXT, (20, len(TEXT)), "json").count("type") == 1
    assert write((), TEXT, WHOLE, "json") == "[]" and read_entities("[]", "json") == []


def allowed(form):
    """What constraints let through, if passages were any words."""
    template = Template(name="own", instruction="Findings?", entities=form, none="none")
    prompter = Prompter(template, ["Finding", "Drug"], TaskConfig(kind="tagging", train="x.tsv"))
    held = f"[^{re.escape(outside_passages(prompter))}]+"
    return re.compile(possible(prompter).replace(HOLE, f" ?{held}"))


@given(st.sets(st.integers(0, 2)), st.sampled_from(["plain", "json"]))
def test_what_is_written_is_what_constraints_allow(chosen, form):
    """But for JSON's escapes, which no passage of a text has."""
    written = write([GOLD[i] for i in sorted(chosen)], TEXT, WHOLE, form)
    assert bool(allowed(form).fullmatch(written or "none")) == (
        form == "plain" or not chosen & {0, 1}
    )
    assert written != "none"


def test_what_constraints_do_not_allow():
    for wrong in ('[{"type": "Other", "text": "fever"}]', '[{"type": "Drug"}]', "{}", ""):
        assert not allowed("json").fullmatch(wrong)
    assert not allowed("json").fullmatch('[{"type": "Drug", "text": ""}]')
    assert not allowed("plain").fullmatch("Drug: a; b")


def test_a_list_is_found_among_other_words():
    inner = '[{"text": "Fever", "type": "finding", "sure": true}]'
    for output in (inner, f"Here they are:\n```json\n{inner}\n```\nMore? []"):
        mentions = read_entities(output, "json")
        assert mentions == [Mention("finding", "Fever")]
        assert locate(mentions, TEXT, TYPES, WHOLE) == ((span("fever"),), True)
        assert entity_strings(mentions, ["Finding"]) == {("Finding", "fever")}


@pytest.mark.parametrize(
    "output",
    [
        *("fever", '[{"type": "Finding", "text": "fev', '["fever"]', "[[1]]"),
        *(
            '[{"type": "Finding"}]',
            '[{"type": "Finding", "text": 5}]',
            '[{"type": "", "text": ""}]',
        ),
        *("[" * 100_000, '[{"type": "Smith", "text": "fever"}]'),
    ],
)
def test_what_says_nothing_is_wrong(output):
    mentions = read_entities(output, "json")
    found, understood = locate(mentions, TEXT, TYPES, WHOLE)
    assert not understood and len(found) == 1 and found[0].fragments[0][0] < 0
    assert found[0].type in ("no type", "Finding") and not entity_strings(mentions, ["Finding"])
