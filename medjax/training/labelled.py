"""Training on labelled rows with the loop of pretraining, and the scores of rows.

Rows come in batches of similar length and few padded lengths (`data/length_batches.py`), the same
lengths for all splits, so that nothing compiles anew after the first pass.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from medjax.data.length_batches import LengthBatches, length_batches
from medjax.models.model import Params
from medjax.tasks.encode import Rows, subset
from medjax.tasks.targets import collate
from medjax.training.checkpoint import Checkpoints, best_step, restore_latest, restore_params
from medjax.training.config import CheckpointConfig, EvaluationConfig, LoopConfig
from medjax.training.loop import EXIT_PREEMPTED, Diverged, Loop, Work, train
from medjax.training.mesh import place_batch, shardings
from medjax.training.optimizer import Optimizer
from medjax.training.packed import PackedFeed
from medjax.training.schedule import VARIED
from medjax.training.state import TrainState, abstract_state, create_state
from medjax.training.step import Step
from medjax.training.tracker import Tracker

log = logging.getLogger(__name__)

VALIDATED = "validated.json"


class Feed(NamedTuple):
    """Rows of a split, how they are batched, and what makes arrays of them."""

    rows: Rows
    targets: list[np.ndarray] | None
    plan: LengthBatches
    pad_id: int
    target_lengths: dict[int, int] | None = None
    """Padded length of the rows -> of their targets, where those are sequences; each is long enough
    for all rows up to it, so that there are no more shapes."""

    def batch(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of some rows."""
        length = self.plan.padded_length(chosen)
        target_length = self.target_lengths[length] if self.target_lengths else None
        return collate(self.rows, self.targets, chosen, length, self.pad_id, target_length)

    def subset(self, kept: np.ndarray) -> Feed:
        """The feed of some of the examples."""
        own = kept[self.rows.example]
        rows = subset(self.rows, kept)
        targets = [target for target, mine in zip(self.targets, own, strict=True) if mine]
        return self._replace(
            rows=rows, targets=targets, plan=self.plan._replace(lengths=rows.lengths)
        )

    def work(self, row_flops: Callable[[int, int], float]) -> tuple[np.ndarray, np.ndarray]:
        """Of each row its tokens, those of a target it writes not counted, and forward FLOPs."""
        pairs = zip(self.rows.lengths, self.targets, strict=True)
        return self.rows.lengths, np.array([row_flops(int(n), own.size) for n, own in pairs])

    @property
    def padding(self) -> float:
        """Share of the tokens of an epoch, targets that are sequences included, that is padding."""
        batches = self.plan.epoch(0)
        if self.target_lengths is None:
            return self.plan.padding(batches)
        padded = np.array([self.plan.padded_length(own) for own in batches])
        computed = sum(int(n) + self.target_lengths[int(n)] for n in padded) * batches.shape[1]
        read = self.rows.lengths.sum() + sum(len(target) for target in self.targets)
        return 1.0 - float(read) / max(computed, 1)


def common_edges(splits: list[Rows], batch_size: int) -> np.ndarray:
    """Padded lengths for rows of all splits."""
    return length_batches(np.concatenate([rows.lengths for rows in splits]), batch_size, 0).edges


def train_batches(
    feed: Feed | PackedFeed, steps: int, mesh: Mesh
) -> Callable[[int], Iterator[Any]]:
    """From a step on, the batches on the devices, read ahead by a thread."""
    import grain

    per_epoch = feed.plan.steps_per_epoch
    epochs: dict[int, np.ndarray] = {}

    def rows_of(step: int) -> np.ndarray:
        number, place = divmod(step, per_epoch)
        if number not in epochs:
            epochs.clear()
            epochs[number] = feed.plan.epoch(number)
        return epochs[number][place]

    read_ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)

    def iterate(step: int) -> Iterator[Any]:
        numbers = grain.MapDataset.range(step, steps)
        arrays = numbers.map(lambda number: feed.batch(rows_of(number)))
        for batch in arrays.to_iter_dataset(read_ahead):
            yield place_batch(batch, mesh)

    return iterate


