"""All trainings of a fine-tuning run (label fractions, learning rates, seeds) and what validation
chooses among them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from medjax.config import UserError
from medjax.data.length_batches import LengthBatches, target_lengths
from medjax.scoring.results import LOWER_IS_BETTER
from medjax.tasks.decode import (
    MAIN_METRICS,
    Scored,
    flag_from,
    metric_names,
    metrics_of,
    predict,
    select,
)
from medjax.tasks.encode import Rows
from medjax.tasks.examples import TaskData
from medjax.tasks.splits import fraction as share_out
from medjax.tasks.targets import class_weights, thin_null_windows
from medjax.training.adapt import adapt
from medjax.training.checkpoint import best_step, keep_only
from medjax.training.config import LabelledConfig, LoopConfig
from medjax.training.flops import peak_flops
from medjax.training.initial import Backbone, load_backbone
from medjax.training.labelled import (
    Feed,
    Trainer,
    best_parameters,
    common_edges,
    read_validated,
    run_training,
)
from medjax.training.learner import Learner, build_learner
from medjax.training.mesh import check_batch, make_mesh
from medjax.training.mixture import MEAN, Other, mixed, splits_of, validation_figures
from medjax.training.optimizer import build_optimizer
from medjax.training.packed import PackedFeed, Packing, pack_feed
from medjax.training.schedule import VARIED, varied_schedule
from medjax.training.state import state_specs
from medjax.training.step import build_train_step

if TYPE_CHECKING:
    from medjax.finetune import FinetuneConfig

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """One training."""

    fraction: float
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"labels_{self.fraction:g}-lr_{self.learning_rate:g}-seed_{self.seed}"


class Setup(NamedTuple):
    """What all trainings share."""

    data: TaskData
    learner: Learner
    backbone: Backbone
    mesh: Mesh
    feeds: dict[str, Feed | PackedFeed]
    """Of each split: rows, targets, batches."""
    training: LabelledConfig
    """With the family's values where the configuration left them open."""
    metric: str
    """What decides on validation."""
    others: list[Other]
    other_feeds: dict[str, dict[str, Feed]]
    """Of each other task, by its name, and each split."""


def build(config: FinetuneConfig, data: Any, data_of_others: Sequence[Any] = ()) -> Setup:
    """Everything that can go wrong before the first step."""
    task = config.task
    mesh = make_mesh(config.mesh, 0)
    check_batch(config.training.batch_size, config.training.accumulation, mesh)
    backbone = load_backbone(config.init_from, config.compute, mesh, 0)
    training = config.training.for_family(backbone.model.config.model_type)
    learner = build_learner(
        backbone, task, data.labels, config.head, config.answers, config.decoding, mesh
    )
    others = build_others(config, data_of_others, backbone, learner, mesh)
    learner = adapt(learner, training.freeze, training.lora, mesh)
    metric = check_choices(config, data, learner)
    rows = {name: learner.encode(examples) for name, examples in data.splits.items()}
    every = [*rows.values(), *(own for other in others for own in other.rows.values())]
    edges = common_edges(every, training.batch_size)
    feeds = build_feeds(config, data, rows, edges, learner, others, mesh)
    plan = feeds["train"].plan
    log.info(
        "a step takes %d rows, padded to %s tokens; %.1f%% of the tokens of an epoch are padding",
        plan.batch_size,
        ", ".join(map(str, plan.edges)),
        100 * feeds["train"].padding,
    )
    other_feeds = {other.config.name: {} for other in others}
    for other in others:
        for name, own in other.rows.items():
            plan = LengthBatches(own.lengths, edges, training.batch_size, 0)
            other_feeds[other.config.name][name] = Feed(own, None, plan, learner.pad_id)
    if others and config.metric is None:
        metric = MEAN
    return Setup(data, learner, backbone, mesh, feeds, training, metric, others, other_feeds)


def check_choices(config: FinetuneConfig, data: TaskData, learner: Learner) -> str:
    """The metric of the first task that decides, once what was asked for fits task and model.

    Raises:
      UserError: it does not.
    """
    task, is_text = config.task, learner.use == "text"
    if config.write_text and not is_text:
        raise UserError("write_text is for models that write; remove it")
    metric = config.metric or MAIN_METRICS[task.kind]
    names = metric_names(data.splits["validation"], data.labels, task, is_text=is_text)
    if metric not in names:
        raise UserError(f"metric {metric!r} is none of {task.kind}'s: {', '.join(names)}")
    point = config.operating_point
    if point and (learner.use not in ("sequence", "own") or point.label not in data.labels):
        raise UserError(
            f"operating_point: {point.label!r} is no class of an encoder's; there are "
            f"{', '.join(map(repr, data.labels)) or 'none'}"
        )
    return metric


