"""Fine-tune a model on a labelled task and score it.

    python -m medjax.finetune CONFIG.yaml [--dotted.field value ...]

Every seed is trained; its best epoch, the learning rate, thresholds and temperature are chosen on
validation and written to `selection.json` before test is scored. The run directory then holds
`results.json` (scores over seeds with intervals), `predictions.jsonl`, and the best model on
validation as a Hugging Face folder (`export/`). The same command goes on where it stopped. Encoders
get a head, a T5 reads the task as text and writes its answer, a decoder is asked by a prompt and
writes it, or gets a head.

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
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from medjax.config import Schema, UserError, main
from medjax.decoding.config import DecodingConfig
from medjax.models.config import Compute
from medjax.tasks.config import TaskConfig
from medjax.tasks.templates import AnswersConfig, OtherTask
from medjax.training.config import LabelledConfig, MeshConfig
from medjax.training.run_dir import check_resumable, claimed

if TYPE_CHECKING:
    from medjax.training.sweep import Setup

log = logging.getLogger(__name__)

Probability = Annotated[float, Field(gt=0, lt=1)]
CHANGEABLE = ("mesh.", "compute.unroll", "compute.remat", "compute.attention")


class OperatingPoint(Schema):
    """A class is flagged from a probability on that validation chooses for a recall."""

    label: str
    """The class."""
    recall: Probability
    """Share of its examples in validation that are to be found."""


class FinetuneConfig(Schema):
    """One task and one model."""

    run_dir: str
    """Folder of the run; resumed if it holds one."""
    init_from: str
    """Hugging Face folder, run directory, or checkpoints/STEP in one."""
    steps: list[int | Literal["last"]] | None = Field(None, min_length=1)
    """Checkpoints of the run directory init_from; each is fine-tuned in a folder of its own."""
    task: TaskConfig
    """Labelled data."""
    name: str = "first"
    """Of the task, beside others."""
    family: str | None = None
    """Of the task: the mean over others counts families alike."""
    others: list[OtherTask] = []
    """More tasks for a model that writes, in the same training or scored alone."""
    head: str | None = None
    """A head of your own, `package.module:Class`, a linen module made with num_labels."""
    compute: Compute = Compute()
    """Precision, rematerialisation, attention."""
    training: LabelledConfig = LabelledConfig()
    """Epochs, batch, learning rate."""
    answers: AnswersConfig = AnswersConfig()
    """Decoders: written after a prompt, or by a head."""
    decoding: DecodingConfig = DecodingConfig()
    """Of what is written; max_new_tokens is task.max_target_length."""
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
    operating_point: OperatingPoint | None = None
    """Encoders' classes: also reports sensitivity, specificity, predictive values and the share
    that is flagged at a threshold chosen on validation."""
    write_text: bool = False
    """Writes what a model wrote to generated.jsonl, which only its owner may read."""
    baselines: list[Literal["majority", "tfidf_logreg"]] = ["majority", "tfidf_logreg"]
    """Stand beside the model where classes are predicted."""
    draws: int = Field(1000, ge=100)
    """Of the bootstrap behind the intervals."""
    mesh: MeshConfig = MeshConfig()
    """How devices are used."""


def run(config: FinetuneConfig) -> int:
    """Fine-tunes one checkpoint, or each of several; the exit code."""
    if config.steps is None:
        return fine_tune(config)
    from medjax.training.checkpoint import saved_steps
    from medjax.training.sweep import write_json

    directory, run_dir = Path(config.init_from) / "checkpoints", Path(config.run_dir)
    saved = saved_steps(directory) if directory.is_dir() else []
    steps = [saved[-1] if step == "last" and saved else step for step in config.steps]
    if not set(steps) <= set(saved):
        raise UserError(f"steps: {directory} holds the checkpoints {saved}, not all of {steps}")
    check_resumable(run_dir, config, CHANGEABLE)
    results = {}
    with claimed(run_dir, config):
        for step in steps:
            own = {"steps": None, "init_from": f"{directory}/{step:08d}"}
            own["run_dir"] = f"{run_dir}/step_{step}"
            code = fine_tune(config.model_copy(update=own))
            if code:
                return code
            found = json.loads((run_dir / f"step_{step}" / "results.json").read_text())
            results[str(step)] = found["test"][found["main"]][found["metric"]]
            print()
        print(f"{found['metric']} of test by checkpoint")
        for step, value in results.items():
            print(f"{step:>9}  {value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")
        write_json(run_dir / "results.json", {"metric": found["metric"], "test_by_step": results})
    return 0


def fine_tune(config: FinetuneConfig) -> int:
    """Trains all seeds, chooses on validation, scores test, writes everything; the exit code."""
    run_dir = Path(config.run_dir)
    check_resumable(run_dir, config, CHANGEABLE)
    from medjax.tasks.read import read_task

    data = read_task(config.task)  # before JAX starts: most mistakes are in the files

    import jax

    from medjax.training.labelled import Interrupted
    from medjax.training.sweep import build, choose, train_fraction, write_json

    others = read_others(config)
    setup = build(config, data, others)
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
        if config.others:
            report_others(config, setup, chosen[1.0])
    return 0


def read_others(config: FinetuneConfig) -> list[Any]:
    """The data of the other tasks."""
    if not config.others:
        return []
    from medjax.tasks.read import read_task
    from medjax.training.mixture import check_mixture

    check_mixture(config)
    return [read_task(other.task) for other in config.others]


def report_others(config: FinetuneConfig, setup: Setup, chosen: dict[str, Any]) -> None:
    """Scores the other tasks' test sets, each into a folder of its own, and writes the means."""
    from medjax.tasks.report import Outcome, write_results
    from medjax.training.mixture import FOLDER, respond, write_averages
    from medjax.training.sweep import Job, criterion, main_metric, parameters, write_json

    seeds = chosen["seeds"]
    best = min(config.seeds, key=lambda seed: criterion(setup, seeds[str(seed)]["metrics"]))
    jobs = [Job(1.0, chosen["learning_rate"], seed) for seed in config.seeds]
    whole = [setup.learner.whole(parameters(config, setup, job)) for job in jobs]
    for other in setup.others:
        feeds, name = setup.other_feeds[other.config.name], Path(config.init_from).name
        count = len(other.data.splits["train"]) if other.config.weight else 0
        title = f"{name}, {count:,} labelled examples"
        folder = Path(config.run_dir) / FOLDER / other.config.name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "selection.json", chosen)
        outcome = Outcome(
            run_dir=folder,
            task=other.config.task,
            data=other.data,
            rows=feeds["test"].rows,
            metric=other.metric,
            predictions={title: [respond(other, feeds, params, "test") for params in whole]},
            main=title,
            curve={title: count},
            seeds=config.seeds,
            best=best,
            draws=config.draws,
            write_text=config.write_text,
            about={"trained_on": bool(other.config.weight)},
        )
        print(f"\n{other.config.name}: {write_results(outcome)}")
    print(f"\n{write_averages(config, main_metric(config, setup))}")


