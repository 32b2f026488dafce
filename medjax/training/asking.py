"""A model that is asked: prompts to token ids, answers back; constrained or by likelihood."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import jax
import numpy as np

from medjax.config import UserError
from medjax.data.tokenize import load_tokenizer, text_tokenizer
from medjax.decoding.automaton import (
    HOLE,
    build_automaton,
    json_of,
    one_of,
    several_of,
    stop_automaton,
    token_bytes,
)
from medjax.decoding.generate import build_generate
from medjax.decoding.likelihood import build_likelihood
from medjax.decoding.passages import passages_of, token_lookup
from medjax.tasks.config import TaskConfig
from medjax.tasks.encode import kept_tokens
from medjax.tasks.examples import Example
from medjax.tasks.prompts import Prompter
from medjax.tasks.text_forms import AFTER_TYPE, BETWEEN_SPANS, SEPARATOR
from medjax.training.initial import load_backbone
from medjax.training.mesh import make_mesh

if TYPE_CHECKING:
    from medjax.prompt import PromptConfig

WORTH_SHARING = 16  # tokens


class Asker(NamedTuple):
    """A loaded model."""

    tokenizer: Any
    is_t5: bool
    ask: Callable[[Prompter, Sequence[Example], Sequence[Example], int], Any]
    """ask(prompter, examples, shots, seed) -> Asked; the seed is that of what is drawn."""


def load_asker(config: PromptConfig, labels: Sequence[str]) -> Asker:
    """Loads the model and its tokenizer.

    Raises:
      UserError: it cannot write, or has no end token.
    """
    from medjax.prompt import Asked

    mesh = make_mesh(config.mesh, 0)
    backbone = load_backbone(config.model, config.compute, mesh, 0)
    model, tokenizer = backbone.model, load_tokenizer(backbone.tokenizer)
    is_t5 = model.config.model_type == "t5"
    ends = end_tokens(config.model, tokenizer)
    start_id = tokenizer.pad_token_id if is_t5 else None
    tokens = token_bytes(tokenizer, model.config.vocab_size)
    lookup = token_lookup(tokens)
    built: dict[tuple[str, int], Any] = {}

    def generator(prompter: Prompter, seed: int) -> Any:
        automaton = None
        if config.mode == "constrained":
            automaton = build_automaton(expression(prompter, config), tokens, ends)
        elif config.decoding.stop:
            automaton = stop_automaton(config.decoding.stop, tokens, ends)
        decoding = config.decoding.model_copy(update={"seed": seed})
        return build_generate(model, decoding, ends, start_id, mesh, automaton)

    def scorer(prompter: Prompter, seed: int) -> Any:
        space = "" if is_t5 or prompter.chat else " "
        answers = [_ids(tokenizer, space + label) + ends[:1] for label in prompter.labels]
        score = build_likelihood(model, config.decoding, answers, start_id, mesh)
        lengths = np.array([len(own) for own in answers])

        def scaled(*arguments: Any) -> np.ndarray:
            found = score(*arguments)
            return found / lengths if config.normalise else found

        return scaled

    def ask(
        prompter: Prompter, examples: Sequence[Example], shots: Sequence[Example], seed: int
    ) -> Any:
        key = prompter.template.name, seed if config.decoding.temperature else 0
        if key not in built:
            make = scorer if config.mode == "likelihood" else generator
            built[key] = make(prompter, config.decoding.seed + key[1])
        begin = time.monotonic()
        shown, _ = shortened(shots, tokenizer, config.task)
        kept, cut = shortened(examples, tokenizer, config.task)
        prompts = [prompter.prompt(own, shown) for own in kept]
        rows = prompt_ids(prompts, tokenizer, is_t5=is_t5, is_chat=prompter.chat is not None)
        tokens_in, prefix = sum(map(len, rows)), None
        if not is_t5:
            prefix, rows = shared_prefix(rows)
        with jax.set_mesh(mesh):
            if config.mode == "likelihood":
                outputs: list[Any] = built[key](backbone.params, rows, prefix).tolist()
                written = 0
            else:

                def passages(places: np.ndarray) -> Any:
                    own = [examples[i].text if i >= 0 else "" for i in places]
                    return passages_of(own, lookup)

                quotes = config.mode == "constrained" and HOLE in expression(prompter, config)
                own = passages if quotes else None
                numbers = np.array([crc32(e.id.encode()) >> 1 for e in examples], np.int32)
                ids = built[key](backbone.params, rows, prefix, own, numbers)
                outputs = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
                outputs = [_until(text, config.decoding.stop) for text in outputs]
                written = sum(len(row) + 1 for row in ids)
        seconds = time.monotonic() - begin
        shared = 0 if prefix is None else len(prefix)
        return Asked(outputs, tokens_in, written, shared, cut, seconds)

    return Asker(tokenizer, is_t5, ask)


def expression(prompter: Prompter, config: PromptConfig) -> str:
    """The regular expression of possible answers; a HOLE is a passage of the text."""
    if config.pattern is not None:
        return config.pattern
    if config.json_schema is not None:
        return json_of(config.json_schema)
    none, kind = re.escape(prompter.template.none), config.task.kind
    if kind == "multilabel":
        separator = config.task.label_separator or SEPARATOR
        return several_of(prompter.labels, separator, prompter.template.none)
    if kind == "tagging":
        item = one_of(prompter.labels) + re.escape(AFTER_TYPE.strip()) + HOLE
        return f"({none}|{item}({re.escape(BETWEEN_SPANS)}{item})*)"
    if kind == "question_answering":
        return f"({none}|{HOLE})"
    return one_of(prompter.labels)


def end_tokens(folder: str, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: of generation_config.json, else the tokenizer's.

    Raises:
      UserError: there is none.
    """
    import json
    from pathlib import Path

    path, found = Path(folder) / "generation_config.json", None
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    found = tokenizer.eos_token_id if found is None else found
    if found is None:
        raise UserError(f"{folder}: neither its tokenizer nor generation_config.json has an end")
    ends = found if isinstance(found, list) else [found]
    own = tokenizer.eos_token_id
    return ends if own is None or own in ends else [*ends, own]


