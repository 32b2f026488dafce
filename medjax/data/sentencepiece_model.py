"""A SentencePiece model of a Unigram tokenizer: pieces, scores, character map.

The protocol buffer of sentencepiece's `sentencepiece_model.proto`, of which few fields matter; they
are encoded here, so that neither sentencepiece nor a protocol compiler is needed. It is what
tensorflow-text reads, and what users of SentencePiece expect beside tokenizer.json. Words must
have been parted by single spaces: the model does not know of other white space.
"""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

NAME = "spiece.model"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # ModelProto.SentencePiece.Type
UNIGRAM = 1  # TrainerSpec.ModelType


def sentencepiece_model(state: dict[str, Any]) -> bytes | None:
    """The model of a tokenizer.json with a Unigram model; None if its pipeline is another kind.

    A pre-tokenizer that also parts words (digits, punctuation) is left out: no piece that was
    learnt behind it crosses a boundary, so the best path is the same.
    """
    model = state["model"]
    if model["type"] != "Unigram" or model.get("byte_fallback") or not _has_metaspace(state):
        return None
    special = {token["content"] for token in state["added_tokens"] if token["special"]}
    parts = []
    for number, (piece, score) in enumerate(model["vocab"]):
        kind = NORMAL
        if number == model["unk_id"]:
            kind = UNKNOWN
        elif piece in special:
            kind = CONTROL
        fields = _bytes(1, piece.encode()) + _float(2, score) + _integer(3, kind)
        parts.append(_bytes(1, fields))
    trainer = _integer(3, UNIGRAM) + _integer(4, len(parts)) + _integer(40, model["unk_id"])
    for field in (41, 42, 43):  # bos, eos, pad: the caller puts special tokens around
        trainer += _integer(field, -1)
    normalizer = _bytes(1, b"medjax") + _bytes(2, _character_map(state["normalizer"]))
    normalizer += _integer(3, 1) + _integer(4, 1) + _integer(5, 1)
    return b"".join(parts) + _bytes(2, trainer) + _bytes(3, normalizer)


def write_sentencepiece_model(tokenizer: Any, folder: Path) -> None:
    """Writes `spiece.model` for a transformers tokenizer with a Unigram model."""
    import json

    model = sentencepiece_model(json.loads(tokenizer.backend_tokenizer.to_str()))
    if model is not None:
        (folder / NAME).write_bytes(model)


def _has_metaspace(state: dict[str, Any]) -> bool:
    """Whether every word gets the mark ▁ before it, and no character more is changed."""
    splitter = state["pre_tokenizer"] or {}
    steps = splitter.get("pretokenizers", [splitter])
    known = {"WhitespaceSplit", "Metaspace", "Digits", "Punctuation"}
    metaspace = [step for step in steps if step.get("type") == "Metaspace"]
    return (
        all(step.get("type") in known for step in steps)
        and len(metaspace) == 1
        and metaspace[0]["prepend_scheme"] == "always"
        and metaspace[0]["replacement"] == "▁"
    )


def _character_map(normalizer: dict[str, Any] | None) -> bytes:
    steps = (normalizer or {}).get("normalizers", [normalizer or {}])
    maps = [s["precompiled_charsmap"] for s in steps if s.get("type") == "Precompiled"]
    return base64.b64decode(maps[0]) if maps else b""


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value & (1 << 64) - 1)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
