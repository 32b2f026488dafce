"""Tokenizer files of a model folder: copied on export, and held against the model's vocabulary.

Only the files are looked at (`tokenizer.json`, `vocab.txt`, `vocab.json`); encoding text is the
work of `medjax/data/tokenize.py`. `hub/folder.py` calls this from both of its directions.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from medjax.config import UserError
from medjax.hub.tensors import read_json
from medjax.models.config import DECODERS

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)

# Ids in config.json: which special token of the tokenizer each one is. RoBERTa's padding id is part
# of its computation and stays the model's.
_CONFIG_IDS = {
    "t5": {"pad_token_id": "pad", "eos_token_id": "eos", "decoder_start_token_id": "pad"},
    "bert": {"pad_token_id": "pad"},
    "megatron-bert": {"pad_token_id": "pad"},
    "roberta": {"bos_token_id": "bos", "eos_token_id": "eos"},
    "modernbert": {
        "pad_token_id": "pad",
        "cls_token_id": "cls",
        "bos_token_id": "cls",
        "sep_token_id": "sep",
        "eos_token_id": "sep",
    },
    **dict.fromkeys(DECODERS, {f"{kind}_token_id": kind for kind in ("pad", "bos", "eos")}),
}
_T5_IDS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}  # without tokenizer


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Puts the files of `tokenizer` into `folder`.

    `tokenizer` is a folder that holds them, or an object of transformers or of tokenizers.

    Raises:
      UserError: the given folder holds no tokenizer.
    """
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
    elif hasattr(tokenizer, "to_str"):
        (folder / FILES[0]).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    else:
        present = _files(Path(tokenizer))
        if not present:
            raise UserError(f"{tokenizer}: holds no tokenizer; expected {FILES[0]} there")
        for path in present:
            shutil.copyfile(path, folder / path.name)


def has_tokenizer(folder: Path) -> bool:
    """Whether any tokenizer file is there."""
    return bool(_files(folder))


def tokenizer_size(folder: Path) -> int | None:
    """One more than the highest id that the folder's tokenizer can give; None without such a file.

    A folder with a SentencePiece model alone counts as without.
    """
    ids = _vocabulary(folder)
    return max(ids.values()) + 1 if ids else None


def config_ids(folder: Path, model_type: str) -> dict[str, int]:
    """The special ids for config.json: those of the folder's tokenizer; T5's usual ones else."""
    tokens = _special_ids(folder)
    kinds = _CONFIG_IDS[model_type].items()
    known = {name: tokens[kind] for name, kind in kinds if kind in tokens}
    return _T5_IDS | known if model_type == "t5" else known


def check_vocabulary(folder: Path, vocab_size: int) -> None:
    """Refuses a tokenizer with ids that the model has no rows for.

    Raises:
      UserError: naming both sizes.
    """
    size = tokenizer_size(folder)
    if size is not None and size > vocab_size:
        raise UserError(
            f"{folder}: its tokenizer has ids up to {size - 1}, but the model's vocab_size is "
            f"{vocab_size}; take the tokenizer that belongs to the model, or load it with "
            f"vocab_size={size}, which adds rows"
        )


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in FILES if (folder / name).is_file()]


def _special_ids(folder: Path) -> dict[str, int]:
    """Ids of the special tokens that the tokenizer's files name: {"pad": 0, "eos": 1, ...}."""
    ids = _vocabulary(folder)
    found = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = read_json(folder / name) if (folder / name).is_file() else {}
        for kind in ("bos", "eos", "cls", "sep", "pad"):
            token = values.get(f"{kind}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if token in ids:
                found[kind] = ids[token]
    return found


def _vocabulary(folder: Path) -> dict[str, int]:
    """Id by token, added tokens included."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # the library raises bare Exception for any damage
            raise UserError(
                f"{folder / 'tokenizer.json'}: cannot be read as a tokenizer; copy it again"
            ) from None
        return tokenizer.get_vocab(with_added_tokens=True)
    if (folder / "vocab.txt").is_file():
        text = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n")
        ids = {token.rstrip("\r"): i for i, token in enumerate(text.split("\n"))}
    elif (folder / "vocab.json").is_file():
        ids = read_json(folder / "vocab.json")
    else:
        return {}
    added = folder / "added_tokens.json"
    return ids | (read_json(added) if added.is_file() else {})
