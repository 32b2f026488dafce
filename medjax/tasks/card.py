"""The model card of a fine-tuned model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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
    own = results["exported_seed_on_test"][results["metric"]]
    lines += [
        f"Seeds {results['seeds']} at {tried} learning rate(s) were trained, and all seeds are"
    ]
    lines += [
        f"reported; this folder holds seed {seed}, the best on validation ({own:.3f} on test)."
    ]
    lines += ["Mean over the seeds [95% interval over groups and seeds]:", ""]
    for name, values in results["test"].items():
        own = values[results["metric"]]
        lines.append(
            f"- {name}: {results['metric']} {own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}]"
        )
    lines += ["", "By class, by slice and with every metric: `results.json` of the run.", ""]
    hours, hardware = results["training_hours"], results["hardware"]
    lines += [f"Trained for {hours:.2g} hours on {hardware}."]
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
