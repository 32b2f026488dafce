"""What an exported folder holds beside its weights, and which folder an export may replace.

Called by `save_pretrained` (`folder.py`); the weights are written by `tensors.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medjax.config import UserError
from medjax.hub.config import to_hf
from medjax.hub.names import architecture
from medjax.hub.tokenizer import FILES, check_vocabulary, config_ids, write_tokenizer
from medjax.models.config import ModelConfig

_EXPORTED = re.compile(
    r"config\.json|generation_config\.json|medjax\.json|lineage\.json|README\.md|model\b.*\.safetensors.*"
)


def check_replaceable(folder: Path) -> Path | None:
    """The folder, if it holds a tokenizer that is to be kept.

    Raises:
      UserError: something is there that no export made, and that would be lost.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose another folder")
    names = [path.name for path in folder.iterdir()]
    others = [n for n in names if n not in FILES and not _EXPORTED.fullmatch(n)]
    if others:
        raise UserError(
            f"{folder}: holds {listed(sorted(others))}, no part of an exported model; remove it or "
            "choose another folder"
        )
    return folder if set(names) & set(FILES) else None


def write_config(
    folder: Path, config: ModelConfig, parts: Sequence[str], dtype: str, tokenizer: Any
) -> None:
    """The tokenizer's files, config.json, and for T5 generation_config.json.

    Raises:
      UserError: there is no tokenizer in the given folder, or it has ids beyond the vocabulary.
    """
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder)
        check_vocabulary(folder, config.vocab_size)
    ids = config_ids(folder, config.model_type)
    values = {"architectures": [architecture(config, parts)], "dtype": dtype, **to_hf(config)}
    _write_json(folder / "config.json", values | ids)
    if config.model_type == "t5" and "lm_head" in parts:
        _write_json(folder / "generation_config.json", ids)


def listed(names: Sequence[str], shown: int = 6) -> str:
    """Names for a message, the first few of them."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