def shortened(
    examples: Sequence[Example], tokenizer: Any, config: TaskConfig
) -> tuple[list[Example], int]:
    """Examples whose texts have max_length tokens at most, and of how many some were left out.

    `config.long` says which tokens are kept.
    """
    texts = _shortened([example.text for example in examples], tokenizer, config)
    pairs = _shortened([example.text_pair or "" for example in examples], tokenizer, config)
    found, cut = [], 0
    for example, (text, text_cut), (pair, pair_cut) in zip(examples, texts, pairs, strict=True):
        cut += text_cut or pair_cut
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


def prompt_ids(
    prompts: Sequence[str], tokenizer: Any, *, is_t5: bool, is_chat: bool
) -> list[np.ndarray]:
    """Token ids: a chat template writes its special tokens itself, a plain prompt gets those of
    the tokenizer (without the end token)."""
    encoded = tokenizer(list(prompts), add_special_tokens=not is_chat).input_ids
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id}
    if not is_t5:
        encoded = [ids[:-1] if ids and ids[-1] in ends and not is_chat else ids for ids in encoded]
    return [np.array(ids, np.int32) for ids in encoded]


def shared_prefix(rows: Sequence[np.ndarray]) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """What all rows begin with, and the rest of each; of every row at least one token is left."""
    first, last = min(rows, key=tuple), max(rows, key=tuple)
    most = min(len(first), len(last), min(map(len, rows)) - 1)
    differs = np.flatnonzero(first[:most] != last[:most])
    count = int(differs[0]) if differs.size else most
    if count < WORTH_SHARING or len(rows) < 2:
        return None, list(rows)
    return rows[0][:count], [row[count:] for row in rows]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return text_tokenizer(tokenizer).encode(text, add_special_tokens=False).ids


def _until(text: str, stops: Sequence[str]) -> str:
    """What stands before the first of the stop texts."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text.strip()
