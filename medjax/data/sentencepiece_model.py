"""A SentencePiece model of a Unigram tokenizer: pieces, scores, character map.

It stands beside tokenizer.json for whoever reads SentencePiece, tensorflow-text for one. Words must
have been parted by single spaces: the model does not know of other white space. It gives the same
ids for a text without tags; a tag is a piece that SentencePiece glues to what stands before it.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

NAME = "spiece.model"


def write_sentencepiece_model(tokenizer: Any, folder: Path) -> None:
    """Writes `spiece.model` for a transformers tokenizer of T5's kind; nothing for another kind."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] == "Unigram":
        (folder / NAME).write_bytes(sentencepiece_model(state))


def sentencepiece_model(state: dict[str, Any]) -> bytes:
    """The serialized model of a T5 tokenizer's tokenizer.json."""
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec

    kinds = ModelProto.SentencePiece
    of_added = {True: kinds.CONTROL, False: kinds.USER_DEFINED}
    added = {token["content"]: of_added[token["special"]] for token in state["added_tokens"]}
    model, unknown = ModelProto(), state["model"]["unk_id"]
    for number, (piece, score) in enumerate(state["model"]["vocab"]):
        kind = kinds.UNKNOWN if number == unknown else added.get(piece, kinds.NORMAL)
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size = TrainerSpec.UNIGRAM, len(model.pieces)
    # no beginning of a text, as in T5; the caller adds </s>
    trainer.unk_id, trainer.bos_id = unknown, -1
    trainer.pad_id, trainer.eos_id = (_number(state, piece) for piece in ("<pad>", "</s>"))
    normalizer = model.normalizer_spec
    if state["normalizer"]:
        normalizer.precompiled_charsmap = base64.b64decode(
            state["normalizer"]["precompiled_charsmap"]
        )
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = True
    normalizer.escape_whitespaces = True
    return model.SerializeToString()


def _number(state: dict[str, Any], piece: str) -> int:
    return next(i for i, (p, _) in enumerate(state["model"]["vocab"]) if p == piece)
