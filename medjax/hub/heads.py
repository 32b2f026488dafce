"""A fine-tuned backbone with its head as a Hugging Face folder, and back.

The folder is what `AutoModelForSequenceClassification`, `...TokenClassification` and
`...QuestionAnswering` load, with label names; `medjax.json` beside it holds what such a folder has
no place for (cleaning, length rules, thresholds). A user's own head has no class there: its weights
are stored under `medjax_head.`, and the folder loads as the bare model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from medjax.config import UserError
from medjax.data.output import new_folder
from medjax.hub.export import check_replaceable, write_config
from medjax.hub.names import base_prefix, iterate_hf_tensors
from medjax.hub.tensors import open_tensors, read_json, write_tensors
from medjax.models.config import DECODERS, ModelConfig
from medjax.models.heads import Labeller
from medjax.models.model import Params

RULES = "medjax.json"
OWN_HEAD = "medjax_head"
_ENDINGS = {"sequence": "SequenceClassification", "token": "TokenClassification"}
_ENDINGS |= {"answer": "QuestionAnswering"}
_CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "megatron-bert": "MegatronBert",
    "modernbert": "ModernBert",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen3": "Qwen3",
    "gemma3_text": "Gemma3Text",
    "gpt2": "GPT2",
}
SEQUENCE_ALONE = ("gemma3_text",)  # transformers has no other head for them


def save_finetuned(
    folder: str | Path,
    labeller: Labeller,
    params: Params,
    use: str,
    labels: Sequence[str],
    rules: dict[str, Any],
    tokenizer: Any,
    card: str,
    pad_id: int,
    *,
    multi_label: bool = False,
) -> None:
    """Writes the folder.

    Args:
      use: "sequence", "token" or "answer", or "own" for a user's head.
      labels: names of the scores, in their order.
      rules: JSON for `medjax.json`.
      pad_id: what rows were filled up with.
    """
    folder, config = Path(folder), labeller.backbone.config
    kept = check_replaceable(folder)
    prefix = base_prefix(config, use) if use != "own" else ""
    with new_folder(folder) as new:
        write_config(new, config, (), "float32", kept if tokenizer is None else tokenizer)
        values = read_json(new / "config.json")
        if use != "own" and not (use != "sequence" and config.model_type in SEQUENCE_ALONE):
            values["architectures"] = [f"{_CLASSES[config.model_type]}For{_ENDINGS[use]}"]
        if use in ("sequence", "token"):
            values["id2label"] = {str(i): label for i, label in enumerate(labels)}
            values["label2id"] = {label: i for i, label in enumerate(labels)}
        if use == "sequence":
            kind = "multi_label" if multi_label else "single_label"
            values["problem_type"] = f"{kind}_classification"
            if config.model_type in DECODERS:  # transformers looks for the last token before it
                values["pad_token_id"] = pad_id
            if config.model_type == "modernbert":
                values["classifier_pooling"] = "cls"
        (new / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
        (new / RULES).write_text(json.dumps(rules, indent=1, ensure_ascii=False) + "\n")
        (new / "README.md").write_text(card, encoding="utf-8")
        tensors = dict(_tensors(labeller, params, use, prefix))
        counts = {name: array.size for name, array in tensors.items()}
        write_tensors(new, iter(tensors.items()), counts, "float32", 5 * 10**9)


def load_head_params(folder: str | Path, config: ModelConfig, use: str) -> Params:
    """The parameters of the head in a folder of `save_finetuned`.

    Raises:
      UserError: a tensor of the head is missing.
    """
    stored = open_tensors(Path(folder))
    found = {}
    if use == "own":
        for name, tensor in stored.items():
            if name.startswith(OWN_HEAD):
                found[name.removeprefix(f"{OWN_HEAD}.").replace(".", "/")] = tensor.read()
        return unflatten_dict(found, sep="/")
    for ours, theirs in head_modules(config, use).items():
        kernel = "scale" if ours == "norm" else "kernel"
        for leaf, name in ((kernel, f"{theirs}.weight"), ("bias", f"{theirs}.bias")):
            if name in stored:
                value = stored[name].read()
                found[f"{ours}/{leaf}"] = value.T if leaf == "kernel" else value
    if "classifier/kernel" not in found:
        raise UserError(f"{folder}: holds no head for this task; export it with medjax.finetune")
    return unflatten_dict(found, sep="/")


def head_modules(config: ModelConfig, use: str) -> dict[str, str]:
    """Our module -> the name in transformers."""
    if config.model_type == "modernbert":
        return {"dense": "head.dense", "norm": "head.norm", "classifier": "classifier"}
    if use == "answer":
        return {"classifier": "qa_outputs"}
    if config.model_type in DECODERS and not (use == "token" and config.model_type == "gpt2"):
        return {"classifier": "score"}
    if use == "token":
        return {"classifier": "classifier"}
    if config.model_type == "roberta":
        return {"dense": "classifier.dense", "classifier": "classifier.out_proj"}
    return {"dense": f"{base_prefix(config, use)}pooler.dense", "classifier": "classifier"}


def _tensors(
    labeller: Labeller, params: Params, use: str, prefix: str
) -> Iterator[tuple[str, np.ndarray]]:
    config = labeller.backbone.config
    for name, array in iterate_hf_tensors(params["backbone"], config, (), _fetch):
        yield prefix + name, array
    if use == "own":
        for path, leaf in flatten_dict(params["head"], sep=".").items():
            yield f"{OWN_HEAD}.{path}", _fetch(leaf)
    else:
        yield from head_tensors(params["head"], config, use)


def head_tensors(head: Params, config: ModelConfig, use: str) -> Iterator[tuple[str, np.ndarray]]:
    """A head's parameters under transformers' names."""
    for path, leaf in flatten_dict(head, sep="/").items():
        module, _, kind = path.rpartition("/")
        ending = "bias" if kind == "bias" else "weight"
        value = _fetch(leaf)
        name = f"{head_modules(config, use)[module]}.{ending}"
        yield name, value.T if kind == "kernel" else value


def _fetch(leaf: Any) -> np.ndarray:
    return np.asarray(jax.device_get(leaf))
