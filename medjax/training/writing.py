"""What a model writes after prompts: token ids in, answers out; free, or what is possible alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from jax.sharding import Mesh

from medjax.config import UserError
from medjax.data.tokenize import text_tokenizer
from medjax.decoding.automaton import (
    HOLE,
    build_automaton,
    one_of,
    several_of,
    stop_automaton,
    token_bytes,
)
from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import build_generate
from medjax.decoding.passages import Passages, passages_of, token_lookup
from medjax.models.model import Model, Params
from medjax.tasks.config import TaskConfig
from medjax.tasks.encode import kept_tokens
from medjax.tasks.entities import AFTER_TYPE, BETWEEN_SPANS, UNHELD
from medjax.tasks.examples import Example
from medjax.tasks.prompts import Prompter
from medjax.tasks.text_forms import SEPARATOR

WORTH_SHARING = 16  # tokens
Rows = Sequence[np.ndarray]


def build_writer(
    model: Model,
    tokenizer: Any,
    ends: Sequence[int],
    decoding: DecodingConfig,
    mesh: Mesh,
    expression: str | None = None,
    outside: str = "",
) -> Callable[[Params, Rows, Sequence[Example]], tuple[list[str], int]]:
    """`write(params, rows, examples)`: the answers to the prompts in `rows`, and their tokens.

    What all rows begin with is computed once where the model can (decoders).

    Args:
      ends: tokens that end an answer.
      expression: the regular expression of possible answers, of `possible`; none: any.
      outside: characters that no passage of the text holds, of `outside_passages`.
    """
    is_t5 = model.config.model_type == "t5"
    automaton, lookup = None, None
    if expression is not None or decoding.stop:
        tokens = token_bytes(tokenizer, model.config.vocab_size)
        if expression is None:
            automaton = stop_automaton(decoding.stop, tokens, ends)
        else:
            automaton = build_automaton(expression, tokens, ends)
            lookup = token_lookup(tokens, outside) if HOLE in expression else None
    start_id = tokenizer.pad_token_id if is_t5 else None
    generate = build_generate(model, decoding, ends, start_id, mesh, automaton)

    def write(params: Params, rows: Rows, examples: Sequence[Example]) -> tuple[list[str], int]:
        def passages(places: np.ndarray) -> Passages:
            return passages_of([examples[i].text if i >= 0 else "" for i in places], lookup)

        prefix, rows = (None, rows) if is_t5 else shared_prefix(rows)
        quotes = None if lookup is None else passages
        # What is drawn for an example depends on its id, not on what stands beside it.
        numbers = np.array([crc32(example.id.encode()) >> 1 for example in examples], np.int32)
        ids = generate(params, rows, prefix, quotes, numbers)
        texts = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
        return [_until(text, decoding.stop) for text in texts], sum(len(row) + 1 for row in ids)

    return write


def possible(prompter: Prompter) -> str:
    """The regular expression of a task's possible answers; a HOLE is a passage of the text."""
    none, kind = re.escape(prompter.template.none), prompter.config.kind
    if kind == "multilabel":
        separator = prompter.config.label_separator or SEPARATOR
        return several_of(prompter.labels, separator, prompter.template.none)
    if kind == "tagging" and prompter.template.entities == "json":
        types = one_of([json.dumps(label, ensure_ascii=False) for label in prompter.labels])
        item = rf'\{{"type": {types}, "text": "{HOLE}"\}}'
        return rf"\[({item}(, {item})*)?\]"
    if kind == "tagging":
        item = one_of(prompter.labels) + re.escape(AFTER_TYPE.strip()) + HOLE
        return f"({none}|{item}({re.escape(BETWEEN_SPANS)}{item})*)"
    if kind == "question_answering":
        return f"({none}|{HOLE})"
    return one_of(prompter.labels)


def outside_passages(prompter: Prompter) -> str:
    """The characters that would end a passage within an answer, and so stand in none."""
    return UNHELD[prompter.template.entities] if prompter.config.kind == "tagging" else ""


def end_tokens(folder: str | Path, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, the tokenizer's own first, then generation_config.json's.

    Raises:
      UserError: there is none.
    """
    path, found = Path(folder) / "generation_config.json", None
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    others = found if isinstance(found, list) else [found]
    ends = [own for own in dict.fromkeys([tokenizer.eos_token_id, *others]) if own is not None]
    if not ends:
        raise UserError(f"{folder}: neither its tokenizer nor generation_config.json has an end")
    return ends


def answer_ids(answers: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The tokens of answers, without an end."""
    backend = text_tokenizer(tokenizer)
    return [own.ids for own in backend.encode_batch(list(answers), add_special_tokens=False)]


def prompt_ids(
    prompts: Sequence[str], tokenizer: Any, *, ends: bool, is_chat: bool
) -> list[np.ndarray]:
    """Token ids: a chat template writes its special tokens itself, a plain prompt gets those of
    the tokenizer; of what is to go on, not the end token.

    Args:
      ends: prompts are whole texts, of a T5 or an encoder.
    """
    encoded = tokenizer(list(prompts), add_special_tokens=not is_chat).input_ids
    last = {tokenizer.eos_token_id, tokenizer.sep_token_id}
    if not ends and not is_chat:
        encoded = [ids[:-1] if ids and ids[-1] in last else ids for ids in encoded]
    return [np.array(ids, np.int32) for ids in encoded]


def shared_prefix(rows: Rows) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """What all rows begin with, and the rest of each; of every row at least one token is left."""
    if len(rows) < 2:
        return None, list(rows)
    first, last = min(rows, key=tuple), max(rows, key=tuple)
    most = min(len(first), len(last), min(map(len, rows)) - 1)
    differs = np.flatnonzero(first[:most] != last[:most])
    count = int(differs[0]) if differs.size else most
    if count < WORTH_SHARING:
        return None, list(rows)
    return rows[0][:count], [row[count:] for row in rows]


def shortened(
    examples: Sequence[Example], tokenizer: Any, config: TaskConfig
) -> tuple[list[Example], np.ndarray]:
    """Examples whose texts have max_length tokens at most, and of which some were left out.

    `config.long` says which tokens are kept.
    """
    texts = _shortened([example.text for example in examples], tokenizer, config)
    pairs = _shortened([example.text_pair or "" for example in examples], tokenizer, config)
    found, cut = [], np.zeros(len(examples), bool)
    for i, (example, own, other) in enumerate(zip(examples, texts, pairs, strict=True)):
        (text, text_cut), (pair, pair_cut) = own, other
        cut[i] = text_cut or pair_cut
        pair = None if example.text_pair is None else pair
        found.append(example._replace(text=text, text_pair=pair))
    return found, cut


def _shortened(texts: Sequence[str], tokenizer: Any, config: TaskConfig) -> list[tuple[str, bool]]:
    """Texts, and whether something was left out of them."""
    found = []
    encoded = text_tokenizer(tokenizer).encode_batch(list(texts), add_special_tokens=False)
    for text, own in zip(texts, encoded, strict=True):
        kept = kept_tokens(len(own.ids), config.max_length, config.long)
        parts = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
        is_cut = len(kept) < len(own.ids)
        if is_cut:
            spans = [(own.offsets[part[0]][0], own.offsets[part[-1]][1]) for part in parts]
            text = " ... ".join(text[a:b].strip() for a, b in spans)
        found.append((text, is_cut))
    return found


def _until(text: str, stops: Sequence[str]) -> str:
    """What stands before the first of the stop texts."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text.strip()
