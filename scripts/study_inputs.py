"""The study's corpora and tasks: the user's own, or stand-ins that are marked as such."""

from __future__ import annotations

import ast
import json
import math
import sysconfig
from pathlib import Path
from typing import Any

import yaml
from study_config import ROOT, Places, StudyConfig, StudyTask

from medjax.config import UserError, load

BYTES = 4  # of a token, about


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
    """Each task's configuration with whole paths, its test texts, and how large it is."""
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
        limit, train = BYTES * own.task.max_length, data.splits["train"]
        read = sum(min(text_bytes([one]), limit) for one in train) / BYTES
        about = {"tokens_per_example": read / len(train)}
        about |= {name: len(examples) for name, examples in data.splits.items()}
        kept = ("epochs", "min_steps", "batch_size")
        about |= {setting: getattr(own.training, setting) for setting in kept}
        (folder / "about.json").write_text(json.dumps(about))
    return found


def finetuning_tokens(about: dict[str, Any], fraction: float) -> float:
    """What a training on this share of the labels and its scoring cost, in tokens trained on (about
    three times those only read).

    Args:
      about: of the task, as `write_tasks` leaves it.
    """
    per_epoch = math.ceil(about["train"] * fraction / about["batch_size"])
    passes = max(math.ceil(about["min_steps"] / max(about["epochs"] * per_epoch, 1)), 1)
    trained = about["epochs"] * passes * per_epoch * about["batch_size"]
    read = about["epochs"] * about["validation"] * fraction + about["test"]
    return about["tokens_per_example"] * (trained + read / 3)


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
