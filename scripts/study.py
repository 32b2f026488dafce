"""The study of `scripts/study.sh`: which runs it is made of, in which order, and their comparison.

Every job is a medjax command with a file that is there once it is done; the jobs themselves go on
where they were stopped, and so does the study.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field

from medjax.config import Schema, UserError, load

ROOT = Path(__file__).resolve().parent.parent
DECAY = 6  # a budget's last sixth lowers the learning rate
BYTES = 4  # of a token, about
CORPORA = ("clinical", "general")
OVERHEAD = 25.0  # seconds of starting, compiling and scoring a job
CPU_MFU, OTHER_MFU = 0.075, 0.3  # of small models


class Family(Schema):
    """How a family is pretrained."""

    config: str
    """A configuration of medjax.pretrain; its batch and objective are kept."""
    tokenizer: Literal["wordpiece", "unigram", "bpe"]
    """Trained on both corpora."""
    sizes: dict[str, dict[str, Any]]
    """Name -> fields of `model`, from the smallest on."""
    loop: dict[str, Any] = {}
    """Fields of `loop`."""
    schedule: dict[str, Any] = {}
    """Fields of `schedule`."""
    finetuning: dict[str, str] = {}
    """Options of medjax.finetune for this family."""


class StudyTask(Schema):
    """A task of the study."""

    config: str
    """A configuration of medjax.finetune."""
    overrides: dict[str, str] = {}
    """Options of it."""
    families: list[str] | None = None
    """Those that are fine-tuned on it; by default all."""


class StudyConfig(Schema):
    """A study."""

    run_dir: str
    """Folder of everything."""
    vocab_size: int
    """Of the tokenizers."""
    steps: list[int] = Field(min_length=1)
    """Budgets, from the smallest on; multiples of 6."""
    seeds: list[int]
    """Of fine-tuning."""
    label_fractions: list[float]
    """At the largest budget, on the curve's task."""
    curve_task: str
    """The task that every budget is fine-tuned on."""
    families: dict[str, Family]
    """T5 and BERT."""
    tasks: dict[str, StudyTask]
    """What is fine-tuned."""
    llms: dict[str, str] = {}
    """Name -> folder of a larger model that is prompted beside ours."""


class Places(NamedTuple):
    """What the user gave."""

    clinical: str | None
    general: str | None
    tasks: str | None


class Job(NamedTuple):
    """One command."""

    name: str
    done: Path
    command: list[str]
    flops: float = 0.0


class Model(NamedTuple):
    """A pretrained model of the study."""

    name: str
    family: str
    size: str
    corpus: str
    steps: int
    export: Path


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
    announce(jobs, left)
    if dry_run:
        return 0
    (run_dir / "logs").mkdir(exist_ok=True)
    for number, job in enumerate(left, len(jobs) - len(left) + 1):
        start = time.monotonic()
        print(f"[{number}/{len(jobs)}] {job.name}", end=" ", flush=True)
        with (run_dir / "logs" / f"{job.name.replace('/', '-')}.log").open("w") as log:
            code = subprocess.run(job.command, stdout=log, stderr=log, check=False).returncode
        print(f"{time.monotonic() - start:.0f} s", flush=True)
        if code:
            print(f"  ended with {code}: see {log.name}; the same command goes on from here")
            return code
    report = run_dir / "compare.yaml"
    report.write_text(yaml.safe_dump(comparison(config, tasks, run_dir), sort_keys=False))
    return subprocess.run(medjax("compare", report), check=False).returncode


