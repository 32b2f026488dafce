"""Which Hugging Face tensor each of our parameters is: one table per family, for both directions.

A table maps the path of a module in our tree to the name of the module in transformers; the kind
of leaf (kernel, scale, bias, table) decides suffix and layout. Kernels are [in, out...] here and
[out, in] there, with heads flattened and layers apart. `hub/folder.py` reads and writes the files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from medjax.config import UserError
from medjax.hub.config import with_tying
from medjax.models.config import (
    BertConfig,
    DecoderConfig,
    ModelConfig,
    ModernBertConfig,
    T5Config,
)
from medjax.models.model import model_specs
from medjax.models.spec import Spec, path_name

Params = dict[str, Any]
Get = Callable[[str], np.ndarray]


class Pieces(NamedTuple):
    """A parameter that is about to be read."""

    spec: Spec
    layered: bool
    """It is stacked over layers."""
    each: Iterator[np.ndarray]
    """Its layers one by one, or all of it once."""

    def whole(self) -> np.ndarray:
        """All of it."""
        if not self.layered:
            return next(self.each)
        value = np.empty(self.spec.shape, self.spec.dtype)
        for layer, piece in enumerate(self.each):
            value[layer] = piece
        return value


class Entry(NamedTuple):
    """One parameter in transformers' terms; names hold `{layer}` where ours is stacked."""

    names: tuple[str, ...]
    """Without the base model's prefix: the name it is written under, then others it may have."""
    spec: Spec
    transposed: bool
    first_layer: int = 0
    """Layer in transformers of our layer 0."""


_T5_BLOCK = {
    "attention/norm": "layer.0.layer_norm",
    "cross_attention/norm": "layer.1.layer_norm",
    **{f"attention/{x}": f"layer.0.SelfAttention.{x}" for x in "qkvo"},
    **{f"cross_attention/{x}": f"layer.1.EncDecAttention.{x}" for x in "qkvo"},
}


def _t5_modules(config: T5Config) -> dict[str, str]:
    modules = {"shared": "shared", "lm_head": "lm_head"}
    up = {"gate": "wi_0", "up": "wi_1"} if config.gated else {"up": "wi"}
    for stack, last in (("encoder", "layer.1"), ("decoder", "layer.2")):
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias"
        block = {**_T5_BLOCK, "mlp/norm": f"{last}.layer_norm"}
        for ours, theirs in {**up, "down": "wo"}.items():
            block[f"mlp/{ours}"] = f"{last}.DenseReluDense.{theirs}"
        modules |= {f"{stack}/layers/{k}": f"{stack}.block.{{layer}}.{v}" for k, v in block.items()}
        modules |= {f"{stack}/relative_bias": f"{stack}.{bias}"}
        modules |= {f"{stack}/norm": f"{stack}.final_layer_norm"}
    return modules


def _bert_modules(config: BertConfig) -> dict[str, str]:
    attention = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
    layer = {f"attention/{k}": f"attention.{v}" for k, v in attention.items()}
    layer |= {"mlp/up": "intermediate.dense", "mlp/down": "output.dense"}
    if config.model_type == "megatron-bert":
        layer |= {"attention/norm": "attention.ln", "mlp/norm": "ln"}
    else:
        layer |= {"attention/norm": "attention.output.LayerNorm", "mlp/norm": "output.LayerNorm"}
    embeddings = {k: f"embeddings.{k}_embeddings" for k in ("word", "position", "token_type")}
    head, norm = "cls.predictions.transform", "cls.predictions.transform.LayerNorm"
    if config.model_type == "roberta":
        head, norm = "lm_head", "lm_head.layer_norm"
    return {
        **{f"embeddings/{k}": v for k, v in embeddings.items()},
        "embeddings/norm": "embeddings.LayerNorm",
        **{f"layers/{k}": f"encoder.layer.{{layer}}.{v}" for k, v in layer.items()},
        "norm": "encoder.ln",
        "pooler": "pooler.dense",
        "lm_head/dense": f"{head}.dense",
        "lm_head/norm": norm,
    }


def _modernbert_modules(config: ModernBertConfig) -> dict[str, str]:
    layer = {
        "attention/norm": "attn_norm",
        "attention/qkv": "attn.Wqkv",
        "attention/o": "attn.Wo",
        "mlp/norm": "mlp_norm",
        "mlp/gate_up": "mlp.Wi",
        "mlp/down": "mlp.Wo",
    }
    return {
        "embeddings/word": "embeddings.tok_embeddings",
        "embeddings/norm": "embeddings.norm",
        **{f"layers/{k}": f"layers.{{layer}}.{v}" for k, v in layer.items()},
        "norm": "final_norm",
        "lm_head/dense": "head.dense",
        "lm_head/norm": "head.norm",
    }


