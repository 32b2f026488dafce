"""Settings of text generation; nothing here imports JAX."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic
from pydantic import Field, PositiveInt

from medjax.config import Schema


class DecodingConfig(Schema):
    """How text is generated: greedily, by beam search, or drawn, under transformers' names."""

    max_new_tokens: PositiveInt = 64
    """Longest output in tokens, the end token included."""
    num_beams: Annotated[int, Field(ge=1, le=64)] = 1
    """Hypotheses a row; 1: greedy."""
    length_penalty: float = 1.0
    """A finished hypothesis counts log probability / length**length_penalty; above 0: longer."""
    early_stopping: bool | Literal["never"] = False
    """When a row with num_beams finished hypotheses is done: at once (true), when none at the
    present length would be better (false), or at any length it could still reach ("never")."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """Tokens are drawn, from scores divided by it; none: the best ones are taken."""
    top_k: PositiveInt | None = None
    """With temperature: of the so many best tokens."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """With temperature: of the best tokens that make up this probability."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is drawn; each row has randomness of its own, whatever rows are beside it."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that end an output and are left out of it."""
    batch_size: PositiveInt = 16
    """Rows decoded together; rounded up to a multiple of the devices."""

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.temperature is None and (self.top_k or self.top_p):
            raise ValueError("top_k and top_p are for drawn tokens; set temperature")
        if self.temperature is not None and self.num_beams > 1:
            raise ValueError("temperature draws tokens, num_beams searches; set one of them")
        return self
