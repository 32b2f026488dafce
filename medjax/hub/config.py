"""How a Hugging Face `config.json` maps to a model configuration (`medjax/models/config.py`).

Both spellings, of transformers 4 and 5, are read, and what is written is read alike by both. What
a `config.json` holds besides (labels, token ids, generation settings) is `hub/folder.py`'s.
Nothing here imports JAX.
"""

from __future__ import annotations

from typing import Any

import pydantic

from medjax.config import UserError
from medjax.models.config import (
    BertConfig,
    DecoderConfig,
    ModelConfig,
    ModernBertConfig,
    T5Config,
)

_ONLY = {  # values of other config.json fields that change the computation: all that we know
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "rope_scaling": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_bidirectional_attention": (None, False),
}
_DECODERS = ("llama", "mistral", "qwen3", "gemma3_text", "gpt2")
_GPT2 = {  # our names of its fields
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
    "hidden_act": "activation_function",
    "rms_norm_eps": "layer_norm_epsilon",
    "attention_dropout": "attn_pdrop",
    "hidden_dropout": "resid_pdrop",
}
_ROPE_FIELDS = ("rope_type", "factor", "low_freq_factor", "high_freq_factor")
_ROPE_FIELDS += ("original_max_position_embeddings",)


def from_hf(values: dict) -> ModelConfig:
    """The configuration in a Hugging Face `config.json` (transformers 4 and 5 spellings).

    Whether output and input embeddings are one table is only known with the tensors, because
    transformers 5 writes `tie_word_embeddings: true` for every T5: see `names.stored_tying`.

    Raises:
      UserError: naming the field and the value that no model here can represent.
    """
    model_type = values.get("model_type")
    if model_type == "gemma3":  # reads images, too: its text model alone
        model_type, text = "gemma3_text", values.get("text_config")
        if not isinstance(text, dict):
            raise UserError("config.json: a gemma3 without text_config is not supported")
        values = {**text, "model_type": model_type}
    schemas = {"t5": T5Config, "modernbert": ModernBertConfig}
    schemas |= dict.fromkeys(("bert", "roberta", "megatron-bert"), BertConfig)
    schemas |= dict.fromkeys(_DECODERS, DecoderConfig)
    if model_type not in schemas:
        known = ", ".join(schemas)
        raise UserError(
            f"config.json: model_type = {model_type!r} is not supported; known: {known}"
        )
    for name, allowed in _ONLY.items():
        if name == "rope_scaling" and model_type in _DECODERS:
            continue
        if values.get(name) not in allowed:
            raise UserError(
                f"config.json: {name} = {values[name]!r} is not supported; "
                f"a {model_type} here has {allowed[-1]!r}"
            )
    schema = schemas[model_type]
    fields = {k: v for k, v in values.items() if k in schema.model_fields and v is not None}
    if model_type == "modernbert":
        fields |= _rotary(values) | _pattern(values)
    elif model_type == "gpt2":
        fields = {"model_type": model_type} | _gpt2_fields(values)
    elif model_type in _DECODERS:
        fields |= _decoder_fields(values)
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


def _decoder_fields(values: dict) -> dict:
    """Rotary settings, activation and windows of a decoder, in either spelling."""
    found: dict[str, Any] = {}
    if values["model_type"] in ("llama", "mistral") and "num_attention_heads" in values:
        heads = values["num_attention_heads"]
        if values.get("head_dim") == values.get("hidden_size", 0) / heads:
            found["head_dim"] = None
        if values["model_type"] == "llama" and values.get("num_key_value_heads") == heads:
            found["num_key_value_heads"] = None
    if values.get("hidden_activation") is not None:
        found["hidden_act"] = values["hidden_activation"]
    rope = values.get("rope_parameters") or {}
    wide = rope.get("full_attention", rope)
    near = rope.get("sliding_attention") or {}
    if not rope:
        wide = dict(values.get("rope_scaling") or {})
        wide["rope_type"] = wide.get("rope_type", wide.pop("type", "default"))
        wide |= {"rope_theta": values["rope_theta"]} if "rope_theta" in values else {}
    if "rope_theta" in wide:
        found["rope_theta"] = wide["rope_theta"]
    if "rope_theta" in near:
        found["rope_local_base_freq"] = near["rope_theta"]
    kind = wide.get("rope_type", "default")
    found["rope_scaling"] = None
    if kind != "default":
        known = {name: value for name, value in wide.items() if name in _ROPE_FIELDS}
        found["rope_scaling"] = known
        other = {n for n, v in wide.items() if v is not None} - {*_ROPE_FIELDS, "rope_theta"}
        if kind not in ("llama3", "linear") or other:
            raise UserError(
                f"config.json: rotary scaling {wide!r} is not supported; only llama3 and linear are"
            )
    return found | _sliding(values)


