"""Plans of all recipes on slices of TPUs, as a table and a picture: hours of compiling, resumable.

    python scripts/plan_table.py FOLDER [--recipes NAME ...] [--slices NAME ...]

Every plan is a `python -m medjax.plan` of its own and leaves a JSON file in FOLDER; those that are
there are not made again. A recipe's batch that does not divide over a slice's chips is taken in the
nearest size that does, with as many tokens in all. `table.md`, `summary.md` and
`weak_scaling*.svg` are of all that are there.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from medjax.comparison import figures
from medjax.comparison.figures import Point, Series
from medjax.config import load
from medjax.plan import PlanConfig

ROOT = Path(__file__).resolve().parent.parent
SLICES = {  # name -> topology, slices of it, price of a chip-hour on demand (USD, list of 2025)
    "v5e-16": ("v5e:4x4", 1, 1.20),
    "v5e-64": ("v5e:8x8", 1, 1.20),
    "v5e-256": ("v5e:16x16", 1, 1.20),
    "v5p-128": ("v5p:4x4x4", 1, 4.20),
    "v6e-64": ("v6e:8x8", 1, 2.70),
    "v6e-256": ("v6e:16x16", 1, 2.70),
    "2 x v5e-256": ("v5e:16x16", 2, 1.20),
}
SHAPES = {  # of recipes that begin from a published model
    "bcc_gatortron": "gatortron_base",
    "bcc_roberta": "roberta_large",
    "bioclinical_modernbert_base_phase1": "modernbert_base",
    "bioclinical_modernbert_base_phase2": "modernbert_base",
    "bioclinical_modernbert_large_phase1": "modernbert_large",
    "bioclinical_modernbert_large_phase2": "modernbert_large",
    "clinical_t5_base_ckpt": "t5_base",
    "italian_cpt_gemma": "gemma_3_1b",
    "italian_cpt_llama": "llama_3_2_1b",
    "italian_cpt_qwen": "qwen3_1_7b",
}
RECIPES = sorted(
    path.stem
    for path in (ROOT / "configs/pretrain").glob("*.yaml")
    if not path.stem.endswith("_tiny")
)
WEAK = ("clinical_t5_large", 8)  # recipe, rows a chip
WEAK_SLICES = ("v5e-16", "v5e-64", "v5e-256", "2 x v5e-256")


def main() -> int:
    """Makes what is missing, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipes", nargs="*", default=RECIPES)
    parser.add_argument("--slices", nargs="*", default=list(SLICES))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    wanted = [(recipe, name, None) for recipe in given.recipes for name in given.slices]
    wanted += [(WEAK[0], name, WEAK[1]) for name in WEAK_SLICES if name in given.slices]
    for recipe, name, rows in wanted:
        path = given.folder / f"{recipe}{'-weak' if rows else ''}-{name.replace(' ', '_')}.json"
        if not path.exists():
            print(f"{path.stem} ...", end=" ", flush=True)
            found = plan(given.folder, recipe, name, rows)
            path.write_text(json.dumps(found, indent=1))
            print(found.get("problem") or f"{found['compile_seconds']} s", flush=True)
    (given.folder / "table.md").write_text(table(given.folder))
    (given.folder / "summary.md").write_text(summary(given.folder))
    weak_scaling(given.folder)
    return 0