def _decoder_modules(config: DecoderConfig) -> dict[str, str]:
    layer = {f"attention/{x}": f"self_attn.{x}_proj" for x in "qkvo"}
    layer |= {f"attention/{x}_norm": f"self_attn.{x}_norm" for x in "qk"}
    layer |= {f"mlp/{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")}
    layer |= {"attention/norm": "input_layernorm", "mlp/norm": "post_attention_layernorm"}
    if config.is_gemma:
        layer |= {
            "attention/post_norm": "post_attention_layernorm",
            "mlp/norm": "pre_feedforward_layernorm",
            "mlp/post_norm": "post_feedforward_layernorm",
        }
    return {
        "embeddings/word": "embed_tokens",
        **{f"layers/{k}": f"layers.{{layer}}.{v}" for k, v in layer.items()},
        "norm": "norm",
        "lm_head": "lm_head",
    }


def _gpt2_modules(config: DecoderConfig) -> dict[str, str]:
    layer = {
        "attention/norm": "ln_1",
        "attention/qkv": "attn.c_attn",
        "attention/o": "attn.c_proj",
        "mlp/norm": "ln_2",
        "mlp/up": "mlp.c_fc",
        "mlp/down": "mlp.c_proj",
    }
    return {
        "embeddings/word": "wte",
        "embeddings/position": "wpe",
        **{f"layers/{k}": f"h.{{layer}}.{v}" for k, v in layer.items()},
        "norm": "ln_f",
        "lm_head": "lm_head",
    }


class _Family(NamedTuple):
    """What differs between families besides the modules."""

    modules: Callable[[Any], dict[str, str]]
    prefix: str
    """Of the base model's tensors in a model with a head."""
    outside: tuple[str, ...]
    """Beginnings of the names that never have the prefix."""
    input_table: str
    output_table: str
    output_bias: tuple[str, ...]
    architectures: tuple[str, str]
    """Without and with the LM head."""


def _bert_family(prefix: str, head: str, name: str) -> _Family:
    decoder = f"{head}.decoder"
    return _Family(
        _bert_modules,
        prefix,
        (head.split(".")[0],),
        "embeddings.word_embeddings.weight",
        f"{decoder}.weight",
        (f"{head}.bias", f"{decoder}.bias"),
        (f"{name}Model", f"{name}ForMaskedLM"),
    )


def _decoder_family(name: str) -> _Family:
    return _Family(
        _decoder_modules,
        "model.",
        ("lm_head",),
        "embed_tokens.weight",
        "lm_head.weight",
        (),
        (f"{name}{'TextModel' if 'Gemma' in name else 'Model'}", f"{name}ForCausalLM"),
    )


_FAMILIES = {
    "t5": _Family(
        _t5_modules,
        "",
        (),
        "shared.weight",
        "lm_head.weight",
        (),
        ("T5EncoderModel", "T5ForConditionalGeneration"),
    ),
    "bert": _bert_family("bert.", "cls.predictions", "Bert"),
    "roberta": _bert_family("roberta.", "lm_head", "Roberta"),
    "megatron-bert": _bert_family("bert.", "cls.predictions", "MegatronBert"),
    "modernbert": _Family(
        _modernbert_modules,
        "model.",
        ("head.", "decoder."),
        "embeddings.tok_embeddings.weight",
        "decoder.weight",
        ("decoder.bias",),
        ("ModernBertModel", "ModernBertForMaskedLM"),
    ),
    "llama": _decoder_family("Llama"),
    "mistral": _decoder_family("Mistral"),
    "qwen3": _decoder_family("Qwen3"),
    "gemma3_text": _decoder_family("Gemma3"),
    "gpt2": _Family(
        _gpt2_modules,
        "transformer.",
        ("lm_head",),
        "wte.weight",
        "lm_head.weight",
        (),
        ("GPT2Model", "GPT2LMHeadModel"),
    ),
}
_TEXT_PART = "language_model."  # of a Gemma 3 that reads images, too
_IMAGE_PARTS = ("vision_tower.", "multi_modal_projector.")
_CAUSAL_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # in old files of GPT-2
_T5_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_BUFFERS = (  # stored by some versions of transformers, no parameters of the model
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)


