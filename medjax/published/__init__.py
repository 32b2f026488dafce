"""Published results as data, each value with its source and a mark of how it was read.

Marks: A, in the paper or its code; B, in a text that describes it. What is only remembered is not
here. Ranges stay ranges, doubtful values carry their doubt, errata are corrected and listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parent


class PublishedScore(NamedTuple):
    """One value of a table."""

    paper: str
    task: str
    metric: str
    model: str
    prompted: bool
    """By prompts, without training."""
    fraction: float
    """Share of the labels that was trained on."""
    labelled: int | None
    """Labelled examples (documents for CLIP, questions for RadQA), where they are given."""
    mean: float | None
    """None where a range is all that is known."""
    deviation: float | None
    """Standard deviation over seeds."""
    low: float | None
    """Of a range."""
    high: float | None
    mark: str
    doubt: str | None


class PublishedModel(NamedTuple):
    """A model of a paper."""

    paper: str
    name: str
    parameters: float | None
    architecture: str
    tokens: dict[str, float]
    """Seen in pretraining, by domain."""
    flops_printed: dict[str, float]
    """The same as the paper's table of FLOPs has them."""


@cache
def papers() -> dict[str, dict[str, Any]]:
    """The files by name, as they stand."""
    return {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(FOLDER.glob("*.yaml"))
    }


def published_models() -> list[PublishedModel]:
    """All models of all papers."""
    return [
        PublishedModel(
            paper["paper"],
            name,
            own["parameters"],
            own["architecture"],
            own["tokens"],
            own.get("flops_printed", {}),
        )
        for paper in papers().values()
        for name, own in paper["models"].items()
    ]


def published_scores() -> list[PublishedScore]:
    """All values of all papers."""
    return [score for paper in papers().values() for score in _scores(paper)]


def _scores(paper: dict[str, Any]) -> Iterator[PublishedScore]:
    curves = paper.get("label_fractions", ())
    of_all = {own["task"]: own["labelled"][-1] for own in curves}
    for result in paper["results"]:
        for prompted, kind in ((False, "scores"), (True, "prompted")):
            for model, (mean, *more) in result.get(kind, {}).items():
                deviation = more[0] if more else None
                labelled = None if prompted else of_all.get(result["task"])
                more = {"mean": mean, "deviation": deviation, "labelled": labelled}
                yield _score(paper, result, model, prompted, **more)
        for model, (low, high) in result.get("ranges", {}).items():
            yield _score(paper, result, model, False, low=low, high=high)
    for result in curves:
        for model, values in result["scores"].items():
            shares = zip(paper["fractions"], result["labelled"], values, strict=True)
            for fraction, labelled, (mean, *more) in shares:
                if fraction < 1:  # all labels are in `results`
                    yield _score(
                        paper,
                        result,
                        model,
                        False,
                        fraction=fraction,
                        labelled=labelled,
                        mean=mean,
                        deviation=more[0] if more else None,
                    )


def _score(
    paper: dict[str, Any], result: dict[str, Any], model: str, prompted: bool, **values: Any
) -> PublishedScore:
    empty = dict.fromkeys(("mean", "deviation", "low", "high", "labelled")) | {"fraction": 1.0}
    return PublishedScore(
        paper=paper["paper"],
        task=result["task"],
        metric=result["metric"],
        model=model,
        prompted=prompted,
        mark=result["mark"],
        doubt=result.get("doubts", {}).get(model),
        **(empty | values),
    )
