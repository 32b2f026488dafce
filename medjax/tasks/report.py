"""What a fine-tuning run leaves to be read: results, predictions, errors, pictures.

Scores are of test, with what validation chose. No text of an example is written: predictions of
spans and answers are offsets.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.scoring.bootstrap import Draws, Interval, compare, interval
from medjax.scoring.classification import operating_metrics, per_class_metrics
from medjax.scoring.paired import group_counts, save_draws
from medjax.scoring.results import all_draws, as_json, intervals, table
from medjax.scoring.spans import span_metrics
from medjax.tasks import plots
from medjax.tasks.baselines import BASELINES
from medjax.tasks.config import TaskConfig
from medjax.tasks.decode import Predictions, has, hot, metrics_of, take
from medjax.tasks.encode import Rows
from medjax.tasks.examples import TEST, Example, TaskData
from medjax.tasks.predictions import (
    test_identity,
    write_errors,
    write_predictions,
    write_texts,
)
from medjax.tasks.slices import slices
from medjax.tasks.splits import count_leaks, group_numbers

ENOUGH_SEEDS = 5
ENOUGH = 20  # examples of a class or a slice for a figure of it
SHOWN = 5  # metrics on screen; all are in results.json


class Outcome(NamedTuple):
    """All that is reported of a run."""

    run_dir: Path
    task: TaskConfig
    data: TaskData
    rows: Rows
    """Of test."""
    metric: str
    predictions: dict[str, list[Predictions]]
    """On test, by name: of each seed, or a baseline's."""
    main: str
    """The name whose predictions are written and given apart by class and slice."""
    curve: dict[str, int]
    """Names of the models on growing shares of the labels -> labelled examples that they saw."""
    seeds: Sequence[int]
    best: int
    """The seed whose predictions are written: the best on validation."""
    draws: int
    whole_validation: bool = False
    """Validation keeps all of its labels where train has fewer."""
    operating: tuple[int, list[float]] | None = None
    """A class, and of each seed the probability from which on it is flagged."""
    write_text: bool = False
    """Also writes what the model wrote to `generated.jsonl`, for its owner alone."""
    about: dict[str, Any] = {}
    """More for `results.json`: lineage, hashes, hours."""

    @property
    def place(self) -> int:
        """Of the best seed among the seeds."""
        return list(self.seeds).index(self.best)


def write_results(out: Outcome) -> str:
    """Writes `results.json`, predictions, errors and pictures; returns the table for the screen."""
    test, labels = out.data.splits[TEST], out.data.labels
    clusters = group_numbers(test)
    metrics = {
        name: [metrics_of(test, p, labels, out.task) for p in own]
        for name, own in out.predictions.items()
    }
    drawn = {name: all_draws(own, clusters, out.draws) for name, own in metrics.items()}
    found = {name: {n: interval(d) for n, d in own.items()} for name, own in drawn.items()}
    own = out.predictions[out.main]
    results = (
        {"labelled_examples": out.curve}
        | out.about
        | {
            "metric": out.metric,
            "main": out.main,
            "whole_validation": out.whole_validation,
            "seeds": list(out.seeds),
            "exported_seed": out.best,
            "groups_in_test": int(clusters.max()) + 1,
            "test": {name: as_json(values) for name, values in found.items()},
            "exported_seed_on_test": {m.name: m.value for m in metrics[out.main][out.place]},
            "difference_to": _differences(out, drawn),
            "classes": _classes(test, own, labels, out.task, clusters, out.draws),
            "slices": _slices(out, test, clusters),
            "not_understood": {
                name: [p.not_understood for p in own]
                for name, own in out.predictions.items()
                if own[0].not_understood is not None
            },
            "leaks": count_leaks(out.data.splits),
            "versions": {n: version(n) for n in ("medjax", "jax", "flax", "numpy", "transformers")},
            "python": platform.python_version(),
        }
    )
    if out.operating:
        results["operating_point"] = _operating(out, test, clusters)
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (out.run_dir / "results.json").write_text(text, encoding="utf-8")
    deciding = [next(m for m in of_seed if m.name == out.metric) for of_seed in metrics[out.main]]
    counts = group_counts(deciding, clusters)
    save_draws(out.run_dir, drawn, test_identity(test, labels), counts)
    chosen = own[out.place]
    write_predictions(out.run_dir / "predictions.jsonl", test, chosen, labels)
    write_errors(out.run_dir / "errors.csv", test, chosen, labels)
    if out.write_text:
        write_texts(out.run_dir / "generated.jsonl", test, chosen)
    _draw(out, test, chosen, found)
    return _screen(out, found, int(clusters.max()) + 1)