def table(config: ModelConfig, parts: Collection[str] = ("lm_head",)) -> dict[str, Entry]:
    """Our path (`encoder/layers/mlp/up/kernel`) -> what it is in transformers, for every leaf."""
    family = _FAMILIES[config.model_type]
    modules = family.modules(config)
    tied = config.tie_word_embeddings
    entries = {}
    for key_path, spec in jax.tree.leaves_with_path(model_specs(config, parts)):
        path = path_name(key_path)
        module, _, leaf = path.rpartition("/")
        if path in modules:
            names = (f"{modules[path]}.weight",)
        elif path == "lm_head/table":
            names = (family.output_table,)
        elif path == "lm_head/bias":
            names = family.output_bias if tied else family.output_bias[::-1]
        else:
            names = (f"{modules[module]}.{'bias' if leaf == 'bias' else 'weight'}",)
        if names == (family.input_table,):
            names += _T5_EMBEDDINGS if config.model_type == "t5" else ()
            names += (family.output_table,) if tied else ()
        first = int(path.startswith("layers/attention/norm/") and config.model_type == "modernbert")
        transposed = leaf == "kernel" and config.model_type != "gpt2"  # whose are [in, out]
        entries[path] = Entry(names, spec, transposed, first)
    return entries


def base_prefix(config: ModelConfig, use: str) -> str:
    """What stands before the backbone's tensor names in a model with a task's head."""
    if use == "answer" and isinstance(config, DecoderConfig):
        return "transformer."
    return _FAMILIES[config.model_type].prefix


def architecture(config: ModelConfig, parts: Collection[str]) -> str:
    """The transformers class that these parts make up, for `architectures` in config.json."""
    if config.model_type == "t5" and "decoder" in parts and "lm_head" not in parts:
        return "T5Model"
    return _FAMILIES[config.model_type].architectures["lm_head" in parts]


def stored_parts(config: ModelConfig, names: Collection[str]) -> tuple[str, ...]:
    """The optional parts whose tensors are stored; a T5 with a decoder is taken to have a head."""
    found = {_canonical(name, config) for name in names}
    if config.model_type == "t5":
        return ("lm_head",) if any(n.startswith("decoder.block") for n in found) else ()
    if isinstance(config, DecoderConfig):  # a bare model's names have no prefix
        prefix = _FAMILIES[config.model_type].prefix
        has_prefix = any(n.startswith((prefix, f"{_TEXT_PART}{prefix}")) for n in names)
        return ("lm_head",) if has_prefix else ()
    modules = _FAMILIES[config.model_type].modules(config)
    homes = {"lm_head": "lm_head/dense", "pooler": "pooler"}
    return tuple(p for p, home in homes.items() if f"{modules.get(home)}.weight" in found)


def stored_tying(config: ModelConfig, get: Get, names: Collection[str]) -> ModelConfig:
    """The configuration, tying input and output tables if the stored tensors do.

    transformers 5 writes `tie_word_embeddings: true` for every T5 and unties when two different
    tables are stored; some files hold a tied table twice.
    """
    family, stored = _FAMILIES[config.model_type], {_canonical(n, config): n for n in names}
    tables = [stored[t] for t in (family.input_table, family.output_table) if t in stored]
    same = len(tables) < 2 or np.array_equal(*map(get, tables))
    if config.model_type == "t5":
        return with_tying(config, same) if "lm_head" in stored_parts(config, names) else config
    return with_tying(config, config.tie_word_embeddings and same)


def from_hf_tensors(
    get: Get,
    names: Collection[str],
    config: ModelConfig,
    parts: Collection[str],
    place: Callable[[str, Pieces], Any] = lambda path, pieces: pieces.whole(),
) -> tuple[Params, list[str], list[str]]:
    """Our parameters from stored tensors, read one by one, as float32 NumPy arrays.

    Args:
      get: returns the tensor of a name.
      place: takes each parameter's path and what it is read by, and returns what stands for it in
        the result; nothing is held any longer.

    Returns:
      The parameters, with None at leaves that are not stored at all; the paths of those; and the
      stored names that belong to nothing here (other heads), without known duplicates.

    Raises:
      UserError: a tensor has another shape than the configuration asks for, or some layers lack it.
    """
    stored = {_canonical(name, config): name for name in names}
    params: Params = {}
    missing, used = [], set(_BUFFERS)
    for path, entry in table(config, parts).items():
        layered = "layers" in entry.spec.axes
        layers = entry.spec.shape[0] if layered else 1
        found = [_find(entry, i + entry.first_layer, stored) for i in range(layers)]
        used |= {n.format(layer=i + entry.first_layer) for n in entry.names for i in range(layers)}
        if not any(found):
            missing.append(path)
            value = None
        elif not all(found):
            name = entry.names[0].format(layer=found.index(None) + entry.first_layer)
            raise UserError(
                f"tensor {name} is not stored, but it is for other layers; the file is "
                "damaged or config.json says more layers than it holds"
            )
        else:
            value = place(path, Pieces(entry.spec, layered, _pieces(entry, found, layered, get)))
        *parents, leaf = path.split("/")
        home = params
        for parent in parents:
            home = home.setdefault(parent, {})
        home[leaf] = value
    unused = [n for c, n in stored.items() if c not in used and not _CAUSAL_MASK.fullmatch(c)]
    return params, missing, sorted(unused)


