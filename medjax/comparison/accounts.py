"""What a run has cost and will cost: FLOPs, device-hours, money, and where two options cross."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from medjax.comparison.runs import Run
from medjax.config import Schema
from medjax.scoring.cost import INFERENCE, TRAINING, crossing
from medjax.scoring.lineage import Stage


class Hardware(Schema):
    """Devices as a plan has them, for hours that nobody has measured."""

    name: str
    """As the report calls it."""
    peak_flops: float
    """FLOP/s of a device in the type that is trained in."""
    mfu: float
    """Share of them that the model's own FLOPs reach."""
    price_per_hour: float
    """Of a device."""

    def hours(self, flops: float) -> float:
        """Device-hours of so many FLOPs."""
        return flops / (self.peak_flops * self.mfu) / 3600


class Account(NamedTuple):
    """Of one run."""

    tokens: dict[str, float]
    """Read in pretraining, by domain, as far as its history is known."""
    unique_tokens: dict[str, float]
    bytes: float
    known: bool
    """Whether every stage before the run is."""
    pretraining: float
    """FLOPs of those stages; a published checkpoint counts nothing."""
    finetuning: float
    per_document: float | None
    """FLOPs of an answer to one test example."""
    papers: float | None
    """Pretraining and fine-tuning by 6 times parameters times tokens."""
    papers_per_document: float | None
    """2 times parameters times tokens."""
    device_hours: float
    seconds_per_document: float | None
    price: float | None
    """Of the device-hours; None where a device has no price."""

    @property
    def training(self) -> float:
        """FLOPs before the first answer."""
        return self.pretraining + self.finetuning

    def flops(self, documents: float) -> float:
        """Of all training and so many answers."""
        return self.training + documents * (self.per_document or 0.0)


def account(run: Run, prices: Mapping[str, float]) -> Account:
    """Adds up a run.

    Args:
      prices: of a device's hour, by the beginning of its kind's name.
    """
    stages, cost = run.stages or [], run.inference
    own = [stage for stage in stages if stage.kind == "finetuning"]
    documents = cost["examples"] if cost else 0
    tokens = (cost["tokens_in"] + cost["tokens_out"]) / documents if cost else None
    return Account(
        tokens=_summed(stages, "tokens"),
        unique_tokens=_summed(stages, "unique_tokens"),
        bytes=sum(_summed(stages, "bytes").values()),
        known=bool(stages) and all(stage.kind != "published" for stage in stages),
        pretraining=sum(stage.flops for stage in stages if stage.kind == "pretraining"),
        finetuning=sum(stage.flops for stage in own),
        per_document=cost["flops"] / documents if cost else None,
        papers=TRAINING * sum(s.parameters * sum(s.tokens.values()) for s in stages) or None,
        papers_per_document=INFERENCE * run.parameters * tokens if cost and stages else None,
        device_hours=sum(stage.device_hours for stage in stages),
        seconds_per_document=cost["seconds"] / documents if cost else None,
        price=_price(stages, prices),
    )


def _summed(stages: list[Stage], field: str) -> dict[str, float]:
    """By domain, over the stages of pretraining."""
    found: dict[str, float] = {}
    for stage in stages:
        if stage.kind == "pretraining":
            for domain, value in getattr(stage, field).items():
                found[domain] = found.get(domain, 0.0) + value
    return dict(sorted(found.items()))


def _price(stages: list[Stage], prices: Mapping[str, float]) -> float | None:
    total = 0.0
    for stage in stages:
        if stage.device_hours:
            own = [price for kind, price in prices.items() if stage.device.startswith(kind)]
            if not own:
                return None
            total += stage.device_hours * own[0]
    return total


def break_even(first: Account, second: Account) -> float | None:
    """Documents from which on the first has taken fewer FLOPs; None: never, or not known."""
    if first.per_document is None or second.per_document is None:
        return None
    own, other = ((a.training, a.per_document) for a in (first, second))
    return crossing(own, other)
