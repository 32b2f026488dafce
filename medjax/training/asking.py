"""A model that is asked: loads it, and answers prompts in words or by the likelihood of answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from medjax.config import UserError
from medjax.data.tokenize import load_tokenizer, text_tokenizer
from medjax.decoding.automaton import json_of
from medjax.decoding.cloze import build_cloze
from medjax.decoding.generate import prepared_params
from medjax.decoding.likelihood import build_likelihood
from medjax.models.model import Model
from medjax.scoring.lineage import Stage
from medjax.tasks.answers import Asked
from medjax.tasks.encode import read_template
from medjax.tasks.examples import Example
from medjax.tasks.prompts import Prompter
from medjax.training.flops import forward_flops
from medjax.training.initial import WRITERS, load_backbone
from medjax.training.lineage import earlier_stages
from medjax.training.mesh import make_mesh
from medjax.training.work_clock import WorkClock
from medjax.training.writing import (
    answer_ids,
    build_writer,
    end_tokens,
    outside_passages,
    possible,
    prompt_ids,
    shared_prefix,
    shortened,
)

if TYPE_CHECKING:
    from medjax.prompt import PromptConfig


class Asker(NamedTuple):
    """A model that is ready to be asked."""

    tokenizer: Any
    is_t5: bool
    ask: Callable[[Prompter, Sequence[Example], Sequence[Example], int], Asked]
    """ask(prompter, examples, shots, seed); the seed is that of what is drawn."""
    flops: Callable[[float, float], float]
    """Tokens of a prompt and of its answer -> forward FLOPs, what prompts share counted in each."""
    stages: list[Stage]
    """How the model came about."""


class Loaded(NamedTuple):
    """A model, its tokenizer, and where they compute."""

    model: Model
    params: Any
    """Ready for decoding steps, where the model writes."""
    tokenizer: Any
    ends: list[int]
    """Tokens that end an answer; of an encoder none."""
    mesh: Mesh

    @property
    def is_t5(self) -> bool:
        """Whether answers are a decoder's own, so that prompts are whole inputs."""
        return self.model.config.model_type == "t5"

    @property
    def is_encoder(self) -> bool:
        """Whether it writes nothing and fills masks."""
        return self.model.config.model_type not in WRITERS


Answer = Callable[[list, Sequence[Example]], tuple[list, int]]
"""(ids of the prompts, their examples) -> (answers, tokens that were written)."""


def load_asker(config: PromptConfig) -> Asker:
    """Loads the model and its tokenizer.

    Raises:
      UserError: it cannot do what is asked, or has no end token.
    """
    loaded = _load(config)
    built: dict[tuple[str, int], Answer] = {}

    def ask(
        prompter: Prompter, examples: Sequence[Example], shots: Sequence[Example], seed: int
    ) -> Asked:
        key = prompter.template.name, seed if config.decoding.temperature else 0
        if key not in built:
            built[key] = _build_answer(config, loaded, prompter, config.decoding.seed + key[1])
        with WorkClock() as clock:
            shown, _ = shortened(shots, loaded.tokenizer, config.task)
            kept, cut = shortened(examples, loaded.tokenizer, config.task)
            rows = prompt_ids(
                [prompter.prompt(own, shown) for own in kept],
                loaded.tokenizer,
                ends=loaded.is_t5 or loaded.is_encoder,
                is_chat=prompter.chat is not None,
            )
            with jax.set_mesh(loaded.mesh):
                outputs, written = built[key](rows, examples)
        prefix = None if loaded.is_t5 or loaded.is_encoder else shared_prefix(rows)[0]
        return Asked(
            outputs,
            tokens_in=sum(map(len, rows)),
            tokens_out=written,
            shared=0 if prefix is None else len(prefix),
            cut=int(cut.sum()),
            seconds=clock.seconds,
        )

    def flops(tokens_in: float, tokens_out: float) -> float:
        return forward_flops(loaded.model.config, round(tokens_in), round(tokens_out))

    return Asker(loaded.tokenizer, loaded.is_t5, ask, flops, earlier_stages(config.model))


def _load(config: PromptConfig) -> Loaded:
    mesh = make_mesh(config.mesh, 0)
    held = "int8" if config.int8 else config.compute.dtype
    backbone = load_backbone(config.model, config.compute, mesh, 0, lm_head=True, held=held)
    loaded = Loaded(backbone.model, backbone.params, load_tokenizer(backbone.tokenizer), [], mesh)
    if not loaded.is_encoder:
        ends = end_tokens(config.model, loaded.tokenizer)
        params = prepared_params(loaded.model, loaded.params)
        return loaded._replace(params=params, ends=ends)
    if config.mode != "likelihood":
        family = loaded.model.config.model_type
        raise UserError(f"a {family} does not write; set mode: likelihood, which fills its masks")
    return loaded


def _build_answer(config: PromptConfig, loaded: Loaded, prompter: Prompter, seed: int) -> Answer:
    """What answers the prompts of one template."""
    if config.mode == "likelihood":
        return _build_scores(config, loaded, prompter, seed)
    wanted = expression(config, prompter) if config.mode == "constrained" else None
    decoding = config.decoding.model_copy(update={"seed": seed})
    model, tokenizer, ends, mesh = loaded.model, loaded.tokenizer, loaded.ends, loaded.mesh
    outside = outside_passages(prompter)
    write = build_writer(model, tokenizer, ends, decoding, mesh, wanted, outside)
    return functools.partial(write, loaded.params)


def _build_scores(config: PromptConfig, loaded: Loaded, prompter: Prompter, seed: int) -> Answer:
    """Log probabilities of the classes: as what is written next, or in the place of the mask."""
    lead = "" if loaded.is_t5 else prompter.lead
    answers = answer_ids([lead + label for label in prompter.labels], loaded.tokenizer)
    if loaded.is_encoder:
        log_probabilities = _cloze(config, loaded, answers)
    else:
        answers = [own + loaded.ends[:1] for own in answers]
        start_id = loaded.tokenizer.pad_token_id if loaded.is_t5 else None
        likelihood = build_likelihood(loaded.model, config.decoding, answers, start_id, loaded.mesh)

        def log_probabilities(rows: list) -> np.ndarray:
            prefix, rows = (None, rows) if loaded.is_t5 else shared_prefix(rows)
            return likelihood(loaded.params, rows, prefix)

    lengths = np.array([len(own) for own in answers]) if config.normalise else 1

    def score(rows: list, examples: Sequence[Example]) -> tuple[list, int]:
        return (log_probabilities(rows) / lengths).tolist(), 0

    return score


def _cloze(
    config: PromptConfig, loaded: Loaded, answers: list[list[int]]
) -> Callable[[list], np.ndarray]:
    """Of an encoder: answers in masks before what ends every input."""
    mask_id = loaded.tokenizer.mask_token_id
    cloze = build_cloze(loaded.model, config.decoding.batch_size, answers, mask_id, loaded.mesh)
    _, after = read_template(text_tokenizer(loaded.tokenizer)).single

    def log_probabilities(rows: list) -> np.ndarray:
        ends = [np.array(after, np.int32)] * len(rows)
        return cloze(loaded.params, [row[: len(row) - len(after)] for row in rows], ends)

    return log_probabilities


def expression(config: PromptConfig, prompter: Prompter) -> str:
    """The regular expression of answers: the configuration's own, or the task's."""
    if config.pattern is not None:
        return config.pattern
    if config.json_schema is not None:
        return json_of(config.json_schema)
    return possible(prompter)
