"""Where a run's first parameters come from: nowhere, a Hugging Face folder, or a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import pydantic
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from medjax.config import UserError
from medjax.data.manifest import Manifest
from medjax.models.config import DECODERS, Compute, ModelConfig
from medjax.models.held import Held, hold
from medjax.models.model import Model, Params, build_model
from medjax.training.checkpoint import place, read_notes, restore_params, saved_steps, verify
from medjax.training.mesh import shardings

log = logging.getLogger(__name__)

WRITERS = ("t5", *DECODERS)
MODEL_CONFIG = pydantic.TypeAdapter(ModelConfig)


def initial_config(
    model: ModelConfig | None, init_from: str | None, vocab_size: int
) -> ModelConfig:
    """The configuration of the model that the run trains, for a tokenizer of `vocab_size` ids.

    Raises:
      UserError: the vocabulary is too small, or there is no model in `init_from`.
    """
    if init_from is None:
        if model.vocab_size < vocab_size:
            raise UserError(
                f"model.vocab_size {model.vocab_size} is less than the tokenizer's {vocab_size} "
                f"ids; set model.vocab_size to {vocab_size} or more"
            )
        return model
    checkpoint = find_checkpoint(init_from)
    if checkpoint:
        config = MODEL_CONFIG.validate_python(read_notes(*checkpoint)["model"])
        if config.vocab_size < vocab_size:
            raise UserError(
                f"{init_from}: its vocabulary of {config.vocab_size} is less than the tokenizer's "
                f"{vocab_size} ids; export it with `python -m medjax.convert` and give that folder "
                "as init_from: its vocabulary is then resized"
            )
        return config
    from medjax.hub.folder import read_config

    config = read_config(init_from)
    return config.model_copy(update={"vocab_size": max(config.vocab_size, vocab_size)})


def load_initial(
    config: ModelConfig, init_from: str | None, compute: Compute, mesh: Mesh, seed: int
) -> tuple[Model, Params | None]:
    """The model, and its parameters on the mesh; None in their place means fresh ones."""
    if init_from is None:
        return build_model(config, compute), None
    checkpoint = find_checkpoint(init_from)
    if checkpoint:
        model = build_model(config, compute)
        return model, restore_params(*checkpoint, model.specs, shardings(model.specs, mesh))
    from medjax.hub.folder import load_pretrained

    return load_pretrained(
        init_from,
        compute,
        ("lm_head",),
        shardings=lambda specs: shardings(specs, mesh),
        vocab_size=config.vocab_size,
        seed=seed,
    )


def load_checkpoint(path: str, compute: Compute, mesh: Mesh) -> tuple[Model, Params]:
    """A model and its parameters from a run directory, or from one step's folder in it."""
    checkpoint = find_checkpoint(path)
    if checkpoint is None:
        raise UserError(f"{path}: no checkpoint; give a run directory or checkpoints/STEP in one")
    config = MODEL_CONFIG.validate_python(read_notes(*checkpoint)["model"])
    model = build_model(config, compute)
    return model, restore_params(*checkpoint, model.specs, shardings(model.specs, mesh))


def check_tokenizer(init_from: str | None, corpus: str, manifest: Manifest) -> None:
    """The ids of the prepared notes must mean to the model what they meant when it was trained.

    Raises:
      UserError: the notes were prepared with another tokenizer. One that only adds ids is fine.
    """
    if init_from is None:
        return
    remedy = f"prepare the notes again with the tokenizer of {init_from}"
    checkpoint = find_checkpoint(init_from)
    if checkpoint:
        if read_notes(*checkpoint)["tokenizer"] != manifest.tokenizer.sha256:
            raise UserError(
                f"{corpus}: another tokenizer than {init_from} was trained with; {remedy}"
            )
        return
    from medjax.data.tokenize import load_tokenizer
    from medjax.hub.tokenizer import has_tokenizer

    if not has_tokenizer(Path(init_from)):
        log.warning("%s has no tokenizer: not checked that the notes' ids fit it", init_from)
        return
    theirs, ours = (load_tokenizer(f).get_vocab() for f in (init_from, Path(corpus) / "tokenizer"))
    pieces = {i: piece for piece, i in ours.items()}
    moved = sum(pieces.get(i) != piece for piece, i in theirs.items())
    if moved:
        raise UserError(
            f"{corpus}: {moved:,} of {len(theirs):,} ids of {init_from} stand for another piece "
            f"in its tokenizer; {remedy}, or with one that only adds to it"
        )


