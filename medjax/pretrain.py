"""Pretrain T5 or a BERT-style encoder on prepared notes, from scratch or from a checkpoint.

    python -m medjax.pretrain CONFIG.yaml [--dotted.field value ...]

The same command resumes the run directory that the configuration names. At the end it holds
`export/`, a Hugging Face folder with a model card, beside checkpoints, metrics and TensorBoard
events. Exit codes: 0 done, 2 something to put right, 3 the loss is not finite, 75 stopped by a
signal with a checkpoint saved, 76 another process of the run was lost (run the same command again).
On several hosts the same command runs on every one of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from medjax.config import Schema, UserError, main
from medjax.models.config import Compute, ModelConfig
from medjax.objectives.config import ObjectiveConfig
from medjax.training.config import (
    CheckpointConfig,
    EvaluationConfig,
    LoopConfig,
    MeshConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from medjax.training.run_dir import check_resumable, claimed

log = logging.getLogger(__name__)

# What a resumed run may change: where and how it computes, not what.
CHANGEABLE = (
    "staging",
    "stream",
    "mesh.",
    "compute.unroll",
    "compute.remat",
    "compute.attention",
    "checkpoint.",
)


class CorpusConfig(Schema):
    """One prepared folder and its share of every batch."""

    path: str
    """Folder written by `python -m medjax.prepare`; also the address of one (gs://...), of which
    `staging` then holds a copy."""
    weight: float = Field(1.0, gt=0)
    """Share of the blocks that come from it, relative to the other corpora."""
    domain: str = "clinical"
    """What its text is, for accounts of what a model has read: clinical, biomedical, general."""


class PretrainConfig(Schema):
    """One pretraining run."""

    run_dir: str
    """Folder of the run; resumed if it holds one."""
    data: list[CorpusConfig] = Field(min_length=1)
    """Prepared corpora, all made with the same tokenizer."""
    staging: str | None = None
    """Folder on each host's own disk into which the corpora are copied once, checked; needed for
    addresses, quicker than a network drive."""
    stream: bool = False
    """With staging: train tokens are not copied, but read where they are in byte ranges, unchecked
    and far more slowly; for a disk that is too small."""
    init_from: str | None = None
    """Hugging Face folder or run directory to begin from; from scratch if left out."""
    model: ModelConfig | None = None
    """The model, when it is made from scratch; otherwise init_from says it."""
    compute: Compute = Compute()
    """Precision, rematerialisation, attention."""
    objective: ObjectiveConfig
    """Span corruption, masked or causal language modelling."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning rate over the run."""
    loop: LoopConfig
    """Steps, batch, logging."""
    mesh: MeshConfig = MeshConfig()
    """How devices are used."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When state is saved."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Validation at intervals."""

    @model_validator(mode="after")
    def _one_beginning(self) -> PretrainConfig:
        if (self.model is None) == (self.init_from is None):
            raise ValueError("set exactly one of model (from scratch) and init_from (continue)")
        places = [*(corpus.path for corpus in self.data), self.evaluation.data or ""]
        if self.staging is None and any("://" in place for place in places):
            raise ValueError("data: an address needs staging, a folder on the host's own disk")
        if self.stream and self.staging is None:
            raise ValueError("stream needs staging, a folder for what is copied all the same")
        return self


class Setup(NamedTuple):
    """What a run is made of, before its first step."""

    model: Any
    params: Any
    """Parameters of init_from, else None."""
    objective: Any
    optimizer: Any
    mesh: Any
    specs: Any
    """Spec tree of the training state."""
    batches: Callable[[int], Iterator[Any]]
    evaluate: Callable[[Any], dict[str, Any]]
    work: Any
    about: dict
    """What its checkpoints and its card say of the run: see training/lineage.py."""


def run(config: PretrainConfig) -> int:
    """Trains to the end or to a signal; returns the exit code."""
    run_dir = Path(config.run_dir)
    check_resumable(run_dir, config, CHANGEABLE)
    if config.loop.deterministic:  # read when JAX starts
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true"

    import jax

    from medjax.training.hosts import join, watched

    join()
    from medjax.objectives.objective import loss_of_blocks
    from medjax.training.checkpoint import Checkpoints
    from medjax.training.goodput import Goodput
    from medjax.training.loop import Loop, train
    from medjax.training.step import compile_train_step
    from medjax.training.tracker import Tracker

    goodput = Goodput()
    given, config = config, staged_corpora(config)
    setup = build(config)
    first = jax.process_index() == 0
    with (
        claimed(run_dir, given, active=first),
        watched(run_dir) as watch,
        jax.set_mesh(setup.mesh),
    ):
        watch.say("compile")
        if not jax.config.jax_compilation_cache_dir:  # a resumed run compiles nothing anew
            jax.config.update("jax_compilation_cache_dir", str(run_dir.resolve() / "compiled"))
        checkpoints = Checkpoints(checkpoint_folder(config), config.checkpoint)
        state, notes = begin(config, setup, checkpoints.directory, goodput)
        tracker = Tracker(run_dir, int(state.step), active=first)
        with goodput.phase("compilation"):
            step = compile_train_step(
                loss_of_blocks(setup.objective),
                setup.objective.block_length,
                setup.optimizer,
                config.loop,
                setup.mesh,
                setup.specs,
            )
        loop = Loop(
            train_step=step,
            batches=setup.batches,
            evaluate=setup.evaluate,
            checkpoints=checkpoints,
            tracker=tracker,
            config=config.loop,
            checkpoint=config.checkpoint,
            evaluation=config.evaluation,
            work=setup.work,
            criterion=lambda figures: figures["validation/loss"],
            about=setup.about,
            run_dir=run_dir,
            say=watch.say,
            goodput=goodput,
        )
        with contextlib.closing(tracker):
            state, code = train(loop, state, notes)
        if code == 0:
            watch.say("export", config.loop.steps)
            export(config, setup, state)
    return code


def begin(config: PretrainConfig, setup: Setup, directory: Any, goodput: Any) -> tuple[Any, dict]:
    """The state of the last checkpoint and what was noted beside it, or a new state and nothing.

    Raises:
      UserError: the notes are no longer those that the run began with.
    """
    from medjax.training.checkpoint import restore_latest, saved_at
    from medjax.training.lineage import check_same_notes
    from medjax.training.state import abstract_state, create_state

    restored = restore_latest(directory, abstract_state(setup.specs, setup.mesh))
    if restored is None:
        seed, specs, params = config.loop.seed, setup.specs, setup.params
        return create_state(specs, setup.model, setup.optimizer, setup.mesh, seed, params), {}
    notes = restored.notes
    check_same_notes(Path(config.run_dir), notes, setup.about)
    log.info("resumed from the checkpoint of step %d", restored.step)
    ended = restored.step == notes["steps"]
    saved = None if ended else saved_at(directory, restored.step)
    goodput.resume(notes.get("goodput", {}), saved)
    return restored.state, notes


def build(config: PretrainConfig, devices: list | None = None) -> Setup:
    """Everything that can go wrong before the first step; on all devices, if none are given."""
    import jax

    from medjax.data.batches import Validation
    from medjax.data.shards import open_split
    from medjax.data.tokenize import load_vocabulary
    from medjax.models.model import model_specs
    from medjax.models.spec import count_params
    from medjax.objectives.objective import build_objective
    from medjax.training.evaluate import build_evaluate
    from medjax.training.initial import check_tokenizer, initial_config, load_initial
    from medjax.training.lineage import describe
    from medjax.training.mesh import check_batch, make_mesh, replicated_by_size
    from medjax.training.optimizer import build_optimizer
    from medjax.training.plateau import unigram_plateau
    from medjax.training.schedule import build_schedule
    from medjax.training.state import state_specs

    manifests = read_corpora(config)
    check_tokenizer(config.init_from, config.data[0].path, manifests[0])
    vocabulary = load_vocabulary(Path(config.data[0].path) / "tokenizer")
    model_config = initial_config(config.model, config.init_from, vocabulary.size)
    num_params = count_params(model_specs(model_config))
    mesh = make_mesh(config.mesh, num_params, devices)
    check_batch(config.loop.batch_size, config.loop.accumulation, mesh)
    model, params = load_initial(
        model_config, config.init_from, config.compute, mesh, config.loop.seed
    )
    objective = build_objective(config.objective, model, vocabulary)
    schedule = build_schedule(config.schedule, config.loop.steps)
    optimizer = build_optimizer(config.optimizer, schedule, model.specs)
    work = measure_work(config, model, objective)
    log.info(
        "%s, %s parameters, compute in %s | mesh %s | %s tokens a step, %s in all",
        model.config.model_type,
        f"{num_params:,}",
        config.compute.dtype,
        dict(mesh.shape),
        f"{work.tokens(1):,}",
        f"{work.tokens(config.loop.steps):,}",
    )
    for line in replicated_by_size(model.specs, mesh):
        log.info("kept whole on every device: %s", line)
    split = open_split(config.evaluation.data or config.data[0].path, "validation")
    validation = Validation(
        split,
        objective.block_length,
        config.loop.batch_size,
        jax.process_index(),
        jax.process_count(),
    )
    return Setup(
        model=model,
        params=params,
        objective=objective,
        optimizer=optimizer,
        mesh=mesh,
        specs=state_specs(model.specs, optimizer.state_specs),
        batches=build_batches(config, objective.block_length, mesh),
        evaluate=build_evaluate(
            objective,
            validation,
            config.evaluation.batches,
            mesh,
            split.info.bytes / split.info.tokens,
            unigram_plateau(split, config.objective),
        ),
        work=work,
        about=describe(config, model, manifests, split.info, work),
    )


def staged_corpora(config: PretrainConfig) -> PretrainConfig:
    """The configuration with the local copies of its corpora."""
    if config.staging is None:
        return config
    from medjax.data.staging import staged

    data = [
        corpus.model_copy(
            update={"path": str(staged(corpus.path, config.staging, stream=config.stream))}
        )
        for corpus in config.data
    ]
    update: dict[str, Any] = {"data": data}
    if config.evaluation.data:
        own = {"data": str(staged(config.evaluation.data, config.staging))}
        update["evaluation"] = config.evaluation.model_copy(update=own)
    return config.model_copy(update=update)


def read_corpora(config: PretrainConfig) -> list[Any]:
    """The manifests; the notes of validation, too, must have been made with their tokenizer."""
    from medjax.data.manifest import read_manifest

    places = [corpus.path for corpus in config.data]
    read = places + ([config.evaluation.data] if config.evaluation.data else [])
    manifests = [read_manifest(place) for place in read]
    for place, manifest in zip(read, manifests, strict=True):
        if manifest.tokenizer.sha256 != manifests[0].tokenizer.sha256:
            raise UserError(
                f"{place}: prepared with another tokenizer than {places[0]}; prepare both with the "
                "same one"
            )
    return manifests[: len(places)]


def build_batches(config: PretrainConfig, block_length: int, mesh: Any) -> Callable:
    """From a step on, the batches on the devices, read ahead by a thread."""
    import grain
    import jax

    from medjax.data.batches import Batches
    from medjax.training.mesh import place_batch

    batches = Batches(
        [split for corpus in config.data for split in weighted_splits(corpus)],
        block_length,
        config.loop.batch_size,
        config.loop.seed,
        jax.process_index(),
        jax.process_count(),
    )
    read_ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)

    def iterate(step: int) -> Iterator[Any]:
        steps = grain.MapDataset.range(step, config.loop.steps)
        for batch in steps.map(batches.__getitem__).to_iter_dataset(read_ahead):
            yield place_batch(batch, mesh)["blocks"]

    return iterate


