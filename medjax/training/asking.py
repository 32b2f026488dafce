"""A model that is asked: loads it, and answers prompts in words or by the likelihood of answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from medjax.config import UserError
from medjax.data.tokenize import load_tokenizer, text_tokenizer
from medjax.decoding.automaton import json_of
from medjax.decoding.cloze import build_cloze
from medjax.decoding.generate import prepared_params
from medjax.decoding.likelihood import build_likelihood
from medjax.scoring.lineage import Stage
from medjax.tasks.encode import read_template
from medjax.tasks.examples import Example
from medjax.tasks.prompts import Prompter
from medjax.training.flops import forward_flops
from medjax.training.initial import WRITERS, load_backbone
from medjax.training.lineage import earlier_stages
from medjax.training.mesh import make_mesh
from medjax.training.writing import (
    answer_ids,
    build_writer,
    end_tokens,
    possible,
    prompt_ids,
    shared_prefix,
    shortened,
)

if TYPE_CHECKING:
    from medjax.prompt import PromptConfig


class Asker(NamedTuple):
    """A loaded model."""

    tokenizer: Any
    is_t5: bool
    ask: Callable[[Prompter, Sequence[Example], Sequence[Example], int], Any]
    """ask(prompter, examples, shots, seed) -> Asked; the seed is that of what is drawn."""
    flops: Callable[[float, float], float]
    """Tokens of a prompt and of its answer -> forward FLOPs, what prompts share counted in each."""
    stages: list[Stage]
    """How the model came about."""


def load_asker(config: PromptConfig) -> Asker:
    """Loads the model and its tokenizer.

    Raises:
      UserError: it cannot do what is asked, or has no end token.
    """
    from medjax.prompt import Asked

    mesh = make_mesh(config.mesh, 0)
    held = "int8" if config.int8 else config.compute.dtype
    backbone = load_backbone(config.model, config.compute, mesh, 0, lm_head=True, held=held)
    model, tokenizer = backbone.model, load_tokenizer(backbone.tokenizer)
    family = model.config.model_type
    is_t5, is_encoder = family == "t5", family not in WRITERS
    if is_encoder and config.mode != "likelihood":
        raise UserError(f"a {family} does not write; set mode: likelihood, which fills its masks")
    ends = [] if is_encoder else end_tokens(config.model, tokenizer)
    params = backbone.params if is_encoder else prepared_params(model, backbone.params)
    del backbone  # whose weights are not to be held beside those
    built: dict[tuple[str, int], Any] = {}

    def writer(prompter: Prompter, seed: int) -> Any:
        wanted = expression(config, prompter) if config.mode == "constrained" else None
        decoding = config.decoding.model_copy(update={"seed": seed})
        return build_writer(model, tokenizer, ends, decoding, mesh, wanted)

    def scorer(prompter: Prompter, seed: int) -> Any:
        lead = "" if is_t5 else prompter.lead
        answers = answer_ids([lead + label for label in prompter.labels], tokenizer)
        if is_encoder:
            batch_size = config.decoding.batch_size
            cloze = build_cloze(model, batch_size, answers, tokenizer.mask_token_id, mesh)
            _, after = read_template(text_tokenizer(tokenizer)).single
        else:
            answers = [own + ends[:1] for own in answers]
            start_id = tokenizer.pad_token_id if is_t5 else None
            likelihood = build_likelihood(model, config.decoding, answers, start_id, mesh)
        lengths = np.array([len(own) for own in answers])

        def score(params: Any, rows: Any, examples: Sequence[Example]) -> tuple[list, int]:
            if is_encoder:
                ends = [np.array(after, np.int32)] * len(rows)
                found = cloze(params, [row[: len(row) - len(after)] for row in rows], ends)
            else:
                prefix, rows = (None, rows) if is_t5 else shared_prefix(rows)
                found = likelihood(params, rows, prefix)
            return (found / lengths if config.normalise else found).tolist(), 0

        return score

    def ask(
        prompter: Prompter, examples: Sequence[Example], shots: Sequence[Example], seed: int
    ) -> Any:
        key = prompter.template.name, seed if config.decoding.temperature else 0
        if key not in built:
            make = scorer if config.mode == "likelihood" else writer
            built[key] = make(prompter, config.decoding.seed + key[1])
        begin = time.monotonic()
        shown, _ = shortened(shots, tokenizer, config.task)
        kept, cut = shortened(examples, tokenizer, config.task)
        prompts = [prompter.prompt(own, shown) for own in kept]
        is_chat = prompter.chat is not None
        rows = prompt_ids(prompts, tokenizer, ends=is_t5 or is_encoder, is_chat=is_chat)
        with jax.set_mesh(mesh):
            outputs, written = built[key](params, rows, examples)
        prefix = None if is_t5 or is_encoder else shared_prefix(rows)[0]
        return Asked(
            outputs,
            tokens_in=sum(map(len, rows)),
            tokens_out=written,
            shared=0 if prefix is None else len(prefix),
            cut=int(cut.sum()),
            seconds=time.monotonic() - begin,
        )

    def flops(tokens_in: float, tokens_out: float) -> float:
        return forward_flops(model.config, round(tokens_in), round(tokens_out))

    return Asker(tokenizer, is_t5, ask, flops, earlier_stages(config.model))


def expression(config: PromptConfig, prompter: Prompter) -> str:
    """The regular expression of answers: the configuration's own, or the task's."""
    if config.pattern is not None:
        return config.pattern
    if config.json_schema is not None:
        return json_of(config.json_schema)
    return possible(prompter)
