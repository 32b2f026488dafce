"""Configuration of the pretraining objectives; no JAX here.

`objective.py` turns one of these, a model and a vocabulary into functions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medjax.config import Schema


class _Common(Schema):
    note_attention: Literal["blocks", "notes"] = "blocks"
    """Tokens attend to the whole block, as in the papers, or to their own note only."""
    z_loss: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight of log(Z)**2 beside the cross-entropy; T5X takes 1e-4, most others 0."""
    loss_chunk: Annotated[int, Field(ge=1)] = 128
    """Targets of a row whose logits are held at once; a longer row is taken in equal parts."""


class SpanCorruptionConfig(_Common):
    """T5's objective: random spans give way to sentinels, and the decoder writes them."""

    kind: Literal["span_corruption"] = "span_corruption"
    """Which objective."""
    inputs_length: Annotated[int, Field(ge=3)] = 512
    """Encoder tokens a row, sentinels and end included; the raw block's length follows."""
    noise_density: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of a block's tokens that is cut out."""
    mean_span_length: Annotated[float, Field(ge=1)] = 3.0
    """Tokens in a span, on average."""


class MaskedLmConfig(_Common):
    """BERT's objective: random tokens are masked anew each time, and the encoder names them."""

    kind: Literal["masked_lm"] = "masked_lm"
    """Which objective."""
    sequence_length: Annotated[int, Field(ge=8)] = 512
    """Tokens a row."""
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of a row's tokens, special ones aside, that is to be predicted; ModernBERT: 0.3."""
    replacement: Literal["80-10-10", "mask"] = "80-10-10"
    """What stands for them: in 80% the mask, in 10% a random token, in 10% the token itself, as in
    BERT; or always the mask."""
    whole_word: bool = False
    """Whether all pieces of a word are chosen together."""


class CausalLmConfig(_Common):
    """A decoder's objective: every token is predicted from those before it."""

    kind: Literal["causal_lm"] = "causal_lm"
    """Which objective."""
    sequence_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens a row that the model reads; a block has one more."""


ObjectiveConfig = Annotated[
    SpanCorruptionConfig | MaskedLmConfig | CausalLmConfig, Field(discriminator="kind")
]
