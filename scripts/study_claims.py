"""What the study compares, declared before any of its runs: contrasts, and the papers' findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from study_config import CORPORA, StudyConfig, models


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
    branches = [own for own in models(config, run_dir) if own.corpus != "untrained"]
    return {
        "output": str(run_dir / "report"),
        "tasks": wanted,
        "names": names,
        "lineages": lineages,
        "pretraining": [str(own.export.parent) for own in branches if own.done.exists()],
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
    sizes = list(config.families[config.encoder].sizes)

    def model(family: str, corpus: str, size: int = -1) -> str:
        return f"{family}-{sizes[size]}-{corpus}-{last}"

    clinical, general, continued, small = (
        (model(config.encoder, corpus, size), model("t5", corpus, size))
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
        (f"{scratch} general (encoder)", lehman, clinical[0], general[0]),
        (f"{size} general (encoder)", lehman, small[0], general[0]),
        (f"{size} general (T5)", lehman, small[1], general[1]),
        ("Fine-tuning beats zero-shot", gondara, general[1], free),
        ("Further pretraining helps (encoder)", gondara, continued[0], general[0]),
        ("Fine-tuning beats four shots with constraints", ferrazzi, general[1], both),
        ("Four shots with constraints beat zero-shot", ferrazzi, both, free),
        ("Further pretraining helps (T5; mixed in the paper)", ferrazzi, continued[1], general[1]),
    ]
    clinical, general, continued = clinical[0], general[0], continued[0]
    found = [dict(zip(("claim", "source", "first", "second"), row, strict=True)) for row in rows]
    found.append(
        {"claim": "Domain text helps more on the harder task", "source": gondara}
        | {"first": clinical, "second": general, "tasks": hard}
        | {"less": {"first": clinical, "second": general, "tasks": easy}}
    )
    if fewer(continued) and fewer(general):
        found.append(
            {"claim": "Further pretraining pays most with few labels", "source": gondara}
            | {"first": fewer(continued), "second": fewer(general), "tasks": [task]}
            | {"less": {"first": continued, "second": general, "tasks": [task]}}
        )
    timing = {"source": ferrazzi, "kind": "ratio below", "margin": 1.1}
    found.append({"claim": "Constraints cost little time", "first": held, "second": free} | timing)
    timing |= {"kind": "ratio above", "margin": 1.3}
    found.append({"claim": "Four shots cost much time", "first": shots, "second": free} | timing)
    found.append({"claim": "Gains are smaller out of distribution", "source": ferrazzi})
    return found
