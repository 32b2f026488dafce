"""What a run says of itself: which model it is, where it began, which notes it has seen.

Every checkpoint carries this, and so does the card of the exported model: a model that began from
credentialed notes stays under their terms, whatever it reads afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from medjax.config import UserError
from medjax.data.manifest import Manifest, SplitInfo
from medjax.models.model import Model, model_specs
from medjax.models.spec import count_params
from medjax.scoring.lineage import Seen, Stage, read_lineage
from medjax.training.checkpoint import read_notes
from medjax.training.initial import Backbone, find_checkpoint, initial_sources
from medjax.training.tracker import read_metrics

if TYPE_CHECKING:
    from medjax.pretrain import PretrainConfig
    from medjax.training.loop import Work

BATCHES = "validation/batches"  # for comparisons, not for readers
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "vocab.txt", "vocab.json", "merges.txt")


def describe(
    config: PretrainConfig,
    model: Model,
    manifests: Sequence[Manifest],
    held_out: SplitInfo,
    work: Work,
) -> dict[str, Any]:
    """The description, as JSON; `notes` tells one preparation of the same notes from another."""
    init_from, objective = config.init_from, config.objective
    sources = initial_sources(init_from)
    own = pretraining_stage(config, model, manifests, held_out, work)
    stages = [*earlier_stages(init_from), own]
    for manifest in manifests:
        for source in manifest.sources:
            fields = {"name", "licence", "access", "documents"}
            sources.append(source.model_dump(mode="json", include=fields))
    return {
        "model": model.config.model_dump(mode="json"),
        "objective": objective.model_dump(mode="json"),
        "init_from": init_from,
        "tokenizer": manifests[0].tokenizer.sha256,
        "notes": [_digest(manifest) for manifest in manifests],
        "held_out": _digest_of_shards({"validation": held_out}),
        "sources": sources,
        "lineage": [stage.model_dump(mode="json") for stage in stages],
        "steps": config.loop.steps,
        "devices": jax.device_count(),
    }


def pretraining_stage(
    config: PretrainConfig,
    model: Model,
    manifests: Sequence[Manifest],
    held_out: SplitInfo,
    work: Work,
) -> Stage:
    """What the whole run amounts to."""
    steps, weights = config.loop.steps, sum(corpus.weight for corpus in config.data)
    tokens, unique, size = Counter(), Counter(), Counter()
    for corpus, manifest in zip(config.data, manifests, strict=True):
        own, train = work.tokens(steps) * corpus.weight / weights, manifest.splits["train"]
        tokens[corpus.domain] += own
        unique[corpus.domain] += min(own, train.tokens)
        size[corpus.domain] += own * train.bytes / train.tokens
    seen = {}
    for evaluation in (own for manifest in manifests for own in manifest.evaluations):
        found = max((own.contaminated for own in evaluation.fields.values()), default=0)
        found = 0 if "text" in evaluation.removed else found
        before = seen.get(evaluation.name)
        examples = found + (before.examples if before else 0)
        seen[evaluation.name] = Seen(name=evaluation.name, path=evaluation.path, examples=examples)
    return Stage(
        kind="pretraining",
        name=Path(config.run_dir).resolve().name,
        parameters=count_params(model.specs),
        objective=config.objective.kind,
        tokens=tokens,
        unique_tokens=unique,
        bytes=size,
        flops=work.flops(steps),
        device=jax.devices()[0].device_kind,
        evaluations=list(seen.values()),
        validated_on=f"{held_out.documents:,} notes of {held_out.bytes:,} bytes",
    )


def earlier_stages(init_from: str | None) -> list[Stage]:
    """How the model that a run begins from came about."""
    if init_from is None:
        return []
    checkpoint = find_checkpoint(init_from)
    if checkpoint:
        return stages_of(read_notes(*checkpoint), checkpoint[1])
    found = read_lineage(init_from)
    if found is not None:
        return found
    from medjax.hub.folder import read_config

    parameters = count_params(model_specs(read_config(init_from)))
    return [Stage(kind="published", name=Path(init_from).name, parameters=parameters)]


def stages_of(notes: dict[str, Any], step: int) -> list[Stage]:
    """The stages of a model at a checkpoint of pretraining, by what was saved beside it."""
    *before, own = (Stage.model_validate(stage) for stage in notes["lineage"])
    hours = notes["seconds"] / 3600 * notes["devices"]
    return [*before, own.part(step / notes["steps"]).model_copy(update={"device_hours": hours})]


def check_same_notes(run_dir: Path, saved: dict, now: dict) -> None:
    """A run goes on with the shards that it began with, or its data order would be another one, and
    its validation losses of other notes.

    Raises:
      UserError: a corpus has been prepared again since.
    """
    places = [f"data[{place}]" for place, _ in enumerate(saved["notes"])] + ["evaluation.data"]
    shards = [[*about["notes"], about["held_out"]] for about in (saved, now)]
    for place, before, after in zip(places, *shards, strict=True):
        if before != after:
            raise UserError(
                f"{place}: its shards are not those that {run_dir} began with (prepared again?); "
                "put them back, or begin a new run_dir with init_from"
            )


def describe_labelled(
    init_from: str, backbone: Backbone, splits: Mapping[str, Sequence[Any]], run_dir: Path
) -> dict[str, Any]:
    """What a fine-tuning run began from, on which data and devices, and how long it trained."""
    checkpoint = find_checkpoint(init_from)
    about: dict[str, Any] = {"init_from": init_from, "sources": backbone.sources}
    if checkpoint:
        notes = read_notes(*checkpoint)
        kept = ("init_from", "tokenizer", "notes")
        about["checkpoint"] = {"step": checkpoint[1]} | {n: notes.get(n) for n in kept}
    else:
        weights = sorted(Path(init_from).glob("*.safetensors"))
        about["weights_sha256"] = {path.name: _sha256(path) for path in weights}
    tokenizers = [path for n in TOKENIZER_FILES if (path := backbone.tokenizer / n).is_file()]
    about["tokenizer_sha256"] = {path.name: _sha256(path) for path in tokenizers}
    about["data"] = {
        name: {"examples": len(examples), "sha256": _digest_of(examples)}
        for name, examples in splits.items()
    }
    logs = run_dir.glob("trainings/*/metrics.jsonl")
    seconds = [
        max((m.get("seconds", 0.0) for m in read_metrics(p.parent)), default=0.0) for p in logs
    ]
    about["training_hours"] = round(sum(seconds) / 3600, 5)
    about["hardware"] = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return about


def finetuning_stage(run_dir: Path, trainings: Sequence[Path], kind: str, parameters: int) -> Stage:
    """A fine-tuning as it is on average over its seeds' trainings, all epochs included.

    Args:
      trainings: the folders of the seeds with the chosen learning rate.
      parameters: of the model and its head.
    """
    logs = [read_metrics(folder) for folder in trainings if (folder / "metrics.jsonl").exists()]
    last = [next((m for m in reversed(log) if "loss" in m), {}) for log in logs]

    def mean(name: str) -> float:
        return sum(own.get(name, 0.0) for own in last) / max(len(last), 1)

    return Stage(
        kind="finetuning",
        name=run_dir.resolve().name,
        parameters=parameters,
        objective=kind,
        tokens={"labelled": mean("tokens")},
        flops=mean("flops"),
        device_hours=mean("seconds") / 3600 * jax.device_count(),
        device=jax.devices()[0].device_kind,
    )


def _digest_of(examples: Sequence[Any]) -> str:
    """SHA-256 of a split's examples, without the documents that sentences stand in."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example._replace(document=())).encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(manifest: Manifest) -> str:
    """SHA-256 over the checksums of all shards of a prepared folder."""
    return _digest_of_shards(manifest.splits)


def _digest_of_shards(splits: Mapping[str, SplitInfo]) -> str:
    shards = {name: [s.sha256 for s in split.shards] for name, split in sorted(splits.items())}
    return hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()


def card_facts(run_dir: Path, model: Model, about: dict, recipe: dict, command: str) -> dict:
    """Facts of a finished run for `hub/card.py`, read off its metrics."""
    metrics = read_metrics(run_dir)
    last = next(m for m in reversed(metrics) if "loss" in m)
    validation = next((m for m in reversed(metrics) if "validation/loss" in m), {})
    return {
        "name": run_dir.resolve().name,
        "model": f"{model.config.model_type}, {count_params(model.specs):,} parameters",
        "objective": about["objective"]["kind"],
        "init_from": about["init_from"] or "",
        "sources": about["sources"],
        "training": recipe,
        "tokens_seen": last["tokens"],
        "flops": last["flops"],
        "hours": last["seconds"] / 3600,
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "validation": {n: v for n, v in validation.items() if n not in ("step", BATCHES)},
        "versions": {name: version(name) for name in ("medjax", "jax")},
        "command": command,
    }
