"""Run directories as what a comparison needs of them: scores on drawn clusters, history, cost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from medjax.config import UserError
from medjax.scoring.bootstrap import Draws, draw
from medjax.scoring.lineage import Seen, Stage, origin_name, read_lineage
from medjax.scoring.metric import additive
from medjax.scoring.paired import Scores, load_scores
from medjax.training.tracker import read_metrics

HISTORY = ("published", "pretraining")
BATCHES = 10  # of a validation, below which an interval over them would be too narrow


class Run(NamedTuple):
    """A finished run of medjax.finetune or medjax.prompt."""

    path: Path
    model: str
    """How the report calls it."""
    prompted: bool
    scores: Scores
    stages: list[Stage] | None
    """From the model's first training to this run; None where nothing is known."""
    labelled: dict[str, int]
    """Rows of `scores` -> labelled examples that were used."""
    inference: dict[str, Any] | None
    """Text, tokens, FLOPs and seconds of test."""
    test_file: str

    @property
    def history(self) -> list[Stage]:
        """The stages before this run."""
        return [stage for stage in self.stages or [] if stage.kind in HISTORY]

    @property
    def parameters(self) -> int | None:
        """Of the model as it answers."""
        return self.stages[-1].parameters if self.stages else None

    def draws(self, metric: str) -> Draws:
        """Of the main row.

        Raises:
          UserError: it has no such metric.
        """
        own = self.scores.rows[self.scores.main]
        if metric not in own:
            raise UserError(f"{self.path}: no metric {metric!r}; it has {', '.join(own)}")
        return own[metric]

    def curve(self, metric: str) -> list[tuple[int, Draws]]:
        """(labelled examples, score) from the fewest on."""
        rows = self.scores.rows
        found = [(n, rows[row][metric]) for row, n in self.labelled.items() if row in rows]
        return sorted(found, key=lambda own: own[0])


class Loss(NamedTuple):
    """One validation of a pretraining."""

    step: int
    value: float
    """Nats per masked byte, or bits per byte of causal models."""
    draws: Draws | None
    """The same on drawn batches of held-out blocks; none where there are fewer than BATCHES."""


class Pretraining(NamedTuple):
    """A run of medjax.pretrain: its validation as it went on."""

    path: Path
    name: str
    stage: Stage
    """The whole run's; a step's share of it is its share of the steps."""
    earlier: list[Stage]
    steps: int
    losses: list[Loss]
    token_loss: float
    """The last one in nats a predicted token."""
    plateau: float | None
    """The same of a model that knows only how frequent each token is."""

    @property
    def unit(self) -> str:
        """Of the losses."""
        if self.stage.objective == "causal_lm":
            return "bits per byte (causal)"
        return f"nats per masked byte ({self.stage.objective})"

    @property
    def kind(self) -> tuple[str, str]:
        """Losses of other objectives, or on other notes, are never compared with these."""
        return self.unit, self.stage.validated_on

    @property
    def text(self) -> str:
        """The domains that were read, one after the other: a law of tokens is of one such text."""
        domains = [" and ".join(sorted(stage.tokens)) for stage in [*self.earlier, self.stage]]
        return " then ".join(name for name, _ in groupby(filter(None, domains)))

    @property
    def lineage_tokens(self) -> float:
        """Tokens that were read before this run."""
        return sum(sum(stage.tokens.values()) for stage in self.earlier)


def find_runs(places: Sequence[str], problems: list[str]) -> list[Path]:
    """The run directories that paths and patterns name; one over several checkpoints, or over
    several tasks, is several.

    Args:
      problems: gets a sentence for each pattern that no folder fits.

    Raises:
      UserError: a path that nothing is at, or a run that stands there twice.
    """
    found = []
    for place in places:
        wild = Path(place.lstrip("/"))
        root = Path("/") if place.startswith("/") else Path()
        own = [Path(place)] if Path(place).is_dir() else sorted(root.glob(str(wild)))
        own = [path for path in own if path.is_dir()]
        if not own and not set(place) & set("*?["):
            raise UserError(f"runs: there is no folder {place}")
        if not own:
            problems.append(f"runs: no folder fits {place}")
        for path in own:
            steps = sorted(path.glob("step_*/config.yaml"), key=_step_of)
            others = sorted(own.parent for own in path.glob("tasks/*/results.json"))
            found += [step.parent for step in steps] or [path, *others]
    if len(set(found)) < len(found):
        twice = next(path for path in found if found.count(path) > 1)
        raise UserError(f"{twice}: stands among the runs twice; name it once")
    return found


