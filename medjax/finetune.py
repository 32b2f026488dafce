"""Fine-tune a model on a labelled task and score it.

    python -m medjax.finetune CONFIG.yaml [--dotted.field value ...]

Every seed is trained; its best epoch, the learning rate, thresholds and temperature are chosen on
validation and written to `selection.json` before test is scored. The run directory then holds
`results.json` (scores over seeds with intervals), `predictions.jsonl`, and the best model on
validation as a Hugging Face folder (`export/`). The same command goes on where it stopped. Encoders
get a head, a T5 reads the task as text and writes its answer.

    run_dir: runs/ncbi
    init_from: models/minilm         # a Hugging Face folder or a run of medjax.pretrain
    task:
      kind: tagging                  # classification, multilabel, question_answering, ...
      train: NCBI-disease-IOB/train.tsv
      validation: NCBI-disease-IOB/devel.tsv
      test: NCBI-disease-IOB/test.tsv
    seeds: [1, 2, 3]
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from medjax.config import Schema, UserError, main
from medjax.decoding.config import DecodingConfig
from medjax.models.config import Compute
from medjax.tasks.config import TaskConfig
from medjax.training.config import LabelledConfig, MeshConfig
from medjax.training.run_dir import check_resumable, claimed

log = logging.getLogger(__name__)

Probability = Annotated[float, Field(gt=0, lt=1)]
CHANGEABLE = ("mesh.", "compute.unroll", "compute.remat", "compute.attention")
ENOUGH_SEEDS = 5


class FinetuneConfig(Schema):
    """One task and one model."""

    run_dir: str
    """Folder of the run; resumed if it holds one."""
    init_from: str
    """Hugging Face folder, run directory, or checkpoints/STEP in one."""
    task: TaskConfig
    """Labelled data."""
    head: str | None = None
    """A head of your own, `package.module:Class`, a linen module made with num_labels."""
    compute: Compute = Compute()
    """Precision, rematerialisation, attention."""
    training: LabelledConfig = LabelledConfig()
    """Epochs, batch, learning rate."""
    decoding: DecodingConfig = DecodingConfig()
    """Of a T5; max_new_tokens is task.max_target_length."""
    seeds: list[int] = Field([1, 2, 3, 4, 5], min_length=1)
    """One training each; all of them are reported."""
    label_fractions: list[float] = Field([1.0], min_length=1)
    """Shares of the labelled examples of train, smaller ones within larger: a learning curve."""
    validation: Literal["fraction", "full"] = "fraction"
    """Whether validation shrinks with the label fraction, as labels would be short there too."""
    metric: str | None = None
    """Chooses epoch and learning rate; by default the task's usual one."""
    thresholds: list[Literal["tuned"] | Probability] = Field(["tuned"], min_length=1)
    """multilabel: a probability for all labels, or tuned on validation for each; the first decides,
    the others are rows of their own in the table."""
    write_text: bool = False
    """Writes what a T5 wrote to generated.jsonl, which only its owner may read."""
    baselines: list[Literal["majority", "tfidf_logreg"]] = ["majority", "tfidf_logreg"]
    """Stand beside the model where classes are predicted."""
    draws: int = Field(1000, ge=100)
    """Of the bootstrap behind the intervals."""
    mesh: MeshConfig = MeshConfig()
    """How devices are used."""


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

    data: Any
    learner: Any
    backbone: Any
    mesh: Any
    feeds: dict[str, Any]
    """Of each split: rows, targets, batches."""
    training: LabelledConfig
    """With the family's values where the configuration left them open."""
    metric: str


