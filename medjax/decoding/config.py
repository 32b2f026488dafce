"""Settings of text generation; nothing here imports JAX."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from medjax.config import Schema


class DecodingConfig(Schema):
    """How text is generated: greedily, or by beam search under transformers' names and rules."""

    max_new_tokens: PositiveInt = 64
    """Longest output in tokens, the end token included."""
    num_beams: Annotated[int, Field(ge=1, le=64)] = 1
    """Hypotheses a row; 1: greedy."""
    length_penalty: float = 1.0
    """A finished hypothesis counts log probability / length**length_penalty; above 0: longer."""
    early_stopping: bool | Literal["never"] = False
    """When a row with num_beams finished hypotheses is done: at once (true), when none at the
    present length would be better (false), or at any length it could still reach ("never")."""
    batch_size: PositiveInt = 16
    """Rows decoded together; rounded up to a multiple of the devices."""
