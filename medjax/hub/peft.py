"""Low-rank pairs as an adapter folder of PEFT, to be put on the published model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.output import new_folder
from medjax.hub.heads import head_tensors
from medjax.hub.names import base_prefix, table
from medjax.hub.tensors import write_tensors
from medjax.models.config import LoraConfig, ModelConfig
from medjax.models.lora import pairs
from medjax.models.model import Params

TASKS = {
    "sequence": "SEQ_CLS",
    "token": "TOKEN_CLS",
    "answer": "QUESTION_ANS",
}
WRITING = {True: "SEQ_2_SEQ_LM", False: "CAUSAL_LM"}
PREFIX = "base_model.model."


def save_adapter(
    folder: Path, config: ModelConfig, trained: Params, use: str, lora: LoraConfig
) -> None:
    """Writes `adapter_model.safetensors` and `adapter_config.json`.

    Args:
      trained: {"lora": pairs, "head": the head's parameters, where there is one}.
      use: what the head gives scores of; "own" heads are left out, PEFT has no name for them.
    """
    prefix = base_prefix(config, use)
    entries = table(config, ("lm_head",) if use == "text" else ())
    tensors: dict[str, np.ndarray] = {}
    modules: set[str] = set()
    for path, (a, b) in pairs(trained["lora"]).items():
        entry = entries[f"{path}/kernel"]
        for layer, (first, second) in enumerate(zip(np.asarray(a), np.asarray(b), strict=True)):
            name = entry.names[0].format(layer=layer + entry.first_layer).removesuffix(".weight")
            modules.add(re.split(r"\.\d+\.", name, maxsplit=1)[1])
            tensors[f"{PREFIX}{prefix}{name}.lora_A.weight"] = first.T
            tensors[f"{PREFIX}{prefix}{name}.lora_B.weight"] = second.T
    whole: list[str] | None = None
    if use in ("sequence", "token", "answer"):
        head = dict(head_tensors(trained["head"], config, use))
        tensors |= {PREFIX + name: tensor for name, tensor in head.items()}
        whole = sorted({name.removeprefix(prefix).split(".")[0] for name in head})
    values: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": WRITING[config.model_type == "t5"] if use == "text" else TASKS.get(use),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": config.model_type == "gpt2",
        "target_modules": rf".*\.\d+\.({'|'.join(map(re.escape, sorted(modules)))})",
        "modules_to_save": whole,
        "base_model_name_or_path": None,
        "inference_mode": True,
    }
    with new_folder(folder) as new:
        (new / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n")
        counts = {name: tensor.size for name, tensor in tensors.items()}
        write_tensors(new, iter(tensors.items()), counts, "float32", 5 * 10**9)
        (new / "model.safetensors").rename(new / "adapter_model.safetensors")