def run(config: FinetuneConfig) -> int:
    """Trains all seeds, chooses on validation, scores test, writes everything; the exit code."""
    run_dir = Path(config.run_dir)
    check_resumable(run_dir, config, CHANGEABLE)
    from medjax.tasks.read import read_task

    data = read_task(config.task)  # before JAX starts: most mistakes are in the files

    import jax

    from medjax.training.labelled import Interrupted

    setup = build(config, data)
    with claimed(run_dir, config), jax.set_mesh(setup.mesh):
        if not jax.config.jax_compilation_cache_dir:
            jax.config.update("jax_compilation_cache_dir", str(run_dir.resolve() / "compiled"))
        log.info(
            "label fractions %s, learning rates %s, seeds %s: all are reported",
            config.label_fractions,
            setup.training.learning_rate,
            config.seeds,
        )
        try:
            chosen = {
                fraction: choose(config, setup, train_fraction(config, setup, fraction))
                for fraction in config.label_fractions
            }
        except Interrupted as stop:
            return stop.exit_code
        write_json(run_dir / "selection.json", {f"{f:g}": own for f, own in chosen.items()})
        report(config, setup, chosen)
    return 0


def build(config: FinetuneConfig, data: Any) -> Setup:
    """Everything that can go wrong before the first step."""
    from medjax.data.length_batches import LengthBatches
    from medjax.tasks.decode import MAIN_METRICS
    from medjax.training.initial import load_backbone
    from medjax.training.labelled import Feed, common_edges, target_lengths
    from medjax.training.learner import build_learner
    from medjax.training.mesh import check_batch, make_mesh

    task = config.task
    mesh = make_mesh(config.mesh, 0)
    check_batch(config.training.batch_size, config.training.accumulation, mesh)
    backbone = load_backbone(config.init_from, config.compute, mesh, 0)
    training = config.training.for_family(backbone.model.config.model_type)
    learner = build_learner(backbone, task, data.labels, config.head, config.decoding, mesh)
    if config.write_text and learner.use != "text":
        raise UserError("write_text is for a T5; remove it")
    rows = {name: learner.encode(examples) for name, examples in data.splits.items()}
    edges, feeds = common_edges(list(rows.values()), training.batch_size), {}
    for name, own in rows.items():
        plan = LengthBatches(own.lengths, edges, training.batch_size, 0)
        targets = learner.targets(data.splits[name], own)
        lengths = None
        if task.kind == "tagging" or learner.use == "text":
            lengths = target_lengths(edges, own, targets)
        feeds[name] = Feed(own, targets, plan, learner.tokenizer.pad_token_id, lengths)
        counts = f"{len(data.splits[name]):,} examples in {len(own.input_ids):,} rows"
        log.info("%s: %s, %d cut at max_length", name, counts, own.cut.sum())
    plan = feeds["train"].plan
    log.info(
        "rows padded to %s tokens: %.1f%% of the tokens of an epoch are padding",
        ", ".join(map(str, edges)),
        100 * plan.padding(plan.epoch(0)),
    )
    metric = config.metric or MAIN_METRICS[task.kind]
    return Setup(data, learner, backbone, mesh, feeds, training, metric)


def train_fraction(config: FinetuneConfig, setup: Setup, fraction: float) -> dict[Job, dict]:
    """All trainings on one share of the labels; of each, what validation says."""
    from medjax.training.labelled import best_parameters, run_training

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
            params, step = best_parameters(setup.learner, folder, seed, setup.mesh)
            selections, metrics = validate(config, setup, splits, feeds, params)
            found[job] = {
                "labelled_examples": {n: len(splits[n]) for n in ("train", "validation")},
                "best_epoch": step // feeds["train"].plan.steps_per_epoch,
                "diverged": not finished,
                "selections": {n: own._asdict() for n, own in selections.items()},
                "metrics": {metric.name: metric.value for metric in metrics},
            }
            folder.mkdir(parents=True, exist_ok=True)
            write_json(record, found[job])
    return found


