"""The model card of a fine-tuned model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import TaskData


def task_card(
    run_dir: Path,
    task: TaskConfig,
    data: TaskData,
    init_from: str,
    sources: Sequence[dict],
    seed: int,
    tried: int,
) -> str:
    """The model card: what is known of data, training and scores, and what the author must add.

    Its sections follow TRIPOD+AI (Collins et al. 2024).

    Args:
      tried: how many learning rates validation chose from.
    """
    results = json.loads((run_dir / "results.json").read_text())
    restricted = [source for source in sources if source.get("access", "open") != "open"]
    kind = task.kind.replace("_", " ").capitalize()
    lines = [
        *_front(bool(restricted)),
        f"# {run_dir.resolve().name}",
        "",
        f"{kind}, fine-tuned from {Path(init_from).name}.",
        "Not for clinical use: it has not been evaluated for any decision on a patient.",
        "",
        *_data(data),
        *_scores(results, seed, tried),
        *_terms(restricted),
        "## To be added by the author",
        "",
        *(f"- {item}" for item in _MISSING),
    ]
    return "\n".join(lines) + "\n"


def _front(is_restricted: bool) -> list[str]:
    """What a model hub reads."""
    lines = ["---", "library_name: transformers", "tags: [medjax, jax, clinical, medical]"]
    if is_restricted:
        lines += ["license: other", "license_name: data-use-agreement-of-the-training-notes"]
    return [*lines, "---", ""]


def _data(data: TaskData) -> list[str]:
    lines = ["## Data", "", "| split | examples | groups |", "| --- | --- | --- |"]
    for name, examples in data.splits.items():
        groups = len({example.group for example in examples})
        lines.append(f"| {name} | {len(examples):,} | {groups:,} |")
    return [*lines, "", *_flow(data), *_prevalence(data)]


def _scores(results: dict[str, Any], seed: int, tried: int) -> list[str]:
    metric = results["metric"]
    own = results["exported_seed_on_test"][metric]
    lines = [
        "## Scores on test",
        "",
        f"Seeds {results['seeds']} at {tried} learning rate(s) were trained, and all seeds are",
        f"reported; this folder holds seed {seed}, the best on validation ({own:.3f} on test).",
        "Mean over the seeds [95% interval over groups and seeds]:",
        "",
    ]
    for name, values in results["test"].items():
        own = values[metric]
        interval = f"[{own['low']:.3f}, {own['high']:.3f}]"
        lines.append(f"- {name}: {metric} {own['mean']:.3f} {interval}")
    lines += ["", "By class, by slice and with every metric: `results.json` of the run.", ""]
    lines += [f"Trained for {results['training_hours']:.2g} hours on {results['hardware']}.", ""]
    if results["leaks"]:
        leaks = (f"- {count:,} {what}" for what, count in results["leaks"].items())
        lines += ["The splits are not apart:", *leaks, ""]
    return lines


def _terms(restricted: Sequence[dict]) -> list[str]:
    """Under which the model may be passed on: those of the notes that its encoder has read."""
    lines = []
    for source in restricted:
        terms = source.get("licence") or "the agreement of its owner"
        name = f"{source.get('name')} ({source.get('access')})"
        lines.append(f"- its encoder was trained on {name}: only under {terms}")
    return ["## Passing it on", "", *lines, ""] if lines else []


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