def build_feeds(
    config: FinetuneConfig,
    data: TaskData,
    rows: Mapping[str, Rows],
    edges: np.ndarray,
    learner: Learner,
    others: Sequence[Other],
    mesh: Mesh,
) -> dict[str, Feed | PackedFeed]:
    """Of each split its rows and targets in batches; train with what else it takes in."""
    task, training, feeds = config.task, config.training, {}
    for name, own in rows.items():
        targets = learner.targets(data.splits[name], own)
        if name == "train" and learner.use == "answer":
            own, targets = thin_null_windows(own, targets, task.null_windows)
        elif name == "train" and others:
            own, targets = mixed(own, targets, others)
        plan = LengthBatches(own.lengths, edges, training.batch_size, 0)
        lengths = None
        if task.kind == "tagging" or learner.use == "text":
            sizes = np.array([len(target) for target in targets], np.int64)
            lengths = target_lengths(edges, own.lengths, sizes)
        feeds[name] = Feed(own, targets, plan, learner.pad_id, lengths)
        if name == "train" and learner.goes_on:
            unit = mesh.shape["data"] * mesh.shape["fsdp"] * training.accumulation
            packing = Packing(training.batch_size, unit, config.answers.packed)
            feeds[name] = pack_feed(own, targets, learner.pad_id, packing)
        counts = f"{len(data.splits[name]):,} examples in {len(own.input_ids):,} rows"
        log.info("%s: %s, %d cut at max_length", name, counts, own.cut.sum())
    return feeds


def build_others(
    config: FinetuneConfig, data: Sequence[Any], backbone: Backbone, first: Learner, mesh: Mesh
) -> list[Other]:
    """The other tasks of a model that writes."""
    if config.others and first.use != "text":
        raise UserError("others are for models that write, not for one with a head; remove them")
    found = []
    for own, of in zip(config.others, data, strict=True):
        answers = config.answers.model_copy(update={"prompt": own.prompt})
        learner = build_learner(backbone, own.task, of.labels, None, answers, config.decoding, mesh)
        other = Other(own, of, learner, {})
        for name in splits_of(other):
            other.rows[name] = learner.encode(of.splits[name])
        found.append(other)
    return found


def main_metric(config: FinetuneConfig, setup: Setup) -> str:
    """The metric of the first task."""
    return MAIN_METRICS[config.task.kind] if setup.metric == MEAN else setup.metric


def train_fraction(config: FinetuneConfig, setup: Setup, fraction: float) -> dict[Job, dict]:
    """All trainings on one share of the labels; of each, what validation says."""
    splits, feeds = share_of(config, setup, fraction)
    trainer = build_trainer(config, setup, splits, feeds)
    found: dict[Job, dict] = {}
    for learning_rate in setup.training.learning_rate:
        for seed in config.seeds:
            job = Job(fraction, learning_rate, seed)
            folder = Path(config.run_dir) / "trainings" / job.name
            record = folder / "validation.json"
            if record.exists():
                found[job] = json.loads(record.read_text())
                continue
            log.info("training: %s", job.name)
            finished = run_training(trainer, folder, seed, learning_rate)
            step = best_step(folder / "checkpoints") or 0
            own = read_validated(folder).get(str(step))
            if own is None:  # the first parameters, or those of an epoch that was cut short
                params, _ = best_parameters(setup.learner, folder, seed, setup.mesh)
                selections, metrics = trainer.validate(params)
                own = {"selections": selections, "metrics": metrics}
            found[job] = {
                "labelled_examples": {n: len(splits[n]) for n in ("train", "validation")},
                "best_epoch": step // trainer.every,
                "diverged": not finished,
                **own,
            }
            folder.mkdir(parents=True, exist_ok=True)
            write_json(record, found[job])
            keep_only(folder / "checkpoints", [step])  # the last one was for going on
    return found


def validate(
    config: FinetuneConfig, setup: Setup, splits: dict, feeds: dict, params: Any
) -> tuple[dict[str, Any], dict[str, float]]:
    """What validation selects for these parameters, by rule, and its metrics with the first."""
    labels, examples = setup.data.labels, splits["validation"]
    outputs = setup.learner.respond(params, feeds["validation"], examples)
    scored = Scored(examples, feeds["validation"].rows, outputs, setup.learner.read)
    rules = config.thresholds if config.task.kind == "multilabel" and not scored.is_text else [None]
    selections = {
        "" if rule is None else f"threshold {rule}": select(scored, labels, config.task, rule)
        for rule in rules
    }
    first = next(iter(selections))
    predictions = predict(scored, labels, config.task, selections[first])
    point = config.operating_point
    if point:
        threshold = flag_from(examples, predictions, labels.index(point.label), point.recall)
        selections[first] = selections[first]._replace(operating=threshold)
    metrics = metrics_of(examples, predictions, labels, config.task)
    figures = {metric.name: metric.value for metric in metrics}
    if setup.others:
        first, whole = figures[MAIN_METRICS[config.task.kind]], setup.learner.whole(params)
        figures |= validation_figures(setup.others, setup.other_feeds, whole, first)
    return selections, figures


