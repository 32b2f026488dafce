"""Extractive answers: the official script's rules on the cases that tell them apart."""

import pytest

from medjax.scoring.squad import exact_match, normalize, squad_metrics, token_f1


@pytest.mark.parametrize(
    ("gold", "predicted", "exact", "f1"),
    [
        (["the Lungs."], "lungs", 1, 1),
        (["An apple, a day"], "apple day", 1, 1),
        (["a"], "", 1, 1),  # nothing is left of it: a question without answer
        (["theory"], "the ory", 0, 0),
        (["heart failure"], "congestive heart failure", 0, 0.8),
        (["failure", "congestive heart failure"], "heart failure", 0, 0.8),
        (["pain pain"], "pain", 0, 2 / 3),
        (["5 mg"], "5mg", 0, 0),
        (["naïve"], "naive", 0, 0),
        (["β-blocker"], "βblocker", 1, 1),
        ([], "", 1, 1),
        ([], "anything", 0, 0),
        (["fever"], "", 0, 0),
        (["fever"], "the", 0, 0),
        ([], "the", 1, 1),
    ],
)
def test_edge_cases(gold, predicted, exact, f1):
    assert exact_match(gold, predicted) == exact
    assert token_f1(gold, predicted) == pytest.approx(f1)


def test_articles_are_words():
    assert normalize("A theatre, an Ant") == "theatre ant"


def test_with_and_without_answer_stand_apart():
    found = {
        metric.name: metric.value
        for metric in squad_metrics([["fever"], [], ["cough"], []], ["fever", "", "", "rash"])
    }
    assert found["exact_match"] == 0.5 and found["exact_match_has_answer"] == 0.5
    assert found["f1_no_answer"] == 0.5 and found["f1_always_empty"] == 0.5
    names = {metric.name for metric in squad_metrics([["a b"]], ["a b"])}
    assert "f1_no_answer" not in names