class Answered(NamedTuple):
    """What was said of test."""

    predictions: dict[str, list[Any]]
    """By the title of their row, those of each seed."""
    curve: dict[str, int]
    """Of the rows of the learning curve: labelled examples, rising."""
    responses: list[tuple[float, Any]]
    """Of each seed and fraction: seconds, and what the model said."""


def answer(config: FinetuneConfig, setup: Setup, chosen: dict[float, dict]) -> Answered:
    """Asks about test with what was chosen; the one place where test is looked at."""
    from medjax.scoring.lineage import origin_name
    from medjax.tasks.decode import Scored, Selection, predict
    from medjax.training.sweep import Job, parameters
    from medjax.training.work_clock import WorkClock

    found, test = Answered({}, {}, []), setup.data.splits["test"]
    feed, labels = setup.feeds["test"], setup.data.labels
    begun = origin_name(config.init_from) if config.training.epochs else "untrained head"
    for fraction, own in sorted(chosen.items()):
        count = own["seeds"][str(config.seeds[0])]["labelled_examples"]["train"]
        main = f"{begun}, {count:,} labelled examples"
        found.curve[main] = count
        for seed in config.seeds:
            params = parameters(config, setup, Job(fraction, own["learning_rate"], seed))
            with WorkClock() as clock:
                outputs = setup.learner.respond(params, feed, test)
            found.responses.append((clock.seconds, outputs))
            scored = Scored(test, feed.rows, outputs, setup.learner.read)
            rules = own["seeds"][str(seed)]["selections"]
            for place, (rule, selection) in enumerate(rules.items()):
                title = f"{main}, {rule}" if place else main
                own_predictions = predict(scored, labels, config.task, Selection(**selection))
                found.predictions.setdefault(title, []).append(own_predictions)
    return found


