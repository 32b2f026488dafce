"""Hugging Face folders both ways: `load_pretrained` and `save_pretrained`.

A folder holds config.json, weights (`tensors.py`), and mostly a tokenizer (`tokenizer.py`). Names
and layouts of the tensors are `names.py`'s, config.json is `config.py`'s. Parameters go one by one
from the file to their devices (large ones layer by layer) and back, so that no host holds a model
whole.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from medjax.config import UserError
from medjax.data.output import new_folder
from medjax.hub.config import from_hf, with_tying
from medjax.hub.export import check_replaceable, listed, write_config
from medjax.hub.names import (
    Pieces,
    from_hf_tensors,
    is_of_images,
    iterate_hf_tensors,
    stored_parts,
    stored_tying,
    table,
)
from medjax.hub.resize import resize_parameter
from medjax.hub.tensors import DTYPES, Tensor, open_tensors, read_json, write_tensors
from medjax.hub.tokenizer import check_vocabulary
from medjax.models.config import Compute, ModelConfig
from medjax.models.held import Held, hold
from medjax.models.model import Model, Params, build_model, model_specs
from medjax.models.spec import init_params

log = logging.getLogger(__name__)

WHOLE = 2**28  # bytes; a stack of layers beyond it never passes through the host whole

_KNOWN_PARTS = {  # of classes whose tensors do not tell
    ("t5", "T5EncoderModel"): (),
    ("t5", "T5Model"): ("decoder",),
    ("gpt2", "GPT2LMHeadModel"): ("lm_head",),  # whose published files are those of the bare model
}


def load_pretrained(
    folder: str | Path,
    compute: Compute | None = None,
    parts: Sequence[str] | None = None,
    *,
    shardings: Any = None,
    vocab_size: int | None = None,
    seed: int = 0,
    held: Held = "float32",
) -> tuple[Model, Params]:
    """A model and its parameters from a Hugging Face folder, ours or anyone's.

    Args:
      compute: how the model is run; none: the defaults (bfloat16).
      parts: optional pieces of the model ("lm_head", "pooler", "decoder"); none: those that the
        folder holds. A part that it does not hold is initialised from `seed` and reported; stored
        tensors that no part takes are reported too.
      shardings: a tree of NamedSharding like the parameters, or a function that makes it from the
        model's Spec tree; none: everything on the default device.
      vocab_size: the wanted vocabulary; another size than the stored one resizes as transformers'
        `resize_token_embeddings` does, and is reported.
      held: type of the layers' matrices; bfloat16 and int8 are for inference (`models/held.py`).

    Raises:
      UserError: for whatever is missing, damaged, unsupported or does not fit together, by name.
    """
    folder = Path(folder)
    values, stored, config = _open(folder)
    if parts is None:
        headless = _parts_of_class(values)
        parts = stored_parts(config, stored) if headless is None else headless
    parts = tuple(parts)
    wanted = config if vocab_size is None else _with_vocabulary(config, vocab_size)
    if vocab_size is None:
        check_vocabulary(folder, config.vocab_size)
    model = build_model(wanted, compute, parts)
    specs = flatten_dict(model.specs, sep="/")
    shardings = flatten_dict(
        shardings(model.specs) if callable(shardings) else shardings or {}, sep="/"
    )

    def place(path: str, pieces: Pieces) -> jax.Array:
        if pieces.layered and math.prod(pieces.spec.shape) * 4 > WHOLE:
            value = _layer_by_layer(pieces, shardings.get(path))
        else:
            value = resize_parameter(pieces.whole(), specs[path], config.vocab_size, seed)
            value = _on_devices(value, shardings.get(path))
        return hold(path, specs[path], value, held)

    try:
        params, missing, unused = from_hf_tensors(
            lambda name: stored[name].read(), stored, config, parts, place
        )
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    _check_complete(folder, values, config, missing, unused, parts)
    params = flatten_dict(params, sep="/") | _fresh(specs, missing, shardings, seed)
    _report(folder, missing, unused, config.vocab_size, wanted.vocab_size)
    return model, unflatten_dict(params, sep="/")


def read_config(folder: str | Path) -> ModelConfig:
    """The configuration of the model in a Hugging Face folder, its embedding tying included."""
    return _open(Path(folder))[2]


def save_pretrained(
    folder: str | Path,
    model: Model,
    params: Params,
    tokenizer: Any = None,
    card: str | None = None,
    dtype: str = "float32",
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes a folder that transformers (torch) and `load_pretrained` read.

    Every process of a run must call it; process 0 writes. An earlier export in `folder` is
    replaced whole once the new one is complete; without `tokenizer`, its tokenizer stays.

    Args:
      tokenizer: a folder with tokenizer files, or an object of transformers or tokenizers.
      card: text of README.md (`card.model_card`).
      dtype: of the stored weights, "float32" or "bfloat16".
      max_shard_bytes: larger models are divided into several files.

    Raises:
      UserError: `params` are not the model's, the tokenizer has more ids than the vocabulary, or
        the folder cannot be written; an incomplete export is never left under its name.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} cannot be exported; choose {' or '.join(DTYPES)}")
    folder, parts = Path(folder), _check_params(model, params)
    tensors = iterate_hf_tensors(params, model.config, parts, _gather)
    if jax.process_index() != 0:
        for _ in tensors:  # takes part in gathering
            pass
    else:
        kept = check_replaceable(folder)
        with new_folder(folder) as new:
            write_config(new, model.config, parts, dtype, kept if tokenizer is None else tokenizer)
            if card is not None:
                (new / "README.md").write_text(card, encoding="utf-8")
            shapes = iterate_hf_tensors(params, model.config, parts, _shape_alone)
            counts = {name: array.size for name, array in shapes}
            write_tensors(new, tensors, counts, dtype, max_shard_bytes)
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices("save_pretrained")


def _open(folder: Path) -> tuple[dict, dict[str, Tensor], ModelConfig]:
    """config.json, the tensors unread, and the configuration."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give one with config.json and weights (a model of the "
            "Hugging Face hub has to be downloaded first)"
        )
    values = read_json(folder / "config.json")
    try:
        config = from_hf(values)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    stored = open_tensors(folder)
    if config.model_type == "t5" and _parts_of_class(values) is not None:
        # No output table tells; v1.0 alone scales the states of its tied head.
        return values, stored, with_tying(config, config.scaled_head)
    return values, stored, stored_tying(config, lambda name: stored[name].read(), stored)