def share_of(config: FinetuneConfig, setup: Setup, fraction: float) -> tuple[dict, dict]:
    """Examples and feeds of every split with this share of the labels."""
    splits, feeds = dict(setup.data.splits), dict(setup.feeds)
    names = ("train", "validation") if config.validation == "fraction" else ("train",)
    for name in names if fraction < 1 else ():
        kept = share_out(splits[name], fraction, 0)
        feeds[name] = feeds[name].subset(kept)
        splits[name] = [example for example, own in zip(splits[name], kept, strict=True) if own]
    return splits, feeds


def build_trainer(config: FinetuneConfig, setup: Setup, splits: dict, feeds: dict) -> Any:
    """The jitted step and all that the trainings on these labels share."""
    training, task, learner = setup.training, config.task, setup.learner
    per_epoch = feeds["train"].plan.steps_per_epoch
    passes = max(math.ceil(training.min_steps / max(training.epochs * per_epoch, 1)), 1)
    every = passes * per_epoch
    steps = max(training.epochs * every, 1)
    schedule = varied_schedule(training.schedule)
    optimizer = build_optimizer(training.optimizer, schedule, learner.specs)
    loop = LoopConfig(
        steps=steps,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        dropout=training.dropout,
        log_every=every,
    )
    specs = state_specs(learner.specs, optimizer.state_specs, VARIED)
    weights = class_weights(training.class_weights, splits["train"], setup.data.labels, task.kind)
    loss = learner.loss(training.label_smoothing, weights)
    step = build_train_step(loss, optimizer, loop, setup.mesh, specs, learner.frozen)

    def validated(params: Any) -> tuple[dict[str, Any], dict[str, float]]:
        selections, figures = validate(config, setup, splits, feeds, params)
        log.info("validation %s %.4f", setup.metric, figures[setup.metric])
        return {name: own._asdict() for name, own in selections.items()}, figures

    return Trainer(
        learner=learner,
        feed=feeds["train"],
        validate=validated,
        criterion=lambda figures: criterion(setup, figures, "validation/"),
        step=step,
        optimizer=optimizer,
        specs=specs,
        loop=loop,
        warmup_steps=min(round(training.warmup * steps), steps - 1),
        epochs=training.epochs,
        every=every,
        patience=training.patience,
        mesh=setup.mesh,
        peak_flops=peak_flops(jax.devices()[0], config.compute.dtype) * jax.device_count(),
        about={"init_from": config.init_from, "sources": setup.backbone.sources},
    )


def criterion(setup: Setup, figures: dict[str, float], prefix: str = "") -> float:
    """What decides on validation; the lowest is best."""
    value = figures[f"{prefix}{setup.metric}"]
    return value if setup.metric in LOWER_IS_BETTER else -value


def choose(config: FinetuneConfig, setup: Setup, found: dict[Job, dict]) -> dict[str, Any]:
    """The learning rate with the best mean over seeds on validation, and each seed's choices."""
    means = {}
    for rate in setup.training.learning_rate:
        own = [v["metrics"][setup.metric] for job, v in found.items() if job.learning_rate == rate]
        means[rate] = sum(own) / len(own)
    best = min(means, key=lambda rate: criterion(setup, {setup.metric: means[rate]}))
    seeds = {str(job.seed): v for job, v in found.items() if job.learning_rate == best}
    for job in found:
        if job.learning_rate != best:  # what was not chosen makes room
            keep_only(Path(config.run_dir) / "trainings" / job.name / "checkpoints", [])
    return {
        "metric": setup.metric,
        "validation_mean_by_learning_rate": {f"{rate:g}": mean for rate, mean in means.items()},
        "learning_rate": best,
        "seeds": seeds,
    }


def parameters(config: FinetuneConfig, setup: Setup, job: Job) -> Any:
    """Those of a training's best epoch."""
    folder = Path(config.run_dir) / "trainings" / job.name
    return best_parameters(setup.learner, folder, job.seed, setup.mesh)[0]


def write_json(path: Path, values: Any) -> None:
    """Whole or not there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    temporary.rename(path)
