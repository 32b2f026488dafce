"""All runs of a comparison, read and put in their places; what could not be used is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medjax.comparison.config import CompareConfig, TaskRuns
from medjax.comparison.runs import (
    Pretraining,
    Run,
    find_runs,
    load_pretraining,
    load_run,
    overlaps,
    was_checked,
)
from medjax.config import UserError
from medjax.published import PublishedScore, published_scores
from medjax.scoring.bootstrap import Draws, compare
from medjax.scoring.results import LOWER_IS_BETTER
from medjax.tasks.baselines import BASELINES

CHANCE = 0.05  # p-values from which on a difference may be chance


class Task(NamedTuple):
    """Runs that were scored on the same test examples."""

    name: str
    metric: str
    runs: list[Run]
    published: list[PublishedScore]
    family: str
    out_of_distribution: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better."""
        return -1 if self.metric in LOWER_IS_BETTER else 1

    @property
    def baselines(self) -> dict[str, Draws]:
        """Of the first run that some stand beside."""
        for run in self.runs:
            rows = run.scores.rows
            found = {name: rows[name] for name in BASELINES if self.metric in rows.get(name, {})}
            if found:
                return {name: own[self.metric] for name, own in found.items()}
        return {}

    def is_trivial(self, run: Run) -> bool:
        """Whether it is no better, by more than chance, than always the most frequent class."""
        majority = self.baselines.get("majority")
        if majority is None:
            return False
        change = compare(run.draws(self.metric), majority)
        return change.p_value >= CHANCE or self.sign * change.mean < 0

    def run(self, model: str) -> Run | None:
        """That of a model, or one with fewer labels by the title of its row."""
        for run in self.runs:
            if run.model == model:
                return run
            if model in run.labelled and model in run.scores.rows:
                scores = run.scores._replace(main=model, counts=None)
                return run._replace(model=model, scores=scores)
        return None


class Comparison(NamedTuple):
    """What the report is made of."""

    config: CompareConfig
    tasks: list[Task]
    pretraining: list[Pretraining]
    problems: list[str]
    """What was left out or is doubtful, in sentences."""

    @property
    def models(self) -> list[str]:
        """In the order in which they come."""
        return list(dict.fromkeys(run.model for task in self.tasks for run in task.runs))


def collect(config: CompareConfig) -> Comparison:
    """Reads everything.

    Raises:
      UserError: no run can be used, or a name stands for two.
    """
    problems: list[str] = []
    names = {Path(path): name for path, name in config.names.items()}
    tasks = [_task(name, own, names, problems) for name, own in config.tasks.items()]
    tasks += _by_test(_load(find_runs(config.runs, problems), names, problems), problems)
    tasks = [task for task in tasks if task.runs]
    pretraining = []
    for path in find_runs(config.pretraining, problems):
        try:
            pretraining.append(load_pretraining(path))
        except UserError as error:
            problems.append(str(error))
    if not tasks and not pretraining:
        raise UserError("nothing to compare: " + ("; ".join(problems) or "name runs or tasks"))
    for task in tasks:
        problems += _doubts(task)
    return Comparison(config, tasks, pretraining, problems)


def _load(paths: Sequence[Path], names: dict[Path, str], problems: list[str]) -> list[Run]:
    found = []
    for path in paths:
        try:
            found.append(load_run(path, names.get(path)))
        except UserError as error:
            problems.append(str(error))
    return found


def _task(name: str, own: TaskRuns, names: dict[Path, str], problems: list[str]) -> Task:
    """A task of the configuration; the first run says which test examples it is about."""
    runs = _load(find_runs(own.runs, problems), names, problems)
    published = [score for score in published_scores() if score.task == own.published]
    if own.published and not published:
        known = sorted({score.task for score in published_scores()})
        raise UserError(f"tasks.{name}.published: {own.published!r} is none of {', '.join(known)}")
    kept = []
    for run in runs:
        if run.scores.test != runs[0].scores.test:
            problems.append(
                f"{run.path}: scored on other test examples, groups or labels than {runs[0].path}; "
                f"left out of {name}"
            )
        else:
            kept.append(run)
    found = _made(name, own.metric, kept, problems, published)
    apart = own.out_of_distribution
    return found._replace(family=own.family or name, out_of_distribution=apart)


def _by_test(runs: Sequence[Run], problems: list[str]) -> list[Task]:
    """Tasks of runs that no name was given for."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.scores.test, []).append(run)
    names = [_name(own[0]) for own in groups.values()]
    return [
        _made(name if names.count(name) == 1 else f"{name} {i}", None, own, problems)
        for i, (name, own) in enumerate(zip(names, groups.values(), strict=True), 1)
    ]


def _made(
    name: str,
    metric: str | None,
    runs: list[Run],
    problems: list[str],
    published: Sequence[PublishedScore] = (),
) -> Task:
    """A task of its runs, those without its metric left out."""
    metric = metric or (runs[0].scores.metric if runs else "")
    kept, seen = [], {}
    for run in runs:
        if metric not in run.scores.rows[run.scores.main]:
            problems.append(f"{run.path}: has no metric {metric!r}; left out of {name}")
            continue
        if run.model in seen:
            raise UserError(
                f"{run.path} and {seen[run.model]} are both {run.model!r} on {name}; leave one "
                "out, or give them names"
            )
        draws = [len(own.draws(metric).drawn) for own in (run, *kept[:1])]
        if len(set(draws)) > 1:
            problems.append(
                f"{run.path}: has {draws[0]} draws, {kept[0].path} has {draws[1]}; left out of "
                f"{name}: run it again with the same `draws`"
            )
            continue
        if run.scores.metric != metric:
            problems.append(
                f"{run.path}: chose its epoch by {run.scores.metric}, not by {metric} as is "
                f"reported for {name}"
            )
        seen[run.model] = run.path
        kept.append(run)
    published = [score for score in published if score.metric == metric]
    return Task(name, metric, kept, list(published), name)


def _name(run: Run) -> str:
    """Of a task, from its test file."""
    path = Path(run.test_file)
    plain = path.stem.split(".")[0]
    return path.parent.name if plain.lower() in ("test", "dev", "") else plain


def _doubts(task: Task) -> list[str]:
    """What a reader must know of the runs of a task."""
    found, unchecked = [], []
    for run in task.runs:
        for seen in overlaps(run, task.name):
            found.append(
                f"{task.name}: {run.model} was pretrained on notes that hold {seen.examples:,} of "
                "its examples: contaminated, and no part of any conclusion"
            )
        if run.history and not was_checked(run, task.name):
            unchecked.append(run.model)
    if unchecked:
        found.append(
            f"{task.name}: not known whether the pretraining text of {_listed(unchecked)} holds "
            "test examples (no check by medjax.prepare under the task's name or file)"
        )
    return found


def _listed(names: Sequence[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def is_contaminated(run: Run, task: Task) -> bool:
    """Whether the model's notes hold examples of the task."""
    return bool(overlaps(run, task.name))
