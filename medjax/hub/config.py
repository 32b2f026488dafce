"""How a Hugging Face `config.json` maps to a model configuration (`medjax/models/config.py`).

Both spellings, of transformers 4 and 5, are read, and what is written is read alike by both. What
a `config.json` holds besides (labels, token ids, generation settings) is `hub/folder.py`'s.
Nothing here imports JAX.
"""

from __future__ import annotations

from typing import Any

import pydantic

from medjax.config import UserError
from medjax.models.config import BertConfig, ModelConfig, ModernBertConfig, T5Config

_ONLY = {  # values of other config.json fields that change the computation: all that we know
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "rope_scaling": (None,),
}


def from_hf(values: dict) -> ModelConfig:
    """The configuration in a Hugging Face `config.json` (transformers 4 and 5 spellings).

    Whether output and input embeddings are one table is only known with the tensors, because
    transformers 5 writes `tie_word_embeddings: true` for every T5: see `names.stored_tying`.

    Raises:
      UserError: naming the field and the value that no model here can represent.
    """
    model_type = values.get("model_type")
    schemas = {"t5": T5Config, "modernbert": ModernBertConfig}
    schemas |= dict.fromkeys(("bert", "roberta", "megatron-bert"), BertConfig)
    if model_type not in schemas:
        known = ", ".join(schemas)
        raise UserError(
            f"config.json: model_type = {model_type!r} is not supported; known: {known}"
        )
    for name, allowed in _ONLY.items():
        if values.get(name) not in allowed:
            raise UserError(
                f"config.json: {name} = {values[name]!r} is not supported; "
                f"a {model_type} here has {allowed[-1]!r}"
            )
    schema = schemas[model_type]
    fields = {k: v for k, v in values.items() if k in schema.model_fields and v is not None}
    if model_type == "modernbert":
        fields |= _rotary(values) | _pattern(values)
    elif model_type == "t5":
        if fields.get("num_decoder_layers") == fields.get("num_layers"):
            fields.pop("num_decoder_layers", None)
        if fields.get("scale_decoder_outputs") == fields.get("tie_word_embeddings", True):
            fields.pop("scale_decoder_outputs", None)
    try:
        return schema(**fields)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        shown = f"{name} = {first['input']!r}: " if name else ""
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"config.json: {shown}{message}") from None


def with_tying(config: ModelConfig, tied: bool) -> ModelConfig:
    """The configuration with one table for input and output, or two; a T5's scaling stays."""
    if tied == config.tie_word_embeddings:
        return config
    update: dict[str, Any] = {"tie_word_embeddings": tied}
    if isinstance(config, T5Config):
        scaled = config.scaled_head
        update["scale_decoder_outputs"] = None if scaled == tied else scaled
    return config.model_copy(update=update)


def _rotary(values: dict) -> dict:
    """Rotary bases from `rope_parameters` (transformers 5) or the flat fields before it."""
    bases = {"global_rope_theta": "full_attention", "local_rope_theta": "sliding_attention"}
    found = {}
    for name, kind in bases.items():
        rope = (values.get("rope_parameters") or {}).get(kind) or {}
        extra = {k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")}
        if rope.get("rope_type", "default") != "default" or extra:
            raise UserError(
                f"config.json: rope_parameters.{kind} = {rope!r} is not supported; "
                "only rope_type 'default' with a rope_theta is"
            )
        if "rope_theta" in rope:
            found[name] = rope["rope_theta"]
    if "local_rope_theta" in values and values["local_rope_theta"] is None:  # as transformers 4
        found.setdefault("local_rope_theta", values.get("global_rope_theta", 160_000.0))
    return found


def _pattern(values: dict) -> dict:
    """`global_attn_every_n_layers` from `layer_types` (transformers 5)."""
    kinds = values.get("layer_types")
    if kinds is None:
        return {}
    later = [i for i, kind in enumerate(kinds) if i and kind == "full_attention"]
    every = later[0] if later else max(len(kinds), 1)
    if list(kinds) != _layer_types(len(kinds), every):
        raise UserError(
            "config.json: layer_types is no regular pattern; only full_attention every n layers, "
            "from the first on, with sliding_attention between is supported"
        )
    return {"global_attn_every_n_layers": every}


def _layer_types(layers: int, every: int) -> list[str]:
    return ["sliding_attention" if i % every else "full_attention" for i in range(layers)]


def to_hf(config: ModelConfig) -> dict:
    """The `config.json` of a configuration, read alike by transformers 4 and 5.

    Special token ids are the tokenizer's; the caller adds them over the ones here.
    """
    values = config.model_dump()
    if isinstance(config, T5Config):
        values |= {
            "num_decoder_layers": config.decoder_layers,
            "is_encoder_decoder": True,
            "decoder_start_token_id": 0,
            # transformers 4 reads the scaling off tie_word_embeddings, 5 off the second field,
            # and ties unless the file holds a second table.
            "tie_word_embeddings": config.tie_word_embeddings and config.scaled_head,
            "scale_decoder_outputs": config.scaled_head,
        }
    elif isinstance(config, ModernBertConfig):
        every = config.global_attn_every_n_layers
        thetas = {
            "full_attention": config.global_rope_theta,
            "sliding_attention": config.local_rope_theta,
        }
        values |= {
            "layer_types": _layer_types(config.num_hidden_layers, every),
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": theta}
                for kind, theta in thetas.items()
            },
            # transformers' defaults are ids of its own vocabulary, out of range in another
            **dict.fromkeys(("pad_token_id", "cls_token_id", "bos_token_id"), None),
            **dict.fromkeys(("sep_token_id", "eos_token_id"), None),
        }
    return values