def measure_work(feed: Feed | PackedFeed, learner: Any, steps: int, peak: float | None) -> Work:
    """Tokens of text and model FLOPs of a run's steps."""
    per_epoch = feed.plan.steps_per_epoch
    lengths, flops = feed.work(learner.row_flops)
    flops = flops * (1.0 + learner.backward)
    counts, sums = np.zeros(steps + 1, np.int64), np.zeros(steps + 1)
    for epoch in range(-(-steps // per_epoch)):
        own = feed.plan.epoch(epoch)
        first, left = 1 + epoch * per_epoch, steps - epoch * per_epoch
        for total, of_row in ((counts, lengths), (sums, flops)):
            values = np.where(own >= 0, of_row[own], 0).sum(1)
            total[first:][: len(values)] = values[:left]
    tokens, operations = np.cumsum(counts), np.cumsum(sums)
    return Work(lambda step: int(tokens[step]), lambda step: float(operations[step]), peak)


class Trainer(NamedTuple):
    """What the trainings on one share of the labels have in common."""

    learner: Any
    """See `learner.py`."""
    feed: Feed | PackedFeed
    """Training rows, in an order that a seed replaces."""
    validate: Callable[[Params], tuple[dict[str, Any], dict[str, float]]]
    """Parameters -> what validation selects for them, as JSON, and its figures."""
    criterion: Callable[[dict[str, float]], float]
    """Those figures -> what decides, the lowest being best."""
    step: Step
    optimizer: Optimizer
    specs: TrainState
    loop: LoopConfig
    warmup_steps: int
    epochs: int
    every: int
    """Steps of an epoch, after which validation comes."""
    patience: int | None
    mesh: Mesh
    peak_flops: float | None
    about: dict


class Interrupted(Exception):
    """A signal came; a checkpoint is saved."""

    exit_code = EXIT_PREEMPTED


def run_training(trainer: Trainer, folder: Path, seed: int, learning_rate: float) -> bool:
    """Trains to the end from where the folder's last checkpoint is; false where it diverged.

    Raises:
      Interrupted: by SIGTERM or SIGINT, with a checkpoint saved.
    """
    if not trainer.epochs:
        return True
    every = {"every": trainer.every}
    checkpointing = CheckpointConfig(**every, keep_last=1, keep_best=1)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder / "checkpoints", checkpointing)
    state, notes = _begin(trainer, checkpoints, seed, learning_rate)
    per_epoch, validated = trainer.every, read_validated(folder)
    before = int(state.step) // per_epoch

    def evaluate(params: Params) -> dict[str, float]:
        selections, figures = trainer.validate(params)
        epochs_since = sum(int(step) > before * per_epoch for step in validated)
        step = (before + epochs_since + 1) * per_epoch
        validated[str(step)] = {"selections": selections, "metrics": figures}
        (folder / VALIDATED).write_text(json.dumps(validated), encoding="utf-8")
        return {f"validation/{name}": value for name, value in figures.items()}

    for step in [own for own in validated if int(own) > before * per_epoch]:
        del validated[step]  # of a checkpoint that was lost
    feed = trainer.feed._replace(plan=trainer.feed.plan._replace(seed=seed))
    tracker = Tracker(folder, int(state.step), active=jax.process_index() == 0)
    work = measure_work(feed, trainer.learner, trainer.loop.steps, trainer.peak_flops)
    loop = Loop(
        train_step=trainer.step,
        batches=train_batches(feed, trainer.loop.steps, trainer.mesh),
        evaluate=evaluate,
        checkpoints=checkpoints,
        tracker=tracker,
        config=trainer.loop,
        checkpoint=checkpointing,
        evaluation=EvaluationConfig(**every, patience=trainer.patience),
        work=work,
        criterion=trainer.criterion,
        about=trainer.about,
        run_dir=folder,
    )
    with contextlib.closing(tracker):
        try:
            _, code = train(loop, state, notes)
        except Diverged as error:
            log.warning("%s: %s", folder.name, error)
            checkpoints.wait()
            return False
    if code:
        raise Interrupted
    return True


def _begin(
    trainer: Trainer, checkpoints: Checkpoints, seed: int, learning_rate: float
) -> tuple[TrainState, dict]:
    """The state of the last checkpoint and what was noted beside it, or a new state and nothing."""
    specs, mesh = trainer.specs, trainer.mesh
    restored = restore_latest(checkpoints.directory, abstract_state(specs, mesh))
    if restored:
        return restored.state, restored.notes
    values = (learning_rate, trainer.warmup_steps, trainer.loop.steps)
    hyper = dict(zip(VARIED, values, strict=True))
    start = trainer.learner.start(seed)
    state = create_state(specs, trainer.learner, trainer.optimizer, mesh, seed, start, hyper)
    return state, {}


def read_validated(folder: Path) -> dict[str, dict[str, Any]]:
    """Step -> what validation selected and its figures there, of the evaluations so far."""
    path = folder / VALIDATED
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def best_parameters(learner: Any, folder: Path, seed: int, mesh: Mesh) -> tuple[Params, int]:
    """The parameters of a training's best epoch on validation, and the step of their checkpoint.

    Step 0: the first ones, where nothing was trained or no epoch was finished.
    """
    directory = folder / "checkpoints"
    best = best_step(directory)
    if best is None:
        return learner.start(seed), 0
    return restore_params(directory, best, learner.specs, shardings(learner.specs, mesh)), best