def report(config: FinetuneConfig, setup: Setup, chosen: dict[float, dict]) -> None:
    """Scores test with what was chosen, and writes results, predictions and the export."""
    from medjax.tasks.baselines import KINDS, baseline
    from medjax.tasks.report import Outcome, write_results
    from medjax.training.lineage import describe_labelled
    from medjax.training.sweep import criterion, main_metric

    run_dir, data, task = Path(config.run_dir), setup.data, config.task
    found = answer(config, setup, chosen)
    for name in config.baselines if task.kind in KINDS else ():
        own = baseline(name, data.splits["train"], data.splits["test"], data.labels, task)
        found.predictions[name] = [own]
    largest = chosen[max(chosen)]
    seeds = largest["seeds"]
    best = min(config.seeds, key=lambda seed: criterion(setup, seeds[str(seed)]["metrics"]))
    outcome = Outcome(
        run_dir=run_dir,
        task=task,
        data=data,
        rows=setup.feeds["test"].rows,
        metric=main_metric(config, setup),
        predictions=found.predictions,
        main=list(found.curve)[-1],
        curve=found.curve,
        seeds=config.seeds,
        best=best,
        draws=config.draws,
        whole_validation=config.validation == "full",
        operating=operating(config, setup, largest),
        write_text=config.write_text,
        about=describe_labelled(config.init_from, setup.backbone, data.splits, run_dir)
        | {"inference": inference(setup, found.responses)},
    )
    print(write_results(outcome))
    export(config, setup, largest, best)


def inference(setup: Setup, responses: list[tuple[float, Any]]) -> dict[str, Any]:
    """What test cost: text, tokens, model FLOPs; seconds are those of the quickest seed.

    Args:
      responses: of each seed, seconds and what the model said.
    """
    from medjax.data.tokenize import load_tokenizer
    from medjax.tasks.examples import text_bytes

    rows, learner, test = setup.feeds["test"].rows, setup.learner, setup.data.splits["test"]
    seconds, outputs = min(responses, key=lambda own: own[0])
    written = [0] * len(rows.input_ids)
    if learner.use == "text":
        ids = load_tokenizer(setup.backbone.tokenizer)(list(outputs), add_special_tokens=False)
        written = [len(own) + 1 for own in ids["input_ids"]]  # and the end
    lengths = zip(rows.lengths, written, strict=True)
    flops = sum(learner.row_flops(int(n), t) for n, t in lengths)
    return {
        "examples": len(test),
        "bytes": text_bytes(test),
        "tokens_in": int(sum(rows.lengths)),
        "tokens_out": sum(written),
        "flops": flops,
        "seconds": round(seconds, 4),
    }


def operating(
    config: FinetuneConfig, setup: Setup, own: dict[str, Any]
) -> tuple[int, list[float]] | None:
    """The operating point's class, and the threshold of each seed."""
    point = config.operating_point
    if point is None:
        return None
    selections = [own["seeds"][str(seed)]["selections"] for seed in config.seeds]
    thresholds = [next(iter(of_seed.values()))["operating"] for of_seed in selections]
    return setup.data.labels.index(point.label), thresholds


def export(config: FinetuneConfig, setup: Setup, own: dict[str, Any], seed: int) -> None:
    """Writes the best seed on validation as a Hugging Face folder."""
    import jax

    from medjax.hub.folder import save_pretrained
    from medjax.hub.heads import RULES, save_finetuned
    from medjax.hub.peft import save_adapter
    from medjax.scoring.lineage import write_lineage
    from medjax.tasks.card import task_card
    from medjax.training.lineage import earlier_stages, finetuning_stage
    from medjax.training.sweep import Job, parameters, write_json

    task, learner, backbone = config.task, setup.learner, setup.backbone
    run_dir, labels = Path(config.run_dir), setup.data.labels
    job = Job(max(config.label_fractions), own["learning_rate"], seed)
    trained = parameters(config, setup, job)
    params = learner.whole(trained)
    tried = len(setup.training.learning_rate)
    card = task_card(run_dir, task, setup.data, config.init_from, backbone.sources, seed, tried)
    rules = {"task": task.model_dump(mode="json"), "labels": list(labels), "head": config.head}
    selection = next(iter(own["seeds"][str(seed)]["selections"].values()))
    rules |= {"use": learner.use, "selection": selection}
    rules["operating_point"] = config.operating_point and config.operating_point.model_dump()
    rules["compute"] = config.compute.model_dump(mode="json")
    rules["answers"] = config.answers.model_dump(mode="json")
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
            learner.pad_id,
            multi_label=task.kind == "multilabel",
        )
    trainings = [
        run_dir / "trainings" / Job(job.fraction, job.learning_rate, own_seed).name
        for own_seed in config.seeds
    ]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    stages = earlier_stages(config.init_from)
    stages.append(finetuning_stage(run_dir, trainings, task.kind, count))
    for place in (run_dir, folder):
        write_lineage(place, stages)
    if setup.training.lora:
        lora = setup.training.lora
        save_adapter(run_dir / "adapter", backbone.model.config, trained, learner.use, lora)
    (run_dir / "README.md").write_text(card, encoding="utf-8")
    log.info("exported seed %d, the best on validation, to %s", seed, folder)


if __name__ == "__main__":
    main(FinetuneConfig, run, __doc__)
