"""What a comparison is told: which runs are of which task, what is tested, what things cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medjax.comparison.accounts import Hardware
from medjax.config import Schema


class TaskRuns(Schema):
    """The runs of one task."""

    runs: list[str] = Field(min_length=1)
    """Run directories of medjax.finetune and medjax.prompt, or patterns of them (`runs/rqe-*`)."""
    metric: str | None = None
    """By default the one that decided on validation."""
    family: str | None = None
    """Tasks of a family are averaged together; by default each is its own."""
    out_of_distribution: bool = False
    """Its kind of data was in no training set; such tasks stand apart."""
    published: str | None = None
    """Name of a task of the papers, whose scores are shown beside: MedNLI, RadQA, CLIP ..."""


class Pair(Schema):
    """Two models that are compared on every task that has both."""

    first: str
    """As the report calls it."""
    second: str
    """The first is expected above it."""
    margin: float | None = Field(None, gt=0)
    """Asks whether the first is not worse than the second by more than this."""


class Less(Schema):
    """A difference that is subtracted: does the first help more there than here?"""

    first: str
    """Model as the report calls it."""
    second: str
    """The other one."""
    tasks: list[str] | None = None
    """On the mean of these; by default of all that have both."""


class Claim(Schema):
    """A sentence that the runs are to judge: the first model scores higher than the second."""

    claim: str
    """The sentence."""
    source: str = ""
    """Who found it."""
    first: str | None = None
    """Model as the report calls it, or one of its rows of fewer labels by its title; none: nothing
    here tests the claim."""
    second: str | None = None
    """The other one."""
    tasks: list[str] | None = None
    """On the mean of these; by default of all that have both."""
    less: Less | None = None
    """Another difference, which is subtracted."""
    kind: Literal["higher", "not worse", "ratio below", "ratio above"] = "higher"
    """higher, or not worse by the margin, or seconds an example against a limit."""
    margin: float | None = Field(None, gt=0)
    """not worse: in units of the metric; ratios: the limit."""


class Size(Schema):
    """A model and a budget whose loss is to be predicted."""

    parameters: float = Field(gt=0)
    """Of the model."""
    tokens: float = Field(gt=0)
    """That it reads."""


class CompareConfig(Schema):
    """One report."""

    output: str = "comparison"
    """Folder of the report; what an earlier report left there is replaced."""
    runs: list[str] = []
    """Run directories; those of the same test examples are a task."""
    tasks: dict[str, TaskRuns] = {}
    """The same with names and options."""
    names: dict[str, str] = {}
    """Run directory -> what the report calls its model."""
    reference: str | None = None
    """Model that the others are tested against; by default that of the first run."""
    contrasts: list[Pair] = []
    """Pairs to be tested, in the place of all against the reference."""
    all_pairs: bool = False
    """Tests all pairs too, marked exploratory."""
    pretraining: list[str] = []
    """Run directories of medjax.pretrain, for losses and their scaling."""
    lineages: dict[str, list[str]] = {}
    """Name -> the models that are points of one curve over tokens; by default those of the
    checkpoints of one run."""
    target: dict[str, float] = {}
    """Task -> a score; how many tokens and FLOPs each lineage takes to it."""
    predict: list[Size] = []
    """What the scaling fit is asked."""
    prices: dict[str, float] = {}
    """Beginning of a device's kind (cpu, TPU v5 lite, NVIDIA H100) -> price of its hour."""
    currency: str = "USD"
    """Of the prices."""
    hardware: list[Hardware] = []
    """Devices on which hours and prices are reckoned from FLOPs."""
    claims: list[Claim] = []
    """Sentences to be judged."""