def to_hf_tensors(
    params: Params, config: ModelConfig, parts: Collection[str]
) -> dict[str, np.ndarray]:
    """Tensors under transformers' names, without the vocabulary's padding, tied ones once.

    The arrays may be views that are not contiguous.
    """
    return dict(iterate_hf_tensors(params, config, parts))


def iterate_hf_tensors(
    params: Params,
    config: ModelConfig,
    parts: Collection[str],
    fetch: Callable[[Any], np.ndarray] = np.asarray,
) -> Iterator[tuple[str, np.ndarray]]:
    """`to_hf_tensors` one by one; `fetch` brings each parameter to the host when its turn comes."""
    family, entries = _FAMILIES[config.model_type], table(config, parts)
    for key_path, leaf in jax.tree.leaves_with_path(params):
        entry = entries[path_name(key_path)]
        value = fetch(leaf)[tuple(slice(size) for size in entry.spec.unpadded)]
        layered = "layers" in entry.spec.axes
        names = entry.names[:1]
        if not config.tie_word_embeddings and set(entry.names) == set(family.output_bias):
            names = entry.names  # transformers 5 has two biases then, of which it uses the first
        for layer, tensor in enumerate(value if layered else [value]):
            shape = _stored_shape(entry)
            tensor = tensor.reshape(shape[::-1]).T if entry.transposed else tensor.reshape(shape)
            for name in names:
                name = name.format(layer=layer + entry.first_layer)
                inside = "lm_head" in parts and not name.startswith(family.outside or "\0")
                yield family.prefix + name if inside else name, tensor


def _canonical(name: str, config: ModelConfig) -> str:
    """A stored name without its base prefix, and with today's names of norm parameters."""
    prefix = _FAMILIES[config.model_type].prefix or "transformer."
    if config.model_type == "gemma3_text":
        name = name.removeprefix(_TEXT_PART)
    name = name.removeprefix(prefix)
    if config.model_type == "gemma3_text":
        name = name.removeprefix(_TEXT_PART)
    if isinstance(config, DecoderConfig):
        name = name.removeprefix("transformer.")  # in transformers' question answering
    if name.endswith((".gamma", ".beta")):
        stem, _, leaf = name.rpartition(".")
        return f"{stem}.{'weight' if leaf == 'gamma' else 'bias'}"
    return name


def is_of_images(name: str) -> bool:
    """Whether a stored tensor belongs to the part of a model that reads images."""
    return name.removeprefix("model.").startswith(_IMAGE_PARTS)


def _find(entry: Entry, layer: int, stored: dict[str, str]) -> str | None:
    candidates = (name.format(layer=layer) for name in entry.names)
    return next((stored[name] for name in candidates if name in stored), None)


def _stored_shape(entry: Entry) -> tuple[int, ...]:
    """The shape in transformers, of one layer."""
    shape = entry.spec.unpadded["layers" in entry.spec.axes :]
    rows = entry.spec.rows
    if not entry.transposed:
        return (math.prod(shape[:rows]), math.prod(shape[rows:])) if rows else (math.prod(shape),)
    return math.prod(shape[rows:]), math.prod(shape[:rows])


def _pieces(entry: Entry, names: Sequence[str], layered: bool, get: Get) -> Iterator[np.ndarray]:
    """The parts of one leaf, layer by layer, padded to the vocabulary in memory."""
    spec, expected = entry.spec, _stored_shape(entry)
    shape, unpadded = (own[1:] if layered else own for own in (spec.shape, spec.unpadded))
    for name in names:
        tensor = get(name)
        if tensor.shape != expected:
            raise UserError(
                f"tensor {name} has shape {tuple(tensor.shape)}, but config.json asks for "
                f"{expected}; the two files do not belong together"
            )
        value = np.zeros(shape, spec.dtype)
        real = value[tuple(slice(size) for size in unpadded)]
        real[...] = (tensor.T if entry.transposed else tensor).reshape(real.shape)
        yield value