def _screen(out: Outcome, found: dict[str, dict[str, Interval]], groups: int) -> str:
    names, count = list(found), len(out.seeds)
    shown = [out.metric, *(n for n in found[names[0]] if n != out.metric)][:SHOWN]
    by_chance = any(out.curve.values())  # no shots, nothing learnt: seeds change nothing
    few = f", which is few: take {ENOUGH_SEEDS}" if by_chance and count < ENOUGH_SEEDS else ""
    if len(out.curve) > 1:
        few += f"; validation is {'whole' if out.whole_validation else 'shrunk'} with fewer labels"
    heading = (
        f"test: mean ± deviation over {count} seeds{few} "
        f"[95% interval over {groups:,} groups and the seeds]"
    )
    return f"{heading}\n{table([(name, found[name]) for name in names], shown)}"


def _differences(out: Outcome, drawn: dict[str, dict[str, Draws]]) -> dict[str, Any]:
    """The main model less each other row, on the same examples."""
    own = drawn[out.main][out.metric]
    others = {n: d[out.metric] for n, d in drawn.items() if n != out.main and out.metric in d}
    return {name: compare(own, other)._asdict() for name, other in others.items()}


def _slices(out: Outcome, test: Sequence[Example], clusters: np.ndarray) -> dict[str, Any]:
    """The deciding metric of each part of test; small parts get no figure."""
    found: dict[str, Any] = {}
    for column, parts in slices(test, out.rows).items():
        found[column] = {}
        for value, kept in parts.items():
            found[column][value] = entry = {"examples": len(kept)}
            if len(kept) < ENOUGH:
                continue
            some = [test[i] for i in kept]
            own = [
                metrics_of(some, take(p, kept), out.data.labels, out.task)
                for p in out.predictions[out.main]
            ]
            own = [[m for m in of_seed if m.name == out.metric] for of_seed in own]
            numbers = np.unique(clusters[kept], return_inverse=True)[1]
            entry |= as_json(intervals(own, numbers, out.draws))
    return found


def _operating(out: Outcome, test: Sequence[Example], clusters: np.ndarray) -> dict[str, Any]:
    """What the thresholds that validation chose for a recall do on test."""
    label, thresholds = out.operating
    gold = has(test, label)
    own = [
        operating_metrics(gold, p.probabilities[:, label] >= threshold)
        for p, threshold in zip(out.predictions[out.main], thresholds, strict=True)
    ]
    return {
        "label": out.data.labels[label],
        "thresholds": thresholds,
        "test": as_json(intervals(own, clusters, out.draws)),
    }


def _draw(
    out: Outcome,
    test: Sequence[Example],
    chosen: Predictions,
    found: dict[str, dict[str, Interval]],
) -> None:
    if out.task.kind in ("classification", "relations"):
        gold, given = np.array([e.gold for e in test]), np.array(chosen.values)
        plots.confusion(out.run_dir / "confusion.png", gold, given, out.data.labels)
        if chosen.uncalibrated is not None:
            sure = {"before temperature": chosen.uncalibrated, "after": chosen.probabilities}
            confidences = {name: values.max(1) for name, values in sure.items()}
            plots.reliability(out.run_dir / "reliability.png", given == gold, confidences)
    if len(out.curve) > 1:
        points = [(count, found[name][out.metric]) for name, count in out.curve.items()]
        lines = {
            name: values[out.metric].mean
            for name, values in found.items()
            if name in BASELINES and out.metric in values
        }
        plots.learning_curve(out.run_dir / "learning_curve.png", out.metric, points, lines)


def _classes(
    test: Sequence[Example],
    predictions: Sequence[Predictions],
    labels: Sequence[str],
    task: TaskConfig,
    clusters: np.ndarray,
    draws: int,
) -> dict[str, Any]:
    """Support, precision, recall and F1 of every class or type."""
    found: dict[str, Any] = {}
    if not labels:
        return found
    if task.kind == "tagging":
        spans = [example.gold for example in test]
        for label in labels:
            own = [span_metrics(spans, p.values, label) for p in predictions]
            support = sum(span.type == label for gold in spans for span in gold)
            found[label] = {"support": support} | as_json(intervals(own, clusters, draws))
        return found
    tuples = [e._replace(gold=e.gold if isinstance(e.gold, tuple) else (e.gold,)) for e in test]
    gold = hot(tuples, len(labels))
    for number, label in enumerate(labels):
        of_seeds = []
        for own in predictions:
            given = np.zeros_like(gold)
            for i, value in enumerate(own.values):
                values = value if isinstance(value, tuple) else (value,)
                given[i, [v for v in values if v >= 0]] = True
            of_seeds.append(list(per_class_metrics(gold, given, number).values()))
        support = int(gold[:, number].sum())
        found[label] = {"support": support}
        if support >= ENOUGH:
            found[label] |= as_json(intervals(of_seeds, clusters, draws))
    return found
