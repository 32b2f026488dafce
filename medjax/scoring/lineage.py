"""lineage.json: how a model came about, stage by stage, and what each stage cost.

Every run writes it beside its results and into the model folder that it exports, so that a model's
history goes with it: `medjax.compare` adds up tokens, FLOPs and device-hours along it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pydantic

from medjax.config import Schema, UserError

FILE = "lineage.json"
VERSION = 1


class Seen(Schema):
    """An evaluation set that was looked for in the notes of a stage."""

    name: str
    """As `prepare` was told."""
    path: str
    """Its file or folder."""
    examples: int
    """How many stand in the notes that were trained on; 0 where those were left out."""


class Stage(Schema):
    """One training of a model, or a folder whose history is not known."""

    kind: Literal["published", "pretraining", "finetuning"]
    name: str
    """The folder's."""
    parameters: int
    """Of the model at the end of the stage."""
    objective: str | None = None
    """masked_lm, span_corruption, causal_lm; of fine-tuning, the kind of task."""
    tokens: dict[str, float] = {}
    """Read, by domain; of fine-tuning, under the domain "labelled"."""
    unique_tokens: dict[str, float] = {}
    """The same, each token of the notes once."""
    bytes: dict[str, float] = {}
    """UTF-8 bytes of the text that was read."""
    flops: float = 0.0
    """By the rule of training/flops.py."""
    device_hours: float = 0.0
    """Hours times devices."""
    device: str = ""
    """Kind of the devices."""
    evaluations: list[Seen] = []
    """Evaluation sets that were looked for in the notes."""
    validated_on: str = ""
    """Of pretraining: the held-out notes of its losses, which compare with others' on the same."""

    def part(self, share: float) -> Stage:
        """The stage as it stood after this share of its steps."""
        scaled = {"flops": self.flops * share, "device_hours": self.device_hours * share}
        for name in ("tokens", "bytes"):
            scaled[name] = {of: value * share for of, value in getattr(self, name).items()}
        unique = self.unique_tokens
        scaled["unique_tokens"] = {of: min(unique[of], scaled["tokens"][of]) for of in unique}
        return self.model_copy(update=scaled)


class Lineage(Schema):
    """The file."""

    version: int = VERSION
    """Of this layout."""
    stages: list[Stage]
    """From the first to the last."""


def origin_name(init_from: str) -> str:
    """How tables call what a run began from: a folder, a run, or `RUN @ STEP`."""
    path = Path(init_from)
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name} @ {int(path.name):,}"
    return path.resolve().parent.name if path.name == "export" else path.name


def write_lineage(folder: Path, stages: Sequence[Stage]) -> None:
    """Writes `lineage.json`."""
    content = Lineage(stages=list(stages)).model_dump(mode="json")
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def read_lineage(folder: str | Path) -> list[Stage] | None:
    """The stages of a run or a model folder; None where it has no history.

    Raises:
      UserError: the file is damaged, or of another layout.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        found = Lineage.model_validate_json(path.read_text(encoding="utf-8"))
    except (pydantic.ValidationError, UnicodeDecodeError):
        raise UserError(
            f"{path}: damaged, or of another layout; export the model again, or remove the file: "
            "the model then counts as one of unknown history"
        ) from None
    if found.version != VERSION:
        raise UserError(f"{path}: layout {found.version}, but this medjax reads layout {VERSION}")
    return found.stages
