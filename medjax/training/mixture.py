"""Several tasks in one training of a model that writes: their rows mixed, each task scored.

All tasks share the model and its loss; each has its own prompt, labels, metric and results. Scores
are averaged as in Ferrazzi et al. 2026: families count alike, whatever tasks they have, and what
was not trained on (out of distribution) stands apart.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medjax.config import UserError
from medjax.scoring.bootstrap import Draws, interval, mean_draws
from medjax.scoring.paired import load_scores
from medjax.scoring.results import as_json, table
from medjax.tasks.decode import MAIN_METRICS, Scored, Selection, metrics_of, predict
from medjax.tasks.encode import Rows
from medjax.tasks.examples import TEST, TRAIN, VALIDATION, TaskData
from medjax.tasks.templates import OtherTask
from medjax.training.labelled import Feed
from medjax.training.learner import Learner

if TYPE_CHECKING:
    from medjax.finetune import FinetuneConfig

log = logging.getLogger(__name__)

MEAN = "mean_of_tasks"
FOLDER = "tasks"


class Other(NamedTuple):
    """One of the other tasks."""

    config: OtherTask
    data: TaskData
    learner: Learner
    rows: dict[str, Rows]
    """Of each split."""

    @property
    def metric(self) -> str:
        """What it is judged by."""
        return MAIN_METRICS[self.config.task.kind]


def check_mixture(config: FinetuneConfig) -> None:
    """Refuses what several tasks cannot be combined with.

    Raises:
      UserError: a name stands twice, or an option is for a single task.
    """
    names = [config.name, *(other.name for other in config.others)]
    if len(set(names)) < len(names):
        raise UserError("others: a name stands there twice, or is that of the first task")
    if config.label_fractions != [1.0]:
        raise UserError("label_fractions are for a single task; remove others")


def mixed(main: Rows, targets: list[np.ndarray], others: Sequence[Other]) -> tuple[Rows, list]:
    """The rows that are trained on, those of each other task as often as its weight says."""
    ids, wanted = list(main.input_ids), list(targets)
    for number, other in enumerate(own for own in others if own.config.weight):
        rows, examples = other.rows[TRAIN], other.data.splits[TRAIN]
        own, count = other.learner.targets(examples, rows), len(rows.input_ids)
        whole, part = divmod(round(other.config.weight * count), max(count, 1))
        some = np.random.default_rng([0, number]).permutation(count)[:part]
        for i in [*np.tile(np.arange(count), whole), *np.sort(some)]:
            ids.append(rows.input_ids[i])
            wanted.append(own[i])
        log.info("%s: %d rows of training", other.config.name, whole * count + part)
    nothing = np.zeros(0, np.int64)
    return Rows(ids, None, nothing, [], np.zeros(0, bool)), wanted


def respond(other: Other, feeds: dict[str, Feed], params: Any, split: str) -> Any:
    """Predictions of a split, by the whole model's parameters."""
    feed, examples = feeds[split], other.data.splits[split]
    outputs = other.learner.respond(params, feed, examples)
    scored = Scored(examples, feed.rows, outputs, other.learner.read)
    return predict(scored, other.data.labels, other.config.task, Selection())


def validation_figures(
    others: Sequence[Other], feeds: dict[str, dict[str, Feed]], params: Any, first: float
) -> dict[str, float]:
    """`NAME/metric` of each other task, and the mean over all that are trained on.

    Args:
      first: the figure of the first task.
    """
    found, trained = {}, [first]
    for other in others:
        if not other.config.weight:
            continue
        own = respond(other, feeds[other.config.name], params, VALIDATION)
        examples, task = other.data.splits[VALIDATION], other.config.task
        metrics = metrics_of(examples, own, other.data.labels, task)
        values = {metric.name: metric.value for metric in metrics}
        found[f"{other.config.name}/{other.metric}"] = values[other.metric]
        trained.append(values[other.metric])
    return found | {MEAN: float(np.mean(trained))}


def write_averages(config: FinetuneConfig, metric: str) -> str:
    """Writes `tasks.json`: every task, every family, their means; returns the table for the screen.

    The runs' folders must hold their results.
    """
    run_dir = Path(config.run_dir)
    families: dict[tuple[bool, str], list[tuple[str, str, Draws]]] = {}
    places = [(config.name, config.family, run_dir, metric, False)]
    for other in config.others:
        place = run_dir / FOLDER / other.name
        own = MAIN_METRICS[other.task.kind]
        places.append((other.name, other.family, place, own, not other.weight))
    for name, family, place, own, apart in places:
        scores = load_scores(place)
        draws = scores.rows[scores.main][own]
        families.setdefault((apart, family or name), []).append((name, own, draws))
    rows, found = [], {}
    for apart in (False, True):
        means = []
        for (_, family), tasks in ((f, t) for f, t in families.items() if f[0] == apart):
            own = mean_draws([draws for _, _, draws in tasks])
            means.append(own)
            for name, of, draws in tasks:
                rows.append((f"{name} ({of})", {"score": interval(draws)}))
            if len(tasks) > 1:
                rows.append((f"  mean of {family}", {"score": interval(own)}))
        if means:
            title = "not trained on" if apart else "trained on"
            rows.append((f"mean of families {title}", {"score": interval(mean_draws(means))}))
    found = {title: as_json(values)["score"] for title, values in rows}
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (run_dir / "tasks.json").write_text(text, encoding="utf-8")
    return table(rows, ["score"])


def splits_of(other: Other) -> tuple[str, ...]:
    """Those that are needed: of a task that is not trained on, test alone."""
    return (TRAIN, VALIDATION, TEST) if other.config.weight else (TEST,)
