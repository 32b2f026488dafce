"""What the study is told, and which models it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from medjax.config import Schema

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ("clinical", "general")


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
    """Of the curve's task, rising: all at the largest budget, the last one at the others."""
    curve_task: str
    """The task that every budget is fine-tuned on."""
    families: dict[str, Family]
    """`t5`, and one of BERT-style encoders."""
    tasks: dict[str, StudyTask]
    """What is fine-tuned."""
    side_by_side: int = Field(1, ge=1)
    """Jobs at work at once, on CPU each with its share of the cores: more than 1 pays for models
    that are too small to fill them, and only there (on other devices: 1)."""
    llms: dict[str, str] = {}
    """Name -> folder of a larger model that is prompted beside ours."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        encoders = self.families.keys() - {"t5"}
        if "t5" not in self.families or len(encoders) != 1:
            raise ValueError(f"families: {', '.join(self.families)} are not t5 and one of encoders")
        return self

    @property
    def encoder(self) -> str:
        """The family that is not T5."""
        return next(name for name in self.families if name != "t5")


class Places(NamedTuple):
    """What the user gave."""

    clinical: str | None
    general: str | None
    tasks: str | None


class Model(NamedTuple):
    """A pretrained model of the study."""

    name: str
    family: str
    size: str
    corpus: str
    steps: int
    export: Path

    @property
    def done(self) -> Path:
        """A file that is there once the model is."""
        if self.corpus == "untrained":
            return self.export / "lineage.json"
        return self.export.parent / "lineage.json"


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
