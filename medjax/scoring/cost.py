"""What models cost in FLOPs over their life, and when one has become cheaper than another.

The model of Lehman et al. 2023, section 4.1: 6 FLOPs a parameter and token of training, 2 of
inference; a token of a model counts with the weight w of its tokenizer (tokens that it makes of the
same text, relative to another's).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from medjax.published import PublishedModel

TRAINING, INFERENCE = 6.0, 2.0
TOLERANCE = 0.1  # of printed FLOPs


class Option(NamedTuple):
    """A model and how it came about."""

    parameters: float
    pretraining: float = 0.0
    """Tokens of the pretraining that is paid for; 0 for one that was downloaded."""
    finetuning: float = 0.0
    """Tokens, over all epochs."""
    weight: float = 1.0
    """Tokens of its tokenizer for a token of the unit that volumes are given in."""

    def flops(self, inference: float) -> float:
        """Of all training and of so many tokens of inference."""
        trained = TRAINING * (self.pretraining + self.finetuning)
        return self.parameters * self.weight * (trained + INFERENCE * inference)


def break_even(first: Option, second: Option) -> float | None:
    """Tokens of inference from which on `first` has cost less than `second`.

    0 where it always has; none where it never will.
    """
    own, other = ((o.flops(0.0), o.flops(1.0) - o.flops(0.0)) for o in (first, second))
    return crossing(own, other)


def crossing(first: tuple[float, float], second: tuple[float, float]) -> float | None:
    """Where two costs that grow evenly cross.

    Args:
      first, second: (cost before any use, cost of each use).

    Returns:
      Uses from which on the first is cheaper; 0 where it always is; none where it never will be.
    """
    ahead, saved = second[0] - first[0], second[1] - first[1]
    if ahead >= 0 and saved >= 0:
        return 0.0
    return -ahead / saved if saved > 0 else None


class Contradiction(NamedTuple):
    """FLOPs that a paper prints against its own formula."""

    model: str
    domain: str
    printed: float
    computed: float


def contradictions(models: Iterable[PublishedModel]) -> list[Contradiction]:
    """Where printed FLOPs of pretraining are not 6 times parameters times tokens."""
    found = []
    for model in models:
        for domain, printed in model.flops_printed.items():
            computed = TRAINING * model.parameters * model.tokens[domain]
            if abs(printed - computed) > TOLERANCE * computed:
                found.append(Contradiction(model.name, domain, printed, computed))
    return found
