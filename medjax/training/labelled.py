"""Training on labelled rows with the loop of pretraining, and the scores of rows.

Rows come in batches of similar length and few padded lengths (`data/length_batches.py`), the same
lengths for all splits, so that nothing compiles anew after the first pass.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from medjax.data.length_batches import LengthBatches, length_batches
from medjax.models.heads import Labeller
from medjax.models.model import Params
from medjax.models.spec import count_params
from medjax.objectives.labels import masked_scores
from medjax.tasks.encode import Rows, subset
from medjax.tasks.targets import collate
from medjax.training.checkpoint import Checkpoints, best_step, restore_latest, restore_params
from medjax.training.config import CheckpointConfig, EvaluationConfig, LoopConfig
from medjax.training.loop import EXIT_PREEMPTED, Diverged, Loop, Work, train
from medjax.training.mesh import place_batch, shardings
from medjax.training.optimizer import Optimizer
from medjax.training.state import TrainState, abstract_state, create_state
from medjax.training.step import Step
from medjax.training.tracker import Tracker

log = logging.getLogger(__name__)


class Feed(NamedTuple):
    """Rows of a split, how they are batched, and what makes arrays of them."""

    rows: Rows
    targets: list[np.ndarray] | None
    plan: LengthBatches
    pad_id: int
    per_token: bool

    def batch(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of some rows."""
        length = self.plan.padded_length(chosen)
        return collate(
            self.rows, self.targets, chosen, length, self.pad_id, per_token=self.per_token
        )

    def subset(self, kept: np.ndarray) -> Feed:
        """The feed of some of the examples."""
        own = kept[self.rows.example]
        rows = subset(self.rows, kept)
        targets = [target for target, mine in zip(self.targets, own, strict=True) if mine]
        return self._replace(
            rows=rows, targets=targets, plan=self.plan._replace(lengths=rows.lengths)
        )


def common_edges(splits: list[Rows], batch_size: int) -> np.ndarray:
    """Padded lengths for rows of all splits."""
    return length_batches(np.concatenate([rows.lengths for rows in splits]), batch_size, 0).edges


def train_batches(feed: Feed, steps: int, mesh: Mesh) -> Callable[[int], Iterator[Any]]:
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


def measure_work(feed: Feed, labeller: Labeller, steps: int, peak: float | None) -> Work:
    """Tokens of text and FLOPs of a run's steps: 6 FLOPs a token and parameter in a product.

    Embedding tables are looked up, not multiplied; products of attention's scores are left out.
    """
    per_epoch = feed.plan.steps_per_epoch
    counts = np.zeros(steps + 1, np.int64)
    for epoch in range(-(-steps // per_epoch)):
        own = feed.plan.epoch(epoch)
        tokens = np.where(own >= 0, feed.plan.lengths[own], 0).sum(1)
        counts[1 + epoch * per_epoch :][: len(tokens)] = tokens[: steps - epoch * per_epoch]
    total = np.cumsum(counts)
    embeddings = count_params(labeller.specs["backbone"]["embeddings"])
    flops = 6 * (count_params(labeller.specs) - embeddings)
    return Work(lambda step: int(total[step]), lambda step: float(flops * int(total[step])), peak)


def build_scorer(labeller: Labeller, kind: str, mesh: Mesh) -> Callable[[Any, Feed], list]:
    """`score(params, feed) -> logits of each row`: [C], or [T, C] for tags and answers' ends."""

    @jax.jit
    def logits(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        scores = labeller.logits(params, batch).astype(np.float32)
        if kind == "question_answering":
            scores = masked_scores(scores, batch["attention_mask"])
        return scores

    def score(params: Any, feed: Feed) -> list[np.ndarray]:
        found: list[Any] = [None] * len(feed.rows.input_ids)
        pending: list[tuple[np.ndarray, jax.Array]] = []
        unlabelled = feed._replace(targets=None)
        for chosen in feed.plan.in_order_of_length():
            batch = unlabelled.batch(chosen)
            del batch["weight"]
            pending.append((chosen, logits(params, place_batch(batch, mesh))))
        for chosen, values in pending:
            for row, own in zip(chosen, np.asarray(values), strict=True):
                if row >= 0:
                    of_tokens = kind in ("tagging", "question_answering")
                    found[row] = own[: len(feed.rows.input_ids[row])] if of_tokens else own
        return found

    return score


class Trainer(NamedTuple):
    """What the trainings on one share of the labels have in common."""

    labeller: Labeller
    start: Callable[[int], Params]
    """Seed -> the first parameters: the encoder's and a fresh head's."""
    feed: Feed
    """Training rows, in an order that a seed replaces."""
    evaluate: Callable[[Params], dict[str, float]]
    """Parameters -> figures of validation."""
    criterion: Callable[[dict[str, float]], float]
    """Those figures -> what decides, the lowest being best."""
    step: Step
    optimizer: Optimizer
    specs: TrainState
    loop: LoopConfig
    epochs: int
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
    every = {"every": trainer.feed.plan.steps_per_epoch}
    checkpointing = CheckpointConfig(**every, keep_last=1, keep_best=1)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder / "checkpoints", checkpointing)
    restored = restore_latest(checkpoints.directory, abstract_state(trainer.specs, trainer.mesh))
    if restored:
        state, notes = restored.state, restored.notes
    else:
        start, hyper = trainer.start(seed), {"learning_rate": learning_rate}
        state = create_state(
            trainer.specs, trainer.labeller, trainer.optimizer, trainer.mesh, seed, start, hyper
        )
        notes = {}
    feed = trainer.feed._replace(plan=trainer.feed.plan._replace(seed=seed))
    tracker = Tracker(folder, int(state.step), active=jax.process_index() == 0)
    loop = Loop(
        trainer.step,
        train_batches(feed, trainer.loop.steps, trainer.mesh),
        trainer.evaluate,
        checkpoints,
        tracker,
        trainer.loop,
        checkpointing,
        EvaluationConfig(**every, patience=trainer.patience),
        measure_work(feed, trainer.labeller, trainer.loop.steps, trainer.peak_flops),
        trainer.criterion,
        trainer.about,
        folder,
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


def best_parameters(
    specs: Params, start: Callable[[int], Params], folder: Path, seed: int, mesh: Mesh
) -> tuple[Params, int]:
    """The parameters of a training's best epoch on validation, and the step of their checkpoint.

    Step 0: the first ones, where nothing was trained or no epoch was finished.
    """
    directory = folder / "checkpoints"
    best = best_step(directory)
    if best is None:
        return start(seed), 0
    return restore_params(directory, best, specs, shardings(specs, mesh)), best
