"""The study of `scripts/study.sh`: which runs it is made of, in which order, and their comparison.

Every job is a medjax command; the jobs go on where they were stopped, and so does the study.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from study_claims import comparison
from study_config import CORPORA, ROOT, Family, Model, Places, StudyConfig, models
from study_inputs import finetuning_tokens, sources_of, write_tasks
from study_jobs import Job, run_jobs

from medjax.config import UserError, load

DECAY = 6  # a budget's last sixth lowers the learning rate
OVERHEAD = 30.0  # seconds of starting, compiling and scoring a job
MFU = 0.33  # of small models
ANSWER = 24  # tokens


def main() -> int:
    """Parses the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="bash scripts/study.sh", description=__doc__)
    parser.add_argument("config", nargs="?", default=str(ROOT / "configs/study/small.yaml"))
    parser.add_argument("--clinical", help="notes: a folder, or a YAML file of sources")
    parser.add_argument("--general", help="general text: a folder, or a YAML file of sources")
    parser.add_argument("--tasks", help="folder in which `open/` of the task configurations is")
    parser.add_argument("--run_dir", help="in the place of the configuration's")
    parser.add_argument("--dry-run", action="store_true", help="prints jobs and predicted time")
    given = parser.parse_args()
    try:
        overrides = [f"run_dir={given.run_dir}"] if given.run_dir else []
        config = load(StudyConfig, [given.config], overrides)
        return study(config, Places(given.clinical, given.general, given.tasks), given.dry_run)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def study(config: StudyConfig, places: Places, dry_run: bool) -> int:
    """Runs every job that is not done, and the comparison."""
    run_dir = Path(config.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if any(steps % DECAY for steps in config.steps):
        raise UserError(f"steps: {config.steps} are not all multiples of {DECAY}")
    tasks = write_tasks(config, places, run_dir)
    if config.curve_task not in tasks:
        raise UserError(f"curve_task {config.curve_task!r} is none of {', '.join(tasks)}")
    jobs = list(all_jobs(config, places, tasks, run_dir))
    left = [job for job in jobs if not job.done.exists()]
    announce(jobs, left, config.side_by_side)
    if dry_run:
        return 0
    if failed := run_jobs(left, config.side_by_side, run_dir):
        return failed
    report = run_dir / "compare.yaml"
    report.write_text(yaml.safe_dump(comparison(config, tasks, run_dir), sort_keys=False))
    return subprocess.run(medjax("compare", report), check=False).returncode


def announce(jobs: list[Job], left: list[Job], side_by_side: int) -> None:
    """Prints what is to be done and how long it may take."""
    import jax

    from medjax.training.flops import peak_flops

    device = jax.devices()[0]
    rate = peak_flops(device) * jax.device_count() * MFU
    predicted = {job.name: OVERHEAD + job.flops / rate * side_by_side for job in left}
    for name, seconds in predicted.items():
        print(f"{seconds:6.0f} s  {name}")
    print(
        f"{len(left)} of {len(jobs)} jobs left, {side_by_side} side by side, about "
        f"{sum(predicted.values()) / side_by_side / 3600:.1f} hours at {MFU:.0%} of "
        f"{rate / MFU / 1e9:,.0f} GFLOP/s",
        flush=True,
    )


def medjax(verb: str, *arguments: Any, **options: Any) -> list[str]:
    """A command line."""
    command = [sys.executable, "-m", f"medjax.{verb}", *map(str, arguments)]
    for name, value in options.items():
        text = value if isinstance(value, str) else json.dumps(value)
        command += [f"--{name}", text]
    return command


def all_jobs(
    config: StudyConfig, places: Places, tasks: dict[str, Path], run_dir: Path
) -> Iterator[Job]:
    """From corpora to fine-tuned and prompted models."""
    sources = {"clinical": sources_of(places.clinical, run_dir, "clinical")}
    sources["general"] = sources_of(places.general, run_dir, "general")
    looked_for = tasks if places.tasks else {}  # a synthetic task is of the notes' own making
    for family, own in config.families.items():
        yield from corpora_jobs(config, family, own, sources, looked_for, run_dir)
        for size in own.sizes:
            yield from pretraining_jobs(config, family, size, run_dir)
    for model in models(config, run_dir):
        yield from finetuning_jobs(config, model, tasks, run_dir)
    largest = ("t5", list(config.families["t5"].sizes)[-1], "general", config.steps[-1])
    for model in models(config, run_dir):
        if (model.family, model.size, model.corpus, model.steps) == largest:
            yield from prompting_jobs(config, model, tasks, run_dir)
    for name, folder in config.llms.items():
        llm = Model(name, "llm", "", "", 0, Path(folder))
        yield from prompting_jobs(config, llm, tasks, run_dir)


def corpora_jobs(
    config: StudyConfig,
    family: str,
    own: Family,
    sources: dict[str, list[dict]],
    tasks: dict[str, Path],
    run_dir: Path,
) -> Iterator[Job]:
    """A tokenizer of both corpora, and the shards of each without what stands in the test sets."""
    tokenizer = run_dir / "corpora" / f"{family}_tokenizer"
    both = [*sources["clinical"], *sources["general"]]
    more = {"lowercase": True} if own.tokenizer == "wordpiece" else {}
    options = {"sources": both, "kind": own.tokenizer, "vocab_size": config.vocab_size}
    command = medjax("train_tokenizer", **options, output=str(tokenizer), **more)
    trained = tokenizer / "training.json"
    yield Job(f"tokenizer/{family}", trained, [], command)
    evaluation = [
        {"name": name, "path": str(path.parent / "test.jsonl"), "fields": ["text"], "remove": True}
        for name, path in tasks.items()
    ]
    for corpus in CORPORA:
        output = run_dir / "corpora" / f"{family}_{corpus}"
        command = medjax(
            "prepare",
            sources=sources[corpus],
            tokenizer=str(tokenizer),
            evaluation=evaluation,
            validation_fraction=0.02,
            output=str(output),
        )
        yield Job(f"shards/{family}-{corpus}", output / "manifest.json", [trained], command)


def pretraining_jobs(config: StudyConfig, family: str, size: str, run_dir: Path) -> Iterator[Job]:
    """A run at a constant rate for each corpus, and of its checkpoints a branch for each budget."""
    last = config.steps[-1]
    stems = {
        corpus: run_dir / "pretraining" / f"{family}-{size}-{corpus}-stem" for corpus in CORPORA
    }
    for corpus, stem in stems.items():
        steps = last - last // DECAY
        schedule = {"kind": "constant", "warmup_steps": max(last // 20, 1)}
        yield pretraining_job(config, family, size, corpus, stem, steps, schedule)
    for model in models(config, run_dir):
        if (model.family, model.size) != (family, size):
            continue
        budget, decay = model.steps, model.steps // DECAY
        if model.corpus == "untrained":
            continue
        if model.corpus == "general-clinical":
            begin, corpus, steps = budget // 2, "clinical", budget - budget // 2
            start = stems["general"] / "checkpoints" / f"{begin:08d}"
        else:
            begin, corpus, steps = budget - decay, model.corpus, decay
            start = stems[corpus] / "checkpoints" / f"{begin:08d}"
        warmup = steps // 10
        schedule = {"kind": "linear", "warmup_steps": warmup}
        schedule["decay_steps"] = min(decay, steps - warmup)
        folder = model.export.parent
        yield pretraining_job(config, family, size, corpus, folder, steps, schedule, start)


def pretraining_job(
    config: StudyConfig,
    family: str,
    size: str,
    corpus: str,
    folder: Path,
    steps: int,
    schedule: dict[str, Any],
    start: Path | None = None,
) -> Job:
    """One run of medjax.pretrain."""
    own = config.families[family]
    every = config.steps[0] // DECAY
    data = [{"path": f"{config.run_dir}/corpora/{family}_{corpus}", "domain": corpus}]
    options: dict[str, Any] = {"run_dir": str(folder), "data": data}
    options["schedule"] = own.schedule | schedule
    options["loop"] = own.loop | {"steps": steps, "log_every": 20}
    notes = f"{config.run_dir}/corpora/{family}_clinical"  # whatever is read, losses compare
    needs = [Path(place) / "manifest.json" for place in (data[0]["path"], notes)]
    validated = steps if start else max(steps // 4, 1)
    options["evaluation"] = {"every": validated, "batches": 16, "data": notes}
    options["checkpoint"] = {"every": every, "keep_every": every} if start is None else {}
    if start:
        options["loop"]["seed"] = 1  # other blocks than the stem began with
        options |= {"init_from": str(start), "model": None}
        needs.append(start.parent.parent / "lineage.json")  # the stem is at its end
    else:
        options["model"] = own.sizes[size] | {"vocab_size": config.vocab_size}
    command = medjax("pretrain", ROOT / own.config, **options)
    flops = steps * step_flops(config, family, size)
    return Job(f"pretrain/{folder.name}", folder / "lineage.json", needs, command, flops)


def step_flops(config: StudyConfig, family: str, size: str) -> float:
    """Of a step of pretraining."""
    found = pretrain_config(config, family, size)
    from medjax.training.flops import train_flops

    return found.loop.batch_size * train_flops(found.model, found.objective)


def token_flops(config: StudyConfig, family: str, size: str) -> float:
    """Of training on a token of text, about."""
    found = pretrain_config(config, family, size)
    length = getattr(found.objective, "sequence_length", None) or found.objective.inputs_length
    return step_flops(config, family, size) / found.loop.batch_size / length


def pretrain_config(config: StudyConfig, family: str, size: str) -> Any:
    """The family's configuration with the model of a size."""
    from medjax.pretrain import PretrainConfig

    own = config.families[family]
    model = own.sizes[size] | {"vocab_size": config.vocab_size}
    overrides = [f"model={json.dumps(model)}", f"loop={json.dumps(own.loop)}"]
    return load(PretrainConfig, [ROOT / own.config], overrides)


def finetuning_jobs(
    config: StudyConfig, model: Model, tasks: dict[str, Path], run_dir: Path
) -> Iterator[Job]:
    """At the largest budget every task, the curve's with fewer labels too; else the curve's."""
    if model.corpus == "untrained":
        shape = (model.family, model.size)
        like = next(own for own in models(config, run_dir) if (own.family, own.size) == shape)
        script = [sys.executable, str(ROOT / "scripts/untrained.py")]
        command = [*script, str(like.export), str(model.export)]
        yield Job(f"untrained/{model.name}", model.done, [like.done], command)
    for task, path in tasks.items():
        of = config.tasks.get(task)
        if of and of.families is not None and model.family not in of.families:
            continue
        is_curve, is_largest = task == config.curve_task, model.steps == config.steps[-1]
        if not (is_curve or is_largest):
            continue
        fractions = [1.0]
        if is_curve:
            fractions = config.label_fractions if is_largest else config.label_fractions[-1:]
        folder = run_dir / "finetuning" / f"{task}-{model.name}"
        options = {"init_from": str(model.export), "run_dir": str(folder)}
        seeds = config.seeds if is_largest else config.seeds[:1]
        options |= {"seeds": seeds, "label_fractions": fractions}
        command = medjax("finetune", path, **options)
        for name, value in config.families[model.family].finetuning.items():
            command += [f"--{name}", value]
        about = json.loads((path.parent / "about.json").read_text())
        tokens = sum(finetuning_tokens(about, fraction) for fraction in fractions) * len(seeds)
        flops = tokens * token_flops(config, model.family, model.size)
        yield Job(f"finetune/{folder.name}", folder / "lineage.json", [model.done], command, flops)


def prompting_jobs(
    config: StudyConfig, model: Model, tasks: dict[str, Path], run_dir: Path
) -> Iterator[Job]:
    """Zero and four shots, free and constrained, and the likeliest answer."""
    path, is_ours = tasks[config.curve_task], model.family in config.families
    task = yaml.safe_load(path.read_text())["task"]
    about = json.loads((path.parent / "about.json").read_text())
    per_token = token_flops(config, model.family, model.size) / 3 if is_ours else 0.0
    needs = [model.done] if is_ours else []
    for mode in ("free", "constrained", "likelihood"):
        for shots in (0, 4) if mode != "likelihood" else (0,):
            out = run_dir / "prompting" / f"{config.curve_task}-{model.name}-{shots}-{mode}"
            options = {"run_dir": str(out), "model": str(model.export), "task": task, "mode": mode}
            options |= {"shots": {"count": shots}, "decoding": {"max_new_tokens": ANSWER}}
            command = medjax("prompt", **options)
            read = about["tokens_per_example"] * (1 + shots) + ANSWER
            flops = about["test"] * read * per_token
            yield Job(f"prompt/{out.name}", out / "results.json", needs, command, flops)


if __name__ == "__main__":
    sys.exit(main())