def _gpt2_fields(values: dict) -> dict:
    """A GPT-2's fields under our names."""
    others = {"embd_pdrop": values.get("resid_pdrop", 0.1), "scale_attn_weights": True}
    for name, wanted in others.items():
        if values.get(name, wanted) != wanted:
            raise UserError(
                f"config.json: {name} = {values[name]!r} is not supported; here it is {wanted!r}"
            )
    plain = ("vocab_size", "initializer_range", "tie_word_embeddings")
    plain += ("scale_attn_by_inverse_layer_idx",)
    names = {name: name for name in plain} | _GPT2
    found = {own: values[n] for own, n in names.items() if values.get(n) is not None}
    if "hidden_size" in found:
        found.setdefault("intermediate_size", 4 * found["hidden_size"])
    return found


def _sliding(values: dict) -> dict:
    """Window and pattern of a decoder's layers."""
    window = values.get("sliding_window")
    if values["model_type"] == "llama" or not values.get("use_sliding_window", True):
        window = None
    kinds = values.get("layer_types")
    if window is None or (kinds and set(kinds) == {"full_attention"}):
        return {"sliding_window": None, "global_attn_every_n_layers": None}
    every = values.get("sliding_window_pattern", values.get("_sliding_window_pattern"))
    if kinds:
        later = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
        every = later[0] + 1 if later else None
        if list(kinds) != _decoder_layer_types(len(kinds), every):
            raise UserError(
                "config.json: layer_types is no regular pattern; only full_attention every n "
                "layers, with sliding_attention before it, is supported"
            )
    if every is not None and kinds and every > len(kinds):
        every = None
    found = {"sliding_window": window}
    return found if every is None and not kinds else found | {"global_attn_every_n_layers": every}


def _decoder_layer_types(layers: int, every: int | None) -> list[str]:
    return [
        "full_attention" if every and i % every == every - 1 else "sliding_attention"
        for i in range(layers)
    ]


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
    elif config.model_type == "gpt2":
        plain = ("model_type", "vocab_size", "initializer_range", "tie_word_embeddings")
        plain += ("scale_attn_by_inverse_layer_idx",)
        ours, values = values, {name: values[name] for name in plain}
        values |= {theirs: ours[name] for name, theirs in _GPT2.items()}
        values["embd_pdrop"] = config.hidden_dropout
        values |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), None)
    elif isinstance(config, DecoderConfig):
        values = _decoder_values(config, values)
    return values


def _decoder_values(config: DecoderConfig, values: dict) -> dict:
    scaling = values.pop("rope_scaling")
    wide = {"rope_type": "default"} | {k: v for k, v in (scaling or {}).items() if v is not None}
    if wide["rope_type"] == "linear":
        wide = {name: wide[name] for name in ("rope_type", "factor")}
    wide["rope_theta"] = config.rope_theta
    for name in ("hidden_dropout", "scale_attn_by_inverse_layer_idx"):  # GPT-2's
        values.pop(name)
    every = values.pop("global_attn_every_n_layers")
    values["head_dim"] = config.head_size
    values["num_key_value_heads"] = config.key_value_heads
    values |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), None)
    if config.is_gemma:
        values["hidden_activation"] = values.pop("hidden_act")
        near = {"rope_type": "default", "rope_theta": config.rope_local_base_freq}
        values["rope_parameters"] = {"full_attention": wide, "sliding_attention": near}
    else:
        values.pop("rope_local_base_freq")
        values.pop("query_pre_attn_scalar")
        values["rope_parameters"] = wide
    if scaling:
        values["rope_scaling"] = {n: v for n, v in wide.items() if n != "rope_theta"}
    if config.model_type in ("qwen3", "gemma3_text"):
        kinds = _decoder_layer_types(config.num_hidden_layers, every)
        full = ["full_attention"] * config.num_hidden_layers
        values["layer_types"] = kinds if config.sliding_window else full
        values["use_sliding_window"] = config.sliding_window is not None
    return values