def _parts_of_class(values: dict) -> tuple[str, ...] | None:
    return _KNOWN_PARTS.get((values["model_type"], _architecture(values)))


def _architecture(values: dict) -> str:
    return ", ".join(values.get("architectures") or ["not stated"])


def _with_vocabulary(config: ModelConfig, vocab_size: int) -> ModelConfig:
    if vocab_size < 1:
        raise UserError(f"vocab_size {vocab_size} must be at least 1")
    return config.model_copy(update={"vocab_size": vocab_size})


def _on_devices(value: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    if sharding is None:
        return jax.device_put(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _layer_by_layer(pieces: Pieces, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """A stacked parameter put together on its devices; the host holds one layer at a time."""
    shape, dtype = pieces.spec.shape, pieces.spec.dtype
    of_layer = None
    if sharding is not None:
        of_layer = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    stack = jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)()
    put = jax.jit(
        lambda stack, piece, layer: stack.at[layer].set(piece),
        donate_argnums=0,
        out_shardings=sharding,
    )
    for layer, piece in enumerate(pieces.each):
        stack = put(stack, _on_devices(piece, of_layer), layer)
        stack.block_until_ready()  # or the host would read on and hold many layers
    return stack


def _fresh(specs: dict, missing: Sequence[str], shardings: dict, seed: int) -> dict[str, Any]:
    """Initial values of what the folder does not hold: those that `model.init` gives them."""
    if not missing:
        return {}
    tree = unflatten_dict({path: specs[path] for path in missing}, sep="/")
    placed = unflatten_dict({path: shardings.get(path) for path in missing}, sep="/")
    init = jax.jit(lambda key: init_params(tree, key), out_shardings=placed)
    return flatten_dict(init(jax.random.key(seed)), sep="/")


def _check_complete(
    folder: Path,
    values: dict,
    config: ModelConfig,
    missing: Sequence[str],
    unused: Sequence[str],
    parts: Sequence[str],
) -> None:
    """Refuses a folder without some of the backbone's tensors, or with layers beyond it."""
    backbone = flatten_dict(model_specs(config, ()), sep="/")
    entries = table(config, parts)
    absent = [entries[path].names[0].format(layer=0) for path in missing if path in backbone]
    if absent:
        raise UserError(
            f"{folder}: the weights lack {listed(absent)}, which every {config.model_type} model "
            f"has (config.json: architectures {_architecture(values)}); take the weights and the "
            "configuration from the same model"
        )
    known = {_any_layer(name) for entry in entries.values() for name in entry.names}
    unknown = [name for name in unused if not is_of_images(name)]
    beyond = [n for n in unknown if any(_any_layer(n).endswith(k) for k in known)]
    if beyond:
        raise UserError(
            f"{folder}: the weights hold {listed(beyond)} beyond the layers that config.json "
            "says; the two files do not belong together"
        )


def _any_layer(name: str) -> str:
    return re.sub(r"\.(\d+|\{layer\})(?=\.)", ".#", f".{name}")


def _report(
    folder: Path, missing: Sequence[str], unused: Sequence[str], old_size: int, new_size: int
) -> None:
    if missing:
        log.warning("%s: newly initialised, not in the weights: %s", folder, listed(missing))
    if unused:
        images = sum(map(is_of_images, unused))
        if images:
            log.info("%s: %d tensors for images are left out: the text model alone", folder, images)
        others = [name for name in unused if not is_of_images(name)]
        if others:
            log.warning("%s: not used of the weights: %s", folder, listed(others))
    if new_size > old_size:
        more = f"{new_size - old_size} rows drawn around the mean of the others"
        log.info("%s: vocabulary %d -> %d, %s", folder, old_size, new_size, more)
    elif new_size < old_size:
        log.info("%s: vocabulary %d -> %d, the last rows cut off", folder, old_size, new_size)


def _check_params(model: Model, params: Params) -> tuple[str, ...]:
    """The model's parts, told from its Spec tree; `params` must fit that tree."""
    expected = {p: s.shape for p, s in flatten_dict(model.specs, sep="/").items()}
    given = {p: np.shape(a) for p, a in flatten_dict(params, sep="/").items()}
    wrong = [p for p in expected | given if expected.get(p) != given.get(p)]
    if wrong:
        path = wrong[0]
        raise UserError(
            f"the parameters are not this model's: {path} should have shape {expected.get(path)} "
            f"but has {given.get(path)} ({len(wrong)} differ); pass the model that made them"
        )
    parts = [part for part in ("decoder", "pooler") if part in model.specs]
    return tuple(parts + ["lm_head"] * (model.head is not None))


def _gather(leaf: Any) -> np.ndarray:
    """A parameter as one array on this host; a collective if devices of others hold parts of it."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        from jax.experimental.multihost_utils import process_allgather

        return process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _shape_alone(leaf: Any) -> np.ndarray:
    """An array of the parameter's shape that takes no memory."""
    return np.broadcast_to(np.float32(0), np.shape(leaf))