def plan(folder: Path, recipe: str, name: str, rows: int | None) -> dict[str, Any]:
    """One plan, or why there is none."""
    topology, slices, price = SLICES[name]
    files = [ROOT / f"configs/pretrain/{recipe}.yaml"]
    files += [ROOT / f"configs/model/{SHAPES[recipe]}.yaml"] if recipe in SHAPES else []
    command = [sys.executable, "-m", "medjax.plan", *map(str, files), "--fit", "--output", "json"]
    command += ["--topology", topology, "--num_slices", str(slices), "--price", str(price)]
    command += ["--cache", str(folder / "compiled")]
    loop = load(PlanConfig, files, [f"topology={topology}"]).loop
    chips = slices * _product(topology)
    if rows:
        command += ["--loop.batch_size", str(rows * chips), "--loop.accumulation", "1"]
    elif loop.batch_size % chips:  # the nearest batch that divides, for the same tokens
        batch = chips * nearest(loop.batch_size / chips)
        steps = round(loop.steps * loop.batch_size / batch)
        command += ["--loop.batch_size", str(batch), "--loop.steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        return {"problem": done.stderr.strip().splitlines()[-1][:300], "topology": topology}
    return json.loads(done.stdout)[0]


def nearest(rows: float) -> int:
    """Whole rows a chip; of many, a multiple that can be taken in parts."""
    part = 2 ** max(0, int(math.log2(max(rows, 1) / 4)))
    return max(1, round(rows / part) * part)


def _product(topology: str) -> int:
    count = 1
    for side in topology.partition(":")[2].split("x"):
        count *= int(side)
    return count


def made(folder: Path, recipe: str, name: str) -> dict[str, Any] | None:
    """A plan that is there."""
    path = folder / f"{recipe}-{name.replace(' ', '_')}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(folder: Path) -> str:
    """A row a recipe and slice."""
    head = ["recipe", "slice", "rows", "mesh", "GiB of", "step, s", "bound", "tokens/s", "MFU"]
    head += ["days", "USD", "compiled, s"]
    lines = [head, ["---"] * len(head)]
    for recipe in RECIPES:
        for name in SLICES:
            own = made(folder, recipe, name)
            if own is None:
                continue
            if "problem" in own:
                lines.append([recipe, name, own["problem"].removeprefix("error: "), *[""] * 9])
                continue
            changes = [own["remat"]] if own["remat"] != "none" else []
            changes += [f"{own['accumulation']} parts"] if own["accumulation"] > 1 else []
            mesh = " x ".join(str(size) for size in own["mesh"].values())
            line = [recipe, name, str(own["batch_size"]), ", ".join([mesh, *changes])]
            line.append(f"{own['memory_used'] / 2**30:.1f} of {own['memory_limit'] / 2**30:.1f}")
            if own["fits"]:
                line += [f"{own['step_seconds']:.3f}", own["bound"]]
                line += [f"{own['tokens_per_second']:,.0f}", f"{own['mfu']:.0%}"]
                line += [f"{own['run_hours'] / 24:.1f}", f"{own['run_cost']:,.0f}"]
            else:
                line += ["does not fit", *[""] * 5]
            lines.append([*line, f"{own['compile_seconds']:.0f}"])
    return markdown(lines)


def summary(folder: Path) -> str:
    """A row a recipe: hours, dollars and MFU on each slice."""
    lines = [["recipe", "tokens", *SLICES], ["---"] * (len(SLICES) + 2)]
    for recipe in RECIPES:
        plans = [made(folder, recipe, name) for name in SLICES]
        tokens = max((own.get("run_tokens", 0) for own in plans if own), default=0)
        cells = [
            f"{own['run_hours']:.3g} h, {own['run_cost']:,.0f} USD, {own['mfu']:.0%}"
            if own and own.get("fits")
            else ""
            for own in plans
        ]
        lines.append([recipe, f"{tokens / 1e9:.3g}B", *cells])
    return markdown(lines)


def markdown(lines: list[list[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def weak_scaling(folder: Path) -> None:
    """Bytes that a chip sends, and what bounds its step, as chips grow with the batch."""
    plans = [own for name in WEAK_SLICES if (own := made(folder, f"{WEAK[0]}-weak", name))]
    sent: dict[str, list[Point]] = {}
    bounds: dict[str, list[Point]] = {}
    for own in plans:
        for place in ("interconnect_bytes", "network_bytes"):
            for kind, size in own[place].items():
                if size:
                    sent.setdefault(kind, []).append(Point(own["chips"], size / 2**20))
        for bound, seconds in own["seconds_by_bound"].items():
            if seconds:
                bounds.setdefault(bound, []).append(Point(own["chips"], seconds * 1000))
    for stem, found, label in (
        ("weak_scaling", sent, "MiB that a chip sends in a step"),
        ("weak_scaling_bounds", bounds, "ms of a step, by what takes them"),
    ):
        if found:
            series = [Series(kind, points) for kind, points in found.items()]
            figure = figures.lines(series, "chips of v5e", label, log_y=found is sent)
            figures.save(figure, folder, stem)


if __name__ == "__main__":
    sys.exit(main())
