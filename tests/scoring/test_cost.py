"""The published figures from their own tables: break-even, FLOPs and what contradicts them."""

import statistics

import pytest

from medjax.published import papers, published_models, published_scores
from medjax.scoring.cost import Option, break_even, contradictions

MODELS = {model.name: model for model in published_models()}


def option(name, weight=1.0, *, own):
    """A published model; `own`: its pretraining is paid for."""
    model = MODELS[name]
    return Option(model.parameters, sum(model.tokens.values()) if own else 0.0, weight=weight)


@pytest.mark.parametrize(
    ("first", "second", "weight", "tokens"),
    [
        ("Clinical-T5-Large", "T5-XL", 1.0, 39.4e9),  # "about 40B" in the paper
        ("Clinical-T5-Large", "T5-XL", 1.12, 33.9e9),
        ("Clinical-T5-Base", "T5-Large", 1.0, 48.0e9),
        ("Clinical-T5-Base", "T5-Large", 1.12, 41.1e9),
    ],
)
def test_break_even_of_the_paper(first, second, weight, tokens):
    own, other = option(first, own=True), option(second, weight, own=False)
    found = break_even(own, other)
    assert found == pytest.approx(tokens, rel=0.002)
    assert own.flops(found) == pytest.approx(other.flops(found))
    assert own.flops(2 * found) < other.flops(2 * found)


def test_a_stated_break_even_is_the_formula_with_equal_weights():
    for stated in papers()["lehman_2023"]["break_even"]:
        found = break_even(option(stated["first"], own=True), option(stated["second"], own=False))
        assert found == pytest.approx(stated["stated"], rel=0.02)


def test_never_and_always():
    small, large = Option(1e9, pretraining=1e9), Option(2e9)
    assert break_even(small, large) > 0
    assert break_even(large, small) is None  # cheaper at first, but not for ever
    assert break_even(Option(2e9, pretraining=1e9), Option(1e9)) is None
    assert break_even(Option(1e9), Option(2e9, pretraining=1e9)) == 0.0
    assert break_even(Option(1e9, finetuning=3.0), Option(1e9)) is None


def test_printed_flops_that_the_formula_contradicts():
    found = {(own.model, own.domain): own for own in contradictions(published_models())}
    assert set(found) == {
        ("GatorTron", "general"),
        ("T5-Large", "general"),
        ("T5-XL", "general"),
        ("Flan-T5-XXL", "general"),
        ("Flan-T5-XXL", "biomedical"),
    }
    assert found["GatorTron", "general"].computed == pytest.approx(8.3e19, rel=0.01)
    for own in found.values():  # the factor 6 is missing
        assert own.computed / own.printed == pytest.approx(6, rel=0.05)


def test_published_values_are_complete_and_marked():
    scores = published_scores()
    assert {score.mark for score in scores} == {"A", "B"}
    assert {score.model for score in scores} <= set(MODELS)
    for score in scores:
        values = [score.mean] if score.low is None else [score.low, score.high]
        assert all(0 < value < 1 for value in values) and (score.mean is None) == (len(values) > 1)
    lehman = [s for s in scores if s.paper == "Lehman et al. 2023" and s.fraction == 1]
    assert len({s.model for s in lehman}) == 16 and len(lehman) == 16 * 5
    curves = [s for s in scores if s.fraction < 1]
    assert len(curves) == 5 * 5 * 4 and all(s.labelled for s in curves)
    assert next(s.doubt for s in scores if s.model.startswith("Qwen3-1.7B,") and s.doubt)


def test_the_mean_of_families_is_unweighted():
    own = [s for s in published_scores() if s.paper == "Ferrazzi et al. 2026"]
    for model in {score.model for score in own}:
        values = {s.task: s.mean for s in own if s.model == model}
        mean = values.pop("Italian, mean of families")
        assert len(values) == 5 and statistics.mean(values.values()) == pytest.approx(
            mean, abs=6e-4
        )