def weighted_splits(corpus: CorpusConfig) -> list[tuple[Any, float]]:
    """The training split of a prepared folder; one for each source where those have weights."""
    from medjax.data.manifest import read_manifest
    from medjax.data.shards import open_split

    weights = [source.weight for source in read_manifest(corpus.path).sources]
    if not any(weights):
        return [(open_split(corpus.path, "train"), corpus.weight)]
    total = sum(weight or 1.0 for weight in weights)
    splits = [open_split(corpus.path, "train", source) for source in range(len(weights))]
    return [
        (split, corpus.weight * (weight or 1.0) / total)
        for split, weight in zip(splits, weights, strict=True)
        if split.info.tokens
    ]


def measure_work(config: PretrainConfig, model: Any, objective: Any) -> Any:
    """Tokens and FLOPs of a step, and what the devices could do."""
    import jax

    from medjax.training.flops import peak_flops, train_flops
    from medjax.training.loop import Work

    peak = peak_flops(jax.devices()[0], config.compute.dtype) * jax.device_count()
    tokens = config.loop.batch_size * objective.block_length
    flops = config.loop.batch_size * train_flops(model.config, config.objective)
    return Work(lambda steps: steps * tokens, lambda steps: steps * flops, peak)


def checkpoint_folder(config: PretrainConfig) -> str:
    """In the run directory, if the configuration names no other."""
    return config.checkpoint.folder or str(Path(config.run_dir) / "checkpoints")


