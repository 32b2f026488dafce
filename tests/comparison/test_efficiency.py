"""Amounts that scores take, costs over a model's life, claims: against known answers."""

import math

import numpy as np
import pytest

from medjax.comparison.accounts import account, break_even
from medjax.comparison.efficiency import (
    amount_to_reach,
    amounts_table,
    middle,
    ratio_to_reach,
    reach,
)
from medjax.comparison.runs import Run
from medjax.scoring.bootstrap import Draws
from medjax.scoring.lineage import Stage


def draws(value, spread=0.01, seed=0):
    rng = np.random.default_rng(seed)
    return Draws(np.array([value]), value + spread * rng.standard_normal((2000, 1)), 100)


def test_reach_is_straight_over_the_logarithm():
    scores = np.array([[0.2, 0.4, 0.8], [0.7, 0.4, 0.8], [0.1, 0.2, 0.3]])
    found = reach(np.array([1e2, 1e4, 1e6]), scores, 0.6)
    assert found == pytest.approx([1e5, 1e2, np.inf])


def test_a_ratio_and_its_interval():
    """Twice the tokens for the same score at every point: a ratio of two."""
    scores = [0.2, 0.4, 0.6]
    curves = [[(k * 10.0**i, draws(s, seed=i)) for i, s in enumerate(scores)] for k in (2, 1)]
    found = ratio_to_reach(*curves, 0.5)
    assert found.value == pytest.approx(2.0) and found.low == pytest.approx(2.0)
    own = amount_to_reach(curves[1], 0.5)
    assert own.value == pytest.approx(10**1.5) and own.low < own.value < own.high
    # a standard deviation of 0.01 at a slope of 0.2 a decade
    assert math.log10(own.high / own.low) == pytest.approx(2 * 1.96 * 0.05 * 0.71, rel=0.15)
    beyond = amount_to_reach(curves[1], 0.61)
    assert math.isinf(beyond.value) and 0 < beyond.reached < 0.5 and math.isinf(beyond.high)
    paired = amount_to_reach(curves[1], draws(0.4, seed=1))  # the very draws of its second point
    assert paired.value == pytest.approx(10)


def run_of(flops, pretraining, examples=10):
    stages = [
        Stage(kind="pretraining", name="p", parameters=100, tokens={"a": 50.0}, flops=pretraining),
        Stage(kind="finetuning", name="f", parameters=100, tokens={"labelled": 10.0}, flops=100.0),
    ]
    cost = {"examples": examples, "tokens_in": 30, "tokens_out": 10, "flops": flops * examples}
    return Run(None, "m", False, None, stages, {}, cost | {"seconds": 2.0, "bytes": 1}, "")


def test_an_account_by_hand():
    own = account(run_of(5.0, 1000.0), {"cpu": 1.0})
    assert (own.training, own.flops(20)) == (1100.0, 1200.0)
    assert own.papers == 6 * 100 * 60 and own.papers_per_document == 2 * 100 * 4
    assert own.seconds_per_document == 0.2 and own.price == 0.0
    other = account(run_of(15.0, 0.0), {})
    assert break_even(own, other) == pytest.approx(100.0)  # 1000 dearer, 10 saved a document
    assert break_even(other, own) is None
    assert break_even(account(run_of(5.0, 0.0), {}), own) == 0.0


def table(target=None, **lines):
    """Rows of the table, of which `late` is the reference."""
    curves = {name: {"tokens": curve} for name, curve in lines.items()}
    _, *rows = amounts_table(curves, "late", target)
    return {name: cells for name, *cells in rows}


def test_a_score_reached_from_the_first_point_on_is_at_most_its_amount():
    early = [(10.0, draws(0.7)), (100.0, draws(0.8))]
    late = [(10.0, draws(0.3)), (100.0, draws(0.8))]
    found = table(0.6, late=late, early=early)
    assert found["late"][0].startswith("3.98e+01 [") and found["late"][1] == "1"
    assert found["early"] == ["at most 1.00e+01", "at most 0.25"]
    both = table(0.2, late=late, early=early)
    assert both["early"][1] == "cannot tell"
    reversed_ = table(0.6, late=early, early=late)
    assert reversed_["early"][1].startswith("at least 3.98 [")


def test_what_it_takes_to_be_where_the_middle_one_ends():
    late = [(10.0, draws(0.1, seed=1)), (1000.0, draws(0.5, seed=2))]
    soon = [(10.0, draws(0.1, seed=1)), (100.0, draws(0.5, seed=2)), (1000.0, draws(0.9))]
    lines = {"soon": soon, "late": late}
    assert middle(lines) == "late"
    assert middle({"a": soon, "b": late, "c": [(1.0, draws(0.3))]}) == "b"
    found = table(**lines)
    assert found["late"] == ["1.00e+03", "1"]
    assert found["soon"] == ["1.00e+02 [1.00e+02, 1.00e+02]", "0.10 [0.10, 0.10]"]
    never = table(late=late, never=[(10.0, draws(0.1)), (500.0, draws(0.2))])
    assert never["never"] == ["not reached (in 0% of draws)", "over 0.50"]