def announce(jobs: list[Job], left: list[Job]) -> None:
    """Prints what is to be done and how long it may take."""
    import jax

    from medjax.training.flops import peak_flops

    device = jax.devices()[0]
    mfu = CPU_MFU if device.platform == "cpu" else OTHER_MFU
    rate = peak_flops(device) * jax.device_count() * mfu
    seconds = sum(OVERHEAD + job.flops / rate for job in left)
    for job in left:
        print(f"{OVERHEAD + job.flops / rate:6.0f} s  {job.name}")
    print(
        f"{len(left)} of {len(jobs)} jobs left, about {seconds / 3600:.1f} hours at {mfu:.0%} of "
        f"{rate / mfu / 1e9:,.0f} GFLOP/s",
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
    for model in models(config, run_dir):
        largest = list(config.families[model.family].sizes)[-1]
        if (model.steps, model.size) == (config.steps[-1], largest) and model.corpus in CORPORA:
            yield from prompting_jobs(config, model.name, model.export, tasks, run_dir)
    for name, folder in config.llms.items():
        yield from prompting_jobs(config, name, Path(folder), tasks, run_dir)


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
    yield Job(f"tokenizer/{family}", tokenizer / "training.json", command)
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
        yield Job(f"shards/{family}-{corpus}", output / "manifest.json", command)


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
    options["evaluation"] = {"every": max(steps // 4, 1), "batches": 16}
    options["checkpoint"] = {"every": every, "keep_every": every} if start is None else {}
    if start:
        options["loop"]["seed"] = 1  # other blocks than the stem began with
        options |= {"init_from": str(start), "model": None}
    else:
        options["model"] = own.sizes[size] | {"vocab_size": config.vocab_size}
    command = medjax("pretrain", ROOT / own.config, **options)
    flops = steps * step_flops(config, family, size)
    return Job(f"pretrain/{folder.name}", folder / "lineage.json", command, flops)


def step_flops(config: StudyConfig, family: str, size: str) -> float:
    """Of a step of pretraining."""
    found = pretrain_config(config, family, size)
    from medjax.training.flops import train_flops

    return found.loop.batch_size * train_flops(found.model, found.objective)


def pretrain_config(config: StudyConfig, family: str, size: str) -> Any:
    """The family's configuration with the model of a size."""
    from medjax.pretrain import PretrainConfig

    own = config.families[family]
    model = own.sizes[size] | {"vocab_size": config.vocab_size}
    overrides = [f"model={json.dumps(model)}", f"loop={json.dumps(own.loop)}"]
    return load(PretrainConfig, [ROOT / own.config], overrides)


def models(config: StudyConfig, run_dir: Path) -> list[Model]:
    """All pretrained models, and of each shape one with random weights."""
    found = []
    for family, own in config.families.items():
        for size in own.sizes:
            for corpus in (*CORPORA, "general-clinical"):
                for steps in config.steps:
                    name = f"{family}-{size}-{corpus}-{steps}"
                    export = run_dir / "pretraining" / name / "export"
                    found.append(Model(name, family, size, corpus, steps, export))
            name = f"{family}-{size}-untrained"
            export = run_dir / "pretraining" / name / "export"
            found.append(Model(name, family, size, "untrained", config.steps[-1], export))
    return found


def finetuning_jobs(
    config: StudyConfig, model: Model, tasks: dict[str, Path], run_dir: Path
) -> Iterator[Job]:
    """At the largest budget every task, the curve's with fewer labels too; else the curve's."""
    if model.corpus == "untrained":
        size = json.dumps(config.families[model.family].sizes[model.size])
        tokenizer = run_dir / "corpora" / f"{model.family}_tokenizer"
        arguments = [ROOT / config.families[model.family].config, size, tokenizer, model.export]
        command = [sys.executable, "-c", UNTRAINED, *map(str, arguments)]
        yield Job(f"untrained/{model.name}", model.export / "config.json", command)
    for task, path in tasks.items():
        of = config.tasks.get(task)
        if of and of.families is not None and model.family not in of.families:
            continue
        is_curve, is_largest = task == config.curve_task, model.steps == config.steps[-1]
        if not (is_curve or is_largest):
            continue
        fractions = config.label_fractions if is_curve and is_largest else [1.0]
        folder = run_dir / "finetuning" / f"{task}-{model.name}"
        options = {"init_from": str(model.export), "run_dir": str(folder)}
        seeds = config.seeds if is_largest else config.seeds[:1]
        options |= {"seeds": seeds, "label_fractions": fractions}
        command = medjax("finetune", path, **options)
        for name, value in config.families[model.family].finetuning.items():
            command += [f"--{name}", value]
        about = json.loads((path.parent / "about.json").read_text())
        tokens = about["train_tokens"] * about["epochs"] * sum(fractions) * len(seeds)
        found = pretrain_config(config, model.family, model.size)
        rate = step_flops(config, model.family, model.size) / found.loop.batch_size
        length = getattr(found.objective, "sequence_length", None) or found.objective.inputs_length
        flops = tokens * rate / length
        yield Job(f"finetune/{folder.name}", folder / "lineage.json", command, flops)


UNTRAINED = """
import json, sys
from pathlib import Path
import jax, medjax
from medjax.config import load
from medjax.pretrain import PretrainConfig
base, size, tokenizer, folder = sys.argv[1:]
vocabulary = len(json.loads((Path(tokenizer) / "tokenizer.json").read_text())["model"]["vocab"])
overrides = ["model=" + json.dumps(json.loads(size))]
config = load(PretrainConfig, [base], overrides).model
from medjax.data.tokenize import load_vocabulary
config = config.model_copy(update={"vocab_size": load_vocabulary(Path(tokenizer)).size})
model = medjax.build_model(config)
medjax.save_pretrained(folder, model, model.init(jax.random.key(0)), tokenizer=tokenizer)
"""


def prompting_jobs(
    config: StudyConfig, name: str, folder: Path, tasks: dict[str, Path], run_dir: Path
) -> Iterator[Job]:
    """Zero and four shots, free and constrained, of what writes; encoders fill their masks."""
    path = tasks[config.curve_task]
    is_encoder = name.startswith("bert")
    modes = ["likelihood"] if is_encoder else ["free", "constrained", "likelihood"]
    task = yaml.safe_load(path.read_text())["task"]
    for mode in modes:
        for shots in (0, 4) if not is_encoder and mode != "likelihood" else (0,):
            out = run_dir / "prompting" / f"{config.curve_task}-{name}-{shots}-{mode}"
            options = {"run_dir": str(out), "model": str(folder), "task": task, "mode": mode}
            options |= {"shots": {"count": shots}, "decoding": {"max_new_tokens": 24}}
            yield Job(f"prompt/{out.name}", out / "results.json", medjax("prompt", **options))


def sources_of(place: str | None, run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """Sources of a corpus: the user's, or a stand-in.

    Raises:
      UserError: there is nothing in the place.
    """
    if place is None:
        path = run_dir / "corpora" / f"{kind}.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            (synthetic_notes if kind == "clinical" else docstrings)(path)
        return [{"path": str(path), "id": "id", "licence": "synthetic", "access": "open"}]
    if Path(place).is_file():
        found = yaml.safe_load(Path(place).read_text(encoding="utf-8")).get("sources", [])
    else:
        endings = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
        files = [p for p in sorted(Path(place).glob("*")) if p.name.endswith(endings)]
        found = [{"path": str(path), "name": path.name} for path in files]
    if not found:
        raise UserError(f"--{kind} {place}: no sources and no files of notes there")
    return found


def synthetic_notes(path: Path) -> None:
    """Notes that medjax invents."""
    from medjax.data.synthetic import write_notes

    write_notes(path, 4000, 0)


def docstrings(path: Path) -> None:
    """A stand-in for general text: what the standard library says of itself."""
    with path.open("w", encoding="utf-8") as file:
        for place in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
            if {"site-packages", "test"} & set(place.parts):
                continue
            try:
                tree = ast.parse(place.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError, ValueError):
                continue
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
            text = "\n\n".join(filter(None, map(ast.get_docstring, nodes)))
            if text:
                file.write(json.dumps({"id": str(place), "text": text}) + "\n")


def write_tasks(config: StudyConfig, places: Places, run_dir: Path) -> dict[str, Path]:
    """Each task's configuration with whole paths, its test texts, and how large its train is."""
    from medjax.finetune import FinetuneConfig
    from medjax.tasks.examples import text_bytes
    from medjax.tasks.read import read_task

    if places.tasks is None:
        wanted = {config.curve_task: synthetic_task(run_dir)}
    else:
        wanted = {name: task_values(own, places.tasks) for name, own in config.tasks.items()}
    found = {}
    for name, values in wanted.items():
        folder = run_dir / "tasks" / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "task.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        found[name] = path
        if (folder / "about.json").exists():
            continue
        own = load(FinetuneConfig, [path])
        data = read_task(own.task)
        with (folder / "test.jsonl").open("w", encoding="utf-8") as file:
            for example in data.splits["test"]:
                file.write(json.dumps({"text": example.text}) + "\n")
        limit = BYTES * own.task.max_length
        read = sum(min(text_bytes([one]), limit) for one in data.splits["train"]) / BYTES
        about = {"train_tokens": read, "epochs": own.training.epochs}
        (folder / "about.json").write_text(json.dumps(about))
    return found


def task_values(own: StudyTask, folder: str) -> dict[str, Any]:
    """A task's configuration, its files looked for below the user's folder."""
    from medjax.finetune import FinetuneConfig

    overrides = [f"{name}={value}" for name, value in own.overrides.items()]
    values = load(FinetuneConfig, [ROOT / own.config], overrides).model_dump(mode="json")
    for split in ("train", "validation", "test"):
        if values["task"].get(split):
            values["task"][split] = str(Path(folder) / values["task"][split])
    return values


def synthetic_task(run_dir: Path) -> dict[str, Any]:
    """Which kind of note a synthetic note is, by its last words."""
    path = run_dir / "tasks" / "synthetic.jsonl"
    if not path.exists():
        from medjax.data.synthetic import write_notes

        path.parent.mkdir(parents=True, exist_ok=True)
        write_notes(path, 300, 1)
    columns = {"text": "text", "label": "category", "group": "patient"}
    task = {"kind": "classification", "train": str(path), "columns": columns, "open": True}
    task |= {"max_length": 24, "stride": 8, "long": "tail", "allow_leaks": True}
    empty = {"run_dir": str(run_dir / "finetuning"), "init_from": "chosen by the study"}
    return {**empty, "task": task, "training": {"epochs": 3, "learning_rate": [3.0e-4]}}


def comparison(config: StudyConfig, tasks: dict[str, Path], run_dir: Path) -> dict[str, Any]:
    """The configuration of medjax.compare."""
    names, lineages, wanted = {}, {}, {}
    for model in models(config, run_dir):
        if model.corpus != "untrained":
            lineage = f"{model.family}-{model.size}-{model.corpus}"
            lineages.setdefault(lineage, []).append(model.name)
        for task in tasks:
            names[str(run_dir / "finetuning" / f"{task}-{model.name}")] = model.name
    names = {path: name for path, name in names.items() if Path(path).is_dir()}
    for task in tasks:
        runs = [path for path in names if Path(path).name.startswith(f"{task}-")]
        runs += map(str, sorted((run_dir / "prompting").glob(f"{task}-*")))
        wanted[task] = {"runs": runs}
    for path in (run_dir / "prompting").glob("*"):
        *model, shots, mode = path.name.split("-")
        model = "-".join(model).removeprefix(f"{config.curve_task}-")
        names[str(path)] = f"{model}, {shots}-shot, {mode}"
    stages = sorted(map(str, (run_dir / "pretraining").glob("*-[0-9]*/lineage.json")))
    return {
        "output": str(run_dir / "report"),
        "tasks": wanted,
        "names": names,
        "lineages": lineages,
        "pretraining": [str(Path(path).parent) for path in stages],
        "contrasts": contrasts(config),
        "claims": claims(config, run_dir),
        "prices": {"cpu": 0.1},
    }


def contrasts(config: StudyConfig) -> list[dict[str, Any]]:
    """What was declared before any run: corpora at the largest budget, sizes."""
    found, last = [], config.steps[-1]
    for family, own in config.families.items():
        for size in own.sizes:
            clinical, general, both = (
                f"{family}-{size}-{corpus}-{last}" for corpus in (*CORPORA, "general-clinical")
            )
            found += [
                {"first": clinical, "second": general},
                {"first": clinical, "second": both},
                {"first": both, "second": general},
                {"first": clinical, "second": f"{family}-{size}-untrained"},
            ]
        small, large = list(own.sizes)[0], list(own.sizes)[-1]
        small, large = f"{family}-{small}-clinical-{last}", f"{family}-{large}-general-{last}"
        found.append({"first": small, "second": large})
    return found


def claims(config: StudyConfig, run_dir: Path) -> list[dict[str, Any]]:
    """The papers' findings; the models are the largest budget's."""
    last, task = config.steps[-1], config.curve_task
    sizes = list(config.families["bert"].sizes)

    def model(family: str, corpus: str, size: int = -1) -> str:
        return f"{family}-{sizes[size]}-{corpus}-{last}"

    clinical, general, continued, small = (
        (model("bert", corpus, size), model("t5", corpus, size))
        for corpus, size in (
            ("clinical", -1), ("general", -1), ("general-clinical", -1), ("clinical", 0)
        )
    )  # fmt: skip

    def fewer(name: str) -> str | None:
        """The row of the fewest labels."""
        path = run_dir / "finetuning" / f"{task}-{name}" / "results.json"
        if not path.exists():
            return None
        rows = json.loads(path.read_text())["labelled_examples"]
        return min(rows, key=rows.get)

    llm = next(iter(config.llms), general[1])
    free, held = f"{llm}, 0-shot, free", f"{llm}, 0-shot, constrained"
    shots, both = f"{llm}, 4-shot, free", f"{llm}, 4-shot, constrained"
    hard, easy = [task], [name for name in config.tasks if name != task] or None
    lehman, gondara, ferrazzi = "Lehman et al. 2023", "Gondara et al. 2025", "Ferrazzi et al. 2026"
    scratch, size = "From scratch on notes beats", "Clinical tokens beat size: small over large"
    rows: list[tuple[Any, ...]] = [
        ("A small clinical model beats prompting a larger one", lehman, small[0], both),
        (f"{scratch} general then clinical (T5)", lehman, clinical[1], continued[1]),
        ("General then clinical beats general (T5)", lehman, continued[1], general[1]),
        (f"{scratch} general (BERT)", lehman, clinical[0], general[0]),
        (f"{size} general (BERT)", lehman, small[0], general[0]),
        (f"{size} general (T5)", lehman, small[1], general[1]),
        ("Fine-tuning beats zero-shot", gondara, general[1], free),
        ("Further pretraining helps (BERT)", gondara, continued[0], general[0]),
        ("Fine-tuning beats four shots with constraints", ferrazzi, general[1], both),
        ("Four shots with constraints beat zero-shot", ferrazzi, both, free),
        ("Further pretraining helps (T5; mixed in the paper)", ferrazzi, continued[1], general[1]),
    ]
    clinical, general = clinical[0], general[0]
    found = [dict(zip(("claim", "source", "first", "second"), row, strict=True)) for row in rows]
    found.append(
        {"claim": "Domain text helps more on the harder task", "source": gondara}
        | {"first": clinical, "second": general, "tasks": hard}
        | {"less": {"first": clinical, "second": general, "tasks": easy}}
    )
    if fewer(clinical) and fewer(general):
        found.append(
            {"claim": "Further pretraining pays most with few labels", "source": gondara}
            | {"first": fewer(clinical), "second": fewer(general), "tasks": [task]}
            | {"less": {"first": clinical, "second": general, "tasks": [task]}}
        )
    timing = {"source": ferrazzi, "kind": "ratio below", "margin": 1.1}
    found.append({"claim": "Constraints cost little time", "first": held, "second": free} | timing)
    timing |= {"kind": "ratio above", "margin": 1.3}
    found.append({"claim": "Four shots cost much time", "first": shots, "second": free} | timing)
    found.append({"claim": "Gains are smaller out of distribution", "source": ferrazzi})
    return found


if __name__ == "__main__":
    sys.exit(main())