def export(config: PretrainConfig, setup: Setup, state: Any) -> None:
    """Writes `export/`: the model, its tokenizer and its card."""
    from medjax.hub.card import model_card
    from medjax.hub.folder import save_pretrained
    from medjax.scoring.lineage import write_lineage
    from medjax.training.checkpoint import read_notes
    from medjax.training.lineage import card_facts, stages_of

    run_dir = Path(config.run_dir)
    recipe = {
        "steps": config.loop.steps,
        "batch size": config.loop.batch_size,
        "optimizer": config.optimizer.name,
        "learning rate": config.schedule.learning_rate,
        "schedule": config.schedule.kind,
        "seed": config.loop.seed,
    }
    command = "python -m medjax.pretrain config.yaml"
    card = model_card(card_facts(run_dir, setup.model, setup.about, recipe, command))
    tokenizer = Path(config.data[0].path) / "tokenizer"
    save_pretrained(run_dir / "export", setup.model, state.params, tokenizer=tokenizer, card=card)
    (run_dir / "README.md").write_text(card, encoding="utf-8")
    step = int(state.step)
    stages = stages_of(read_notes(checkpoint_folder(config), step), step)
    for folder in (run_dir, run_dir / "export"):
        write_lineage(folder, stages)
    log.info("exported to %s; transformers loads it", run_dir / "export")


if __name__ == "__main__":
    main(PretrainConfig, run, __doc__)