def initial_sources(init_from: str | None) -> list[dict]:
    """The training notes that a folder's card or a checkpoint names: their terms are inherited."""
    if init_from is None:
        return []
    checkpoint = find_checkpoint(init_from)
    if checkpoint:
        return read_notes(*checkpoint)["sources"]
    from medjax.hub.card import read_sources

    return read_sources(init_from)


class Backbone(NamedTuple):
    """An encoder to put a head on, or a T5 or decoder to write with."""

    model: Model
    """A T5 or decoder with its LM head, an encoder mostly without."""
    params: Params
    pretrained_head: Params
    """What a head of the family may begin from: BERT's pooler, ModernBERT's prediction head."""
    tokenizer: Path
    sources: list[dict]
    """Notes that it was trained on."""


def load_backbone(
    init_from: str,
    compute: Compute,
    mesh: Mesh,
    seed: int,
    *,
    lm_head: bool = False,
    held: Held = "float32",
) -> Backbone:
    """The model of a Hugging Face folder, a run directory or one step's folder in it.

    Args:
      lm_head: an encoder keeps it.
      held: type of the layers' matrices, for inference alone if not float32.

    Raises:
      UserError: something of it is missing or damaged.
    """
    checkpoint = find_checkpoint(init_from)
    if checkpoint:
        model, params = load_checkpoint(init_from, compute, mesh)
        specs = flatten_dict(model.specs, sep="/")
        flat = flatten_dict(params, sep="/")
        params = {path: hold(path, specs[path], flat.pop(path), held) for path in list(flat)}
        params = unflatten_dict(params, sep="/")
        tokenizer = find_tokenizer(checkpoint[0].parent)
    else:
        from medjax.hub.folder import load_pretrained, read_config
        from medjax.hub.tokenizer import has_tokenizer

        keeps = lm_head or read_config(init_from).model_type in WRITERS
        parts = ("lm_head",) if keeps else None
        model, params = load_pretrained(
            init_from,
            compute,
            parts,
            shardings=lambda specs: shardings(specs, mesh),
            seed=seed,
            held=held,
        )
        tokenizer = Path(init_from)
        if not has_tokenizer(tokenizer):
            raise UserError(f"{init_from}: holds no tokenizer; copy the model's own into it")
    sources = initial_sources(init_from)
    if lm_head or model.config.model_type in WRITERS:
        return Backbone(model, params, {}, tokenizer, sources)
    body = {name: part for name, part in params.items() if name not in ("lm_head", "pooler")}
    head: Params = {}
    if "pooler" in params:
        head = {"dense": params["pooler"]}
    elif model.config.model_type == "modernbert" and "lm_head" in params:
        head = {name: params["lm_head"][name] for name in ("dense", "norm")}
    return Backbone(build_model(model.config, compute, ()), body, head, tokenizer, sources)


def without_lm_head(backbone: Backbone) -> Backbone:
    """The bare model, to put a head on."""
    model, params = backbone.model, backbone.params
    body = {name: part for name, part in params.items() if name != "lm_head"}
    return backbone._replace(model=build_model(model.config, model.compute, ()), params=body)


def find_tokenizer(run_dir: Path) -> Path:
    """The tokenizer of a run: beside the notes that its configuration names, or in its export.

    Raises:
      UserError: neither is there.
    """
    import yaml

    from medjax.hub.tokenizer import has_tokenizer

    saved = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    places = [Path(saved["data"][0]["path"]) / "tokenizer", run_dir / "export"]
    found = [place for place in places if has_tokenizer(place)]
    if not found:
        raise UserError(
            f"{run_dir}: its tokenizer is neither in {places[0]} nor in {places[1]}; give its "
            "folder as `tokenizer`"
        )
    return found[0]


def find_checkpoint(path: str) -> tuple[epath.Path, int] | None:
    """(checkpoints folder, step) of a run directory (its newest) or of one step's folder.

    Raises:
      UserError: it is a run directory without a checkpoint, or the checkpoint is damaged.
    """
    folder = place(path)
    if folder.parent.name == "checkpoints" and folder.name.isdigit():
        directory, step = folder.parent, int(folder.name)
        if step not in saved_steps(directory):
            raise UserError(f"{path}: no such checkpoint; there are {saved_steps(directory)}")
    elif (folder / "checkpoints").is_dir():
        directory = folder / "checkpoints"
        if not saved_steps(directory):
            raise UserError(f"{path}: the run has no checkpoint yet; let it reach one first")
        step = saved_steps(directory)[-1]
    else:
        return None
    problem = verify(directory, step)
    if problem:
        raise UserError(
            f"{directory}: checkpoint {step} is damaged ({problem}); name another step of "
            f"{saved_steps(directory)} as {directory}/STEP"
        )
    return directory, step