def validate(
    config: FinetuneConfig, setup: Setup, splits: dict, feeds: dict, params: Any
) -> tuple[dict[str, Any], list[Any]]:
    """What validation selects for these parameters, by rule, and its metrics with the first."""
    from medjax.tasks.decode import Scored, metrics_of, predict, select

    labels, examples = setup.data.labels, splits["validation"]
    outputs = setup.learner.respond(params, feeds["validation"])
    scored = Scored(examples, feeds["validation"].rows, outputs)
    rules = config.thresholds if config.task.kind == "multilabel" and not scored.is_text else [None]
    selections = {
        "" if rule is None else f"threshold {rule}": select(scored, labels, config.task, rule)
        for rule in rules
    }
    predictions = predict(scored, labels, config.task, next(iter(selections.values())))
    return selections, metrics_of(examples, predictions, labels, config.task)


def share_of(config: FinetuneConfig, setup: Setup, fraction: float) -> tuple[dict, dict]:
    """Examples and feeds of every split with this share of the labels."""
    from medjax.tasks.splits import fraction as choose

    splits, feeds = dict(setup.data.splits), dict(setup.feeds)
    names = ("train", "validation") if config.validation == "fraction" else ("train",)
    for name in names if fraction < 1 else ():
        kept = choose(splits[name], fraction, 0)
        feeds[name] = feeds[name].subset(kept)
        splits[name] = [example for example, own in zip(splits[name], kept, strict=True) if own]
    return splits, feeds


def build_trainer(config: FinetuneConfig, setup: Setup, splits: dict, feeds: dict) -> Any:
    """The jitted step and all that the trainings on these labels share."""
    import jax

    from medjax.tasks.targets import class_weights
    from medjax.training.config import LoopConfig, ScheduleConfig
    from medjax.training.flops import peak_flops
    from medjax.training.labelled import Trainer
    from medjax.training.optimizer import build_optimizer
    from medjax.training.state import state_specs
    from medjax.training.step import build_train_step

    training, task, learner = setup.training, config.task, setup.learner
    per_epoch = feeds["train"].plan.steps_per_epoch
    steps = max(training.epochs * per_epoch, 1)
    warmup = round(training.warmup * steps)
    schedule = ScheduleConfig(kind=training.schedule, learning_rate=1.0, warmup_steps=warmup)
    optimizer = build_optimizer(training.optimizer, schedule, learner.specs, steps)
    loop = LoopConfig(
        steps=steps,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        dropout=training.dropout,
        log_every=per_epoch,
    )
    specs = state_specs(learner.specs, optimizer.state_specs, ["learning_rate"])
    weights = class_weights(training.class_weights, splits["train"], setup.data.labels, task.kind)
    loss = learner.loss(training.label_smoothing, weights)
    step = build_train_step(
        loss, optimizer, loop, setup.mesh, specs, lambda state: state.hyper["learning_rate"]
    )

    def evaluate(params: Any) -> dict[str, float]:
        _, found = validate(config, setup, splits, feeds, params)
        figures = {f"validation/{metric.name}": metric.value for metric in found}
        if f"validation/{setup.metric}" not in figures:
            names = ", ".join(metric.name for metric in found)
            raise UserError(f"metric {setup.metric!r} is none of {task.kind}'s: {names}")
        log.info("validation %s %.4f", setup.metric, figures[f"validation/{setup.metric}"])
        return figures

    return Trainer(
        learner=learner,
        feed=feeds["train"],
        evaluate=evaluate,
        criterion=lambda figures: criterion(setup, figures, "validation/"),
        step=step,
        optimizer=optimizer,
        specs=specs,
        loop=loop,
        epochs=training.epochs,
        patience=training.patience,
        mesh=setup.mesh,
        peak_flops=peak_flops(jax.devices()[0], config.compute.dtype) * jax.device_count(),
        about={"init_from": config.init_from, "sources": setup.backbone.sources},
    )


def criterion(setup: Setup, figures: dict[str, float], prefix: str = "") -> float:
    """What decides on validation; the lowest is best."""
    from medjax.scoring.results import LOWER_IS_BETTER

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
    return {
        "metric": setup.metric,
        "validation_mean_by_learning_rate": {f"{rate:g}": mean for rate, mean in means.items()},
        "learning_rate": best,
        "seeds": seeds,
    }


