"""Write a model as a Hugging Face folder: from a run's checkpoint, or from another model folder.

    python -m medjax.convert --input runs/t5 --output t5-latest
    python -m medjax.convert --input runs/t5/checkpoints/00010000 --output t5-10k
    python -m medjax.convert --input FOLDER --output FOLDER-bf16 --dtype bfloat16

From a model folder it makes another precision, other shards, or safetensors instead of .bin; the
other way, from a folder to a run, is `init_from:` of medjax.pretrain. Stored weights that belong to
no part known here, such as a task head, are named and left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medjax.config import Schema, UserError, main


class ConvertConfig(Schema):
    """What is read, and how it is written."""

    input: str
    """Run directory (its newest checkpoint), checkpoints/STEP in one, or Hugging Face folder."""
    output: str
    """Folder to write; one that medjax exported before is replaced."""
    tokenizer: str | None = None
    """Tokenizer folder; left out: the input's own, of a run that of its prepared notes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the stored weights; bfloat16 halves the size and drops 16 bits of precision."""
    max_shard_gigabytes: float = Field(5.0, gt=0)
    """Larger models are divided into files of at most this size."""


def run(config: ConvertConfig) -> None:
    """Reads the input and writes the output."""
    from medjax.hub.folder import load_pretrained, save_pretrained
    from medjax.hub.tokenizer import has_tokenizer
    from medjax.training.initial import find_checkpoint

    checkpoint = find_checkpoint(config.input)
    if checkpoint:
        model, params, tokenizer, card = read_checkpoint(*checkpoint, config.tokenizer)
    else:
        model, params = load_pretrained(config.input)
        folder, readme = Path(config.input), Path(config.input) / "README.md"
        tokenizer = config.tokenizer or (folder if has_tokenizer(folder) else None)
        card = readme.read_text(encoding="utf-8") if readme.is_file() else None
    save_pretrained(
        config.output,
        model,
        params,
        tokenizer=tokenizer,
        card=card,
        dtype=config.dtype,
        max_shard_bytes=int(config.max_shard_gigabytes * 1e9),
    )


def read_checkpoint(directory: Path, step: int, tokenizer: str | None) -> tuple[Any, ...]:
    """Model, parameters, tokenizer folder and card of a checkpoint, over all devices."""
    import jax

    from medjax.data.tokenize import load_tokenizer, tokenizer_hash
    from medjax.hub.card import model_card
    from medjax.models.config import Compute
    from medjax.models.spec import count_params
    from medjax.training.checkpoint import read_notes
    from medjax.training.config import MeshConfig
    from medjax.training.initial import find_tokenizer, load_checkpoint
    from medjax.training.mesh import make_mesh

    notes = read_notes(directory, step)
    folder = Path(tokenizer) if tokenizer else find_tokenizer(directory.parent)
    if tokenizer_hash(load_tokenizer(folder)) != notes["tokenizer"]:
        raise UserError(
            f"{folder}: not the tokenizer that {directory.parent} was trained with; give the "
            "folder of that one as `tokenizer`"
        )
    mesh = make_mesh(MeshConfig(fsdp=jax.device_count()), 0)
    model, params = load_checkpoint(str(directory / f"{step:08d}"), Compute(), mesh)
    facts = {
        "name": f"{directory.resolve().parent.name}, step {step}",
        "model": f"{model.config.model_type}, {count_params(model.specs):,} parameters",
        "objective": notes["objective"]["kind"],
        "init_from": notes["init_from"] or "",
        "sources": notes["sources"],
        "training": {"step": step},
    }
    return model, params, folder, model_card(facts)


if __name__ == "__main__":
    main(ConvertConfig, run, __doc__)
