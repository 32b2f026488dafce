"""Claims are judged by intervals, and what nothing tests is said to be so."""

import pytest

from medjax.comparison.claims import judged
from medjax.comparison.collect import collect
from medjax.comparison.config import Claim, CompareConfig, Less
from medjax.comparison.costs import pareto
from tests.test_compare import finished_run


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Two tasks; on the harder one the better model is better by more."""
    folder, tasks = tmp_path_factory.mktemp("runs"), {}
    shares = {"easy": (0.9, 0.85, 0.85), "hard": (0.7, 0.4, 0.4)}
    for task, own in shares.items():
        for model, share in zip(("good", "poor", "twin"), own, strict=True):
            curve = {40: share - 0.3, 400: share} if task == "hard" else None
            slow = 3e6 if model == "good" else 1e6
            finished_run(
                folder / task / model, share, test=task, curve=curve, flops=slow, majority=0.4
            )
        tasks[task] = {"runs": [str(folder / task / "*")]}
    return collect(CompareConfig(tasks=tasks))


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({"first": "good", "second": "poor"}, "holds"),
        ({"first": "poor", "second": "good"}, "does not"),
        ({"first": "twin", "second": "poor"}, "cannot tell"),
        ({"first": "poor", "second": "good", "kind": "not worse", "margin": 0.5}, "holds"),
        ({"first": "twin", "second": "poor", "kind": "not worse", "margin": 0.1}, "holds"),
        ({"first": "good", "second": "poor", "kind": "ratio above", "margin": 2.5}, "holds"),
        ({"first": "good", "second": "poor", "kind": "ratio below", "margin": 2.5}, "does not"),
        ({"first": "good", "second": "nobody"}, "not tested"),
        ({}, "not tested"),
        ({"first": "good", "second": "poor", "tasks": ["hard"],
          "less": Less(first="good", second="poor", tasks=["easy"])}, "holds"),
        ({"first": "good", "second": "poor", "tasks": ["easy"],
          "less": Less(first="good", second="poor", tasks=["hard"])}, "does not"),
        ({"first": "good, 40", "second": "poor, 40", "tasks": ["hard"],
          "less": Less(first="good", second="poor", tasks=["hard"])}, "cannot tell"),
        ({"first": "good", "second": "poor", "less": Less(first="x", second="y")}, "not tested"),
    ],
)  # fmt: skip
def test_verdicts(comparison, claim, verdict):
    row = judged(comparison, Claim(claim="it is so", **claim))
    assert row[0] == "it is so" and row[4] == verdict


def test_what_is_no_better_than_the_most_frequent_class_is_named(comparison):
    """A difference to such a model tells little, whatever the verdict."""
    row = judged(comparison, Claim(claim="it is so", first="good", second="poor"))
    assert row[4:] == ["holds", "poor on hard"]
    row = judged(comparison, Claim(claim="it is so", first="good", second="poor", tasks=["easy"]))
    assert row[4:] == ["holds", ""]


def test_what_is_no_better_than_the_most_frequent_class_is_on_no_front(comparison):
    """However little it costs."""
    text = "\n".join(block for block in pareto(comparison).blocks if isinstance(block, str))
    assert "hard, on the front by FLOPs a document: good.\n" in text
    assert "easy, on the front by FLOPs a document: poor, twin, good.\n" in text