def _step_of(path: Path) -> int:
    digits = path.parent.name.removeprefix("step_")
    return int(digits) if digits.isdigit() else 0


def load_run(path: Path, name: str | None = None) -> Run:
    """Reads a finished run.

    Args:
      name: how the report is to call its model.

    Raises:
      UserError: it is unfinished or damaged.
    """
    scores = load_scores(path)
    home = path.parent.parent if path.parent.name == "tasks" else path
    config = read_config(home)
    for other in config.get("others") or []:
        if home != path and other["name"] == path.name:
            config["task"] = other["task"]
    results = json.loads((path / "results.json").read_text(encoding="utf-8"))
    prompted = "init_from" not in config
    return Run(
        path=path,
        model=name or (scores.main if prompted else model_name(config)),
        prompted=prompted,
        scores=scores,
        stages=read_lineage(home),
        labelled=results.get("labelled_examples", {}),
        inference=results.get("inference"),
        test_file=str(config.get("task", {}).get("test", "")),
    )


def read_config(path: Path) -> dict[str, Any]:
    """A run's configuration.

    Raises:
      UserError: there is none, or it is damaged.
    """
    file = path / "config.yaml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{file}: missing or damaged; {path} cannot be compared")
    return found


def model_name(config: dict[str, Any]) -> str:
    """Of a fine-tuning: what it began from, and how it was adapted if not as a whole."""
    training, extra = config.get("training") or {}, []
    if training.get("epochs") == 0:
        extra.append("untrained head")
    if training.get("lora"):
        extra.append("LoRA")
    if training.get("freeze") is not None:
        extra.append(f"frozen {training['freeze']}")
    return ", ".join([origin_name(config["init_from"]), *extra])


def load_pretraining(path: Path) -> Pretraining:
    """Reads a run of medjax.pretrain.

    Raises:
      UserError: it is unfinished, or was never validated.
    """
    stages = read_lineage(path)
    if stages is None or not (path / "metrics.jsonl").is_file():
        raise UserError(
            f"{path}: no finished run of medjax.pretrain (lineage.json and metrics.jsonl); run its "
            "command again to finish it"
        )
    *earlier, own = stages
    name = "bits_per_byte" if own.objective == "causal_lm" else "nats_per_masked_byte"
    metrics = read_metrics(path)
    validations = [m for m in metrics if f"validation/{name}" in m]
    if not validations:
        raise UserError(
            f"{path}: metrics.jsonl holds no validation/{name}; evaluate while training"
        )
    last = validations[-1]
    return Pretraining(
        path=path,
        name=path.resolve().name,
        stage=own,
        earlier=earlier,
        steps=metrics[-1]["step"],
        losses=[_loss(m, m[f"validation/{name}"]) for m in validations],
        token_loss=last["validation/loss"],
        plateau=last.get("validation/unigram_plateau"),
    )


def _loss(metrics: dict[str, Any], value: float) -> Loss:
    """Of one line of metrics; the batches of a validation are its clusters."""
    batches = metrics.get("validation/batches", [])
    if len(batches) < BATCHES:
        return Loss(metrics["step"], value, None)
    quotient = additive("loss", np.array(batches, float), "mean")
    return Loss(metrics["step"], value, draw([quotient], np.arange(len(batches))))


def overlaps(run: Run, task: str) -> list[Seen]:
    """Evaluation sets that the model's notes hold examples of and that are this task's."""
    own = [seen for stage in run.history for seen in stage.evaluations]
    return [seen for seen in own if seen.examples and _is_of(seen, run, task)]


def was_checked(run: Run, task: str) -> bool:
    """Whether the notes of every stage were searched for the task's examples."""
    return bool(run.stages) and all(
        any(_is_of(seen, run, task) for seen in stage.evaluations) for stage in run.history
    )


def _is_of(seen: Seen, run: Run, task: str) -> bool:
    """By name (NCBI-disease and ncbi_disease are one), or by the file of the run's test set."""
    letters = [re.sub(r"[\W_]", "", name).casefold() for name in (seen.name, task)]
    file = Path(run.test_file).name
    return letters[0] == letters[1] or (bool(file) and Path(seen.path).name == file)
