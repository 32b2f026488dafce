"""Tasks as text: what is written says the gold again, and whatever else is written counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medjax.config import UserError
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Answer, Example, Span
from medjax.tasks.text_forms import check_labels, parse, source, target

TEXT = "No fever. Chest  pain today, chest pain gone; metformin 500 mg held (fever)."
LABELS = ("Imaging-related followup", "Lab-related followup", "Other helpful information")


def config(kind, **options):
    return TaskConfig(kind=kind, train="x", **options)


def span(words, kind="X", after=0):
    start = TEXT.index(words, after)
    return Span(((start, start + len(words)),), kind)


def says(output, kind, labels=LABELS, **options):
    """What an output means for TEXT."""
    return parse(output, Example("1", TEXT), labels, config(kind, **options), (0, len(TEXT)))


@pytest.mark.parametrize("kind", ["classification", "relations"])
def test_a_class(kind):
    for number, label in enumerate(LABELS):
        written = target(Example("1", TEXT, gold=number), LABELS, config(kind), (0, 0))
        assert written == label and says(f" {label.upper()} ", kind).value == number
    for output in ("", "Lab", "Lab-related followup, Imaging-related followup"):
        assert says(output, kind) == (-1, False)


@given(st.sets(st.integers(0, 2)))
def test_several_classes(gold):
    example = Example("1", TEXT, gold=tuple(sorted(gold)))
    written = target(example, LABELS, config("multilabel"), (0, 0))
    assert says(written, "multilabel") == (example.gold, True)
    assert says(f"{written}, nonsense", "multilabel") == (example.gold, False)


def test_no_class_is_the_empty_text():
    assert target(Example("1", TEXT, gold=()), LABELS, config("multilabel"), (0, 0)) == ""
    assert says("", "multilabel") == ((), True)


def test_entities_are_found_from_left_to_right():
    first, second = span("Chest  pain"), span("chest pain")
    gold = (second, first, span("metformin", "DRUG"))
    example = Example("1", TEXT, gold=gold)
    written = target(example, ("X", "DRUG"), config("tagging"), (0, len(TEXT)))
    assert written == "X: Chest pain; X: chest pain; DRUG: metformin"
    found = says(written, "tagging", ("X", "DRUG"))
    assert set(found.value) == set(gold) and found.understood
    assert says("", "tagging") == ((), True)


def test_an_entity_that_stands_nowhere_counts_as_wrong():
    found = says("X: cough; X: rash; DRUG metformin; Y: fever; X: in", "tagging", ("X", "DRUG"))
    assert not found.understood and len(found.value) == 5
    assert all(start < 0 for own in found.value for start, _ in own.fragments)
    secret = says("Mrs Smith: fever; of 12 Elm Street", "tagging", ("X", "DRUG"))
    assert {span.type for span in secret.value} == {"no type"} and len(secret.value) == 2


def test_entities_are_whole_words_within_what_is_seen():
    example = Example("1", TEXT)
    task = config("tagging")
    seen = (TEXT.index("Chest"), len(TEXT))
    found = parse("X: fever", example, ("X",), task, seen).value
    assert found == (span("fever", after=20),)
    discontinuous = Span(((0, 2), (10, 15)), "X")
    semicolon = span("gone; metformin")
    example = Example("1", TEXT, gold=(discontinuous, semicolon, span("No fever")))
    assert target(example, ("X",), task, (0, len(TEXT))) == "X: No fever"
    assert target(example, ("X",), task, (4, len(TEXT))) == ""


def test_answers():
    example = Example("1", TEXT, "What? ", (Answer("Chest  pain", 10),))
    task = config("question_answering")
    assert source(example, task) == f"question: What? context: {TEXT}"
    assert target(example, (), task, (0, 0)) == "Chest  pain"
    assert target(example._replace(gold=()), (), task, (0, 0)) == ""
    found = says("Chest pain", "question_answering").value
    assert (found.text, found.start, found.end) == ("Chest pain", 10, 21)
    assert says("rash", "question_answering").value.start == -1
    assert says(" ", "question_answering").value is None


def test_pairs_and_texts():
    pair = Example("1", "a cough", "no cough")
    assert source(pair, config("classification")) == "sentence1: a cough sentence2: no cough"
    assert source(Example("1", "a"), config("text_to_text")) == "a"
    assert target(Example("1", "a", gold="b c"), (), config("text_to_text"), (0, 0)) == "b c"
    assert says(" b  c ", "text_to_text").value.text == "b  c"


@pytest.mark.parametrize(
    ("kind", "labels", "problem"),
    [
        ("classification", ("Yes", "yes "), "the same text"),
        ("multilabel", ("a, b", "c"), "label_separator"),
        ("tagging", ("a:b", "c"), "colon"),
    ],
)
def test_labels_that_could_not_be_told_apart(kind, labels, problem):
    with pytest.raises(UserError, match=problem):
        check_labels(labels, config(kind))
    check_labels(LABELS, config(kind))
