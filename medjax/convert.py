"""Rewrite a model folder: another precision, other shards, or safetensors instead of .bin files.

    python -m medjax.convert --input FOLDER --output FOLDER [--dtype bfloat16]

The output holds what medjax reads of the input (weights, configuration, tokenizer, model card) and
loads in transformers. Weights that belong to no part known here, such as a task head, are named and
left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medjax.config import Schema, main


class ConvertConfig(Schema):
    """What is read, and how it is written."""

    input: str
    """Hugging Face folder, with safetensors or (where torch is installed) pytorch_model.bin."""
    output: str
    """Folder to write; one that medjax exported before is replaced."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the stored weights; bfloat16 halves the size and drops 16 bits of precision."""
    max_shard_gigabytes: float = Field(5.0, gt=0)
    """Larger models are divided into files of at most this size."""


def run(config: ConvertConfig) -> None:
    """Reads the input and writes the output."""
    from medjax.hub.folder import load_pretrained, save_pretrained

    model, params = load_pretrained(config.input)
    card = Path(config.input) / "README.md"
    save_pretrained(
        config.output,
        model,
        params,
        tokenizer=config.input,
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
        dtype=config.dtype,
        max_shard_bytes=int(config.max_shard_gigabytes * 1e9),
    )


if __name__ == "__main__":
    main(ConvertConfig, run, __doc__)
