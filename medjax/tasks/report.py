"""What a fine-tuning run leaves to be read: results, predictions, errors, and its card.

Scores are of test, with what validation chose. No text of an example is written: predictions of
spans and answers are offsets.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medjax.scoring.classification import per_class_metrics
from medjax.scoring.results import as_json, intervals, table
from medjax.scoring.spans import span_metrics
from medjax.tasks.config import TaskConfig
from medjax.tasks.decode import Predictions, hot, metrics_of
from medjax.tasks.examples import TEST, Example, TaskData
from medjax.tasks.predictions import write_predictions, write_texts
from medjax.tasks.splits import count_leaks, group_numbers

ENOUGH_SEEDS = 5
ENOUGH_POSITIVES = 20  # for a figure of a class
SHOWN = 5  # metrics on screen; all are in results.json


def write_results(
    run_dir: Path,
    task: TaskConfig,
    data: TaskData,
    metric: str,
    predictions: dict[str, list[Predictions]],
    main: str,
    seeds: Sequence[int],
    best: int,
    draws: int,
    *,
    write_text: bool = False,
) -> str:
    """Writes `results.json` and `predictions.jsonl`; returns the table for the screen.

    Args:
      predictions: on test, by name: of each seed, or a baseline's.
      main: the name whose predictions are written and scored by class.
      best: the seed whose predictions are written: the best on validation.
      write_text: also writes what the model wrote to `generated.jsonl`, for its owner alone.
    """
    test, names = data.splits[TEST], list(predictions)
    clusters = group_numbers(test)
    found = {
        name: intervals([metrics_of(test, p, data.labels, task) for p in own], clusters, draws)
        for name, own in predictions.items()
    }
    own = predictions[main]
    results = {
        "metric": metric,
        "seeds": list(seeds),
        "groups_in_test": int(clusters.max()) + 1,
        "test": {name: as_json(values) for name, values in found.items()},
        "classes": _classes(test, own, data.labels, task, clusters, draws),
        "not_understood": {
            name: [p.not_understood for p in own]
            for name, own in predictions.items()
            if own[0].not_understood is not None
        },
        "leaks": count_leaks(data.splits),
        "versions": {n: version(n) for n in ("medjax", "jax", "flax", "numpy", "transformers")},
        "python": platform.python_version(),
    }
    (run_dir / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    chosen = own[list(seeds).index(best)]
    write_predictions(run_dir / "predictions.jsonl", test, chosen, data.labels)
    if write_text:
        write_texts(run_dir / "generated.jsonl", test, chosen)
    shown = [metric, *(n for n in found[names[0]] if n != metric)][:SHOWN]
    few = f", which is few: take {ENOUGH_SEEDS}" if len(seeds) < ENOUGH_SEEDS else ""
    heading = (
        f"test: mean ± deviation over {len(seeds)} seeds{few} "
        f"[95% interval over {clusters.max() + 1:,} groups and the seeds]"
    )
    return f"{heading}\n{table([(name, found[name]) for name in names], shown)}"


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
        if support >= ENOUGH_POSITIVES:
            found[label] |= as_json(intervals(of_seeds, clusters, draws))
    return found


def task_card(
    run_dir: Path,
    task: TaskConfig,
    data: TaskData,
    init_from: str,
    sources: Sequence[dict],
    seed: int,
) -> str:
    """The model card: what is known of data, training and scores, and what the author must add.

    Its sections follow TRIPOD+AI (Collins et al. 2024).
    """
    results = json.loads((run_dir / "results.json").read_text())
    restricted = [s for s in sources if s.get("access", "open") != "open"]
    lines = ["---", "library_name: transformers", "tags: [medjax, jax, clinical, medical]"]
    if restricted:
        lines += ["license: other", "license_name: data-use-agreement-of-the-training-notes"]
    lines += ["---", "", f"# {run_dir.resolve().name}", ""]
    lines += [
        f"{task.kind.replace('_', ' ').capitalize()}, fine-tuned from {Path(init_from).name}."
    ]
    lines += ["Not for clinical use: it has not been evaluated for any decision on a patient.", ""]
    lines += ["## Data", "", "| split | examples | groups |", "| --- | --- | --- |"]
    for name, examples in data.splits.items():
        groups = len({example.group for example in examples})
        lines.append(f"| {name} | {len(examples):,} | {groups:,} |")
    lines += ["", *_flow(data), *_prevalence(data), "## Scores on test", ""]
    lines += [f"Seeds {results['seeds']}, all reported; this folder holds seed {seed}, the best on"]
    lines += ["validation. Mean over the seeds [95% interval over groups and seeds].", ""]
    for name, values in results["test"].items():
        own = values[results["metric"]]
        lines.append(
            f"- {name}: {results['metric']} {own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
        )
    if results["leaks"]:
        lines += ["", "The splits are not apart:"]
        lines += [f"- {count:,} {what}" for what, count in results["leaks"].items()]
    if restricted:
        lines += ["", "## Passing it on", ""]
        for source in restricted:
            terms = source.get("licence") or "the agreement of its owner"
            lines.append(
                f"- its encoder was trained on {source.get('name')} ({source.get('access')}): only "
                f"under {terms}"
            )
    lines += ["", "## To be added by the author", ""]
    lines += [f"- {item}" for item in _MISSING]
    return "\n".join(lines) + "\n"


_MISSING = (
    "intended use and users, and the decisions that it is meant to support",
    "where and when the notes were written, and whom they are about",
    "how the labels were made, by whom, and how well annotators agree",
    "ethics approval, funding and conflicts of interest",
    "performance in groups of patients, and in another hospital",
)


def _flow(data: TaskData) -> list[str]:
    lines = []
    for name, report in data.reports.items():
        for what, counts in (("left out", report.excluded), ("put right", report.repaired)):
            lines += [f"- {name}: {n:,} {what}: {reason}" for reason, n in sorted(counts.items())]
    return [*lines, ""] if lines else []


def _prevalence(data: TaskData) -> list[str]:
    if not data.labels:
        return []
    lines = [f"| class | {' | '.join(data.splits)} |", "| --- |" + " --- |" * len(data.splits)]
    counts = []
    for examples in data.splits.values():
        own: Counter[str] = Counter()
        for example in examples:
            gold = example.gold if isinstance(example.gold, tuple) else (example.gold,)
            own.update(g.type if hasattr(g, "type") else data.labels[g] for g in gold)
        counts.append(own)
    for label in data.labels:
        lines.append(f"| {label} | {' | '.join(f'{own[label]:,}' for own in counts)} |")
    return [*lines, ""]