def report(config: FinetuneConfig, setup: Setup, chosen: dict[float, dict]) -> None:
    """Scores test with what was chosen, and writes results, predictions and the export."""
    from medjax.tasks.baselines import KINDS, baseline
    from medjax.tasks.decode import Scored, Selection, predict
    from medjax.tasks.report import write_results

    data, feed, task = setup.data, setup.feeds["test"], config.task
    predictions: dict[str, list[Any]] = {}
    begun = Path(config.init_from).name if config.training.epochs else "untrained head"
    main = ""
    for fraction, own in sorted(chosen.items()):
        count = own["seeds"][str(config.seeds[0])]["labelled_examples"]["train"]
        main = f"{begun}, {count:,} labelled examples"
        for seed in config.seeds:
            params = parameters(config, setup, Job(fraction, own["learning_rate"], seed))
            outputs = setup.learner.respond(params, feed)
            scored = Scored(data.splits["test"], feed.rows, outputs)
            rules = own["seeds"][str(seed)]["selections"]
            for place, (rule, selection) in enumerate(rules.items()):
                title = f"{main}, {rule}" if place else main
                found = predict(scored, data.labels, task, Selection(**selection))
                predictions.setdefault(title, []).append(found)
    for name in config.baselines if task.kind in KINDS else ():
        found = baseline(name, data.splits["train"], data.splits["test"], data.labels, task)
        predictions[name] = [found]
    own = chosen[max(chosen)]
    best = min(config.seeds, key=lambda seed: criterion(setup, own["seeds"][str(seed)]["metrics"]))
    print(
        write_results(
            Path(config.run_dir), task, data, setup.metric, predictions, main,
            config.seeds, best, config.draws, write_text=config.write_text,
        )
    )  # fmt: skip
    export(config, setup, own, best)


def export(config: FinetuneConfig, setup: Setup, own: dict[str, Any], seed: int) -> None:
    """Writes the best seed on validation as a Hugging Face folder."""
    from medjax.hub.folder import save_pretrained
    from medjax.hub.heads import RULES, save_finetuned
    from medjax.tasks.report import task_card

    task, learner, backbone = config.task, setup.learner, setup.backbone
    run_dir, labels = Path(config.run_dir), setup.data.labels
    params = parameters(config, setup, Job(max(config.label_fractions), own["learning_rate"], seed))
    card = task_card(run_dir, task, setup.data, config.init_from, backbone.sources, seed)
    rules = {"task": task.model_dump(mode="json"), "labels": list(labels), "head": config.head}
    selection = next(iter(own["seeds"][str(seed)]["selections"].values()))
    rules |= {"use": learner.use, "selection": selection}
    rules["compute"] = config.compute.model_dump(mode="json")
    rules["decoding"] = config.decoding.model_dump(mode="json")
    folder = run_dir / "export"
    if learner.labeller is None:
        save_pretrained(folder, backbone.model, params, backbone.tokenizer, card)
        write_json(folder / RULES, rules)
    else:
        save_finetuned(
            folder,
            learner.labeller,
            params,
            learner.use,
            learner.score_names,
            rules,
            backbone.tokenizer,
            card,
            multi_label=task.kind == "multilabel",
        )
    (run_dir / "README.md").write_text(card, encoding="utf-8")
    log.info("exported seed %d, the best on validation, to %s", seed, folder)


def parameters(config: FinetuneConfig, setup: Setup, job: Job) -> Any:
    """Those of a training's best epoch."""
    from medjax.training.labelled import best_parameters

    folder = Path(config.run_dir) / "trainings" / job.name
    return best_parameters(setup.learner, folder, job.seed, setup.mesh)[0]


def write_json(path: Path, values: Any) -> None:
    """Whole or not there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    temporary.rename(path)


if __name__ == "__main__":
    main(FinetuneConfig, run, __doc__)
