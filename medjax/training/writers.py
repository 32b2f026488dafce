"""Learners that write their answers: a T5 that reads the task as text, a decoder that is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh

from medjax.config import UserError
from medjax.data.tokenize import load_tokenizer, padding_id
from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import build_generate
from medjax.models.model import Params
from medjax.objectives.labels import build_answer_loss, build_text_loss
from medjax.tasks.config import TaskConfig
from medjax.tasks.encode import NOWHERE, Rows, encode_examples
from medjax.tasks.examples import Example
from medjax.tasks.prompts import Prompter
from medjax.tasks.targets import spans_within, text_targets
from medjax.tasks.templates import DEFAULTS, AnswersConfig
from medjax.tasks.text_forms import check_labels, source
from medjax.training.flops import decoder_answer_flops, t5_flops
from medjax.training.initial import Backbone
from medjax.training.labelled import Feed
from medjax.training.learner import Learner
from medjax.training.writing import (
    answer_ids,
    build_writer,
    end_tokens,
    outside_passages,
    possible,
    prompt_ids,
    shortened,
)

log = logging.getLogger(__name__)


def t5_writer(
    backbone: Backbone,
    task: TaskConfig,
    labels: Sequence[str],
    decoding: DecodingConfig,
    mesh: Mesh,
) -> Learner:
    """A T5 that reads the task as text and writes the answer."""
    if task.long == "windows" and task.kind != "tagging":
        raise UserError(
            "task.long windows averages scores, which a T5 that writes has not; use head, tail or "
            "head_tail"
        )
    check_labels(labels, task)
    model, tokenizer = backbone.model, load_tokenizer(backbone.tokenizer)
    start_id = tokenizer.pad_token_id
    decoding = decoding.model_copy(update={"max_new_tokens": task.max_target_length})
    generate = build_generate(model, decoding, [tokenizer.eos_token_id], start_id, mesh)

    def respond(params: Params, feed: Feed, examples: Sequence[Example]) -> list[str]:
        ids = generate(params, feed.rows.input_ids)
        return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def encode(examples: Sequence[Example]) -> Rows:
        whole = [e._replace(text_pair=None) for e in examples]
        if task.kind != "tagging":
            pairs = zip(whole, examples, strict=True)
            whole = [own._replace(text=source(e, task)) for own, e in pairs]
        return encode_examples(whole, tokenizer, task, windows=task.kind == "tagging")

    def targets(examples: Sequence[Example], rows: Rows) -> list[np.ndarray]:
        found, cut = text_targets(examples, rows, labels, task, tokenizer)
        _say_cut(cut, task)
        return found

    return Learner(
        specs=model.specs,
        init=model.init,
        start=lambda seed: backbone.params,
        loss=_without_label_options(lambda: build_text_loss(model, start_id)),
        respond=respond,
        encode=encode,
        targets=targets,
        row_flops=lambda s, t: t5_flops(model.config, s, t),
        pad_id=start_id,
        labeller=None,
        use="text",
        score_names=labels,
    )


def asked_decoder(
    backbone: Backbone,
    task: TaskConfig,
    labels: Sequence[str],
    answers: AnswersConfig,
    decoding: DecodingConfig,
    mesh: Mesh,
) -> Learner:
    """A decoder that is asked by a prompt and goes on with the answer: instruction tuning.

    Raises:
      UserError: the prompt is wrong, or prompts and answers are beyond the model's positions.
    """
    if task.long == "windows":
        raise UserError("task.long windows is for encoders; use head, tail or head_tail")
    model, tokenizer = backbone.model, load_tokenizer(backbone.tokenizer)
    chat = tokenizer if answers.chat and tokenizer.chat_template else None
    prompter = Prompter(answers.prompt or DEFAULTS[task.kind], labels, task, chat=chat)
    decoding = decoding.model_copy(update={"max_new_tokens": task.max_target_length})
    ends = end_tokens(backbone.tokenizer, tokenizer)
    expression = possible(prompter) if answers.constrained else None
    outside = outside_passages(prompter)
    write = build_writer(model, tokenizer, ends, decoding, mesh, expression, outside)

    def encode(examples: Sequence[Example]) -> Rows:
        kept, cut = shortened(examples, tokenizer, task)
        prompts = [prompter.prompt(own, ()) for own in kept]
        ids = prompt_ids(prompts, tokenizer, ends=False, is_chat=chat is not None)
        longest = max(map(len, ids), default=0) + task.max_target_length
        if longest > model.config.max_length:
            raise UserError(
                f"prompts and answers may have {longest} tokens, more than the "
                f"{model.config.max_length} positions of the model; lower task.max_length or "
                "max_target_length"
            )
        places = [np.full((len(own), 2), NOWHERE, np.int32) for own in ids]
        return Rows(ids, None, np.arange(len(ids)), places, cut)

    def targets(examples: Sequence[Example], rows: Rows) -> list[np.ndarray]:
        seen = list(examples)
        if task.kind == "tagging":  # what was cut off is not to be written
            kept, _ = shortened(examples, tokenizer, task)
            pairs = zip(examples, kept, strict=True)
            seen = [e._replace(gold=spans_within(e, own.text)) for e, own in pairs]
        wanted = [prompter.lead + prompter.wanted(seen[i]) for i in rows.example]
        limit, found = task.max_target_length - 1, answer_ids(wanted, tokenizer)
        _say_cut(sum(len(own) > limit for own in found), task)
        return [np.array(own[:limit] + ends[:1], np.int32) for own in found]

    def respond(params: Params, feed: Feed, examples: Sequence[Example]) -> list[str]:
        return write(params, feed.rows.input_ids, examples)[0]

    return Learner(
        specs=model.specs,
        init=model.init,
        start=lambda seed: backbone.params,
        loss=_without_label_options(lambda: build_answer_loss(model)),
        respond=respond,
        encode=encode,
        targets=targets,
        row_flops=lambda s, t: decoder_answer_flops(model.config, s, t),
        pad_id=padding_id(tokenizer),
        labeller=None,
        use="text",
        score_names=labels,
        read=prompter.predictions,
        goes_on=True,
    )


def _without_label_options(build: Callable[[], Callable]) -> Callable[..., Callable]:
    """`Learner.loss` of what writes, which has no classes to smooth or weigh."""

    def loss(smoothing: float, weights: Sequence[float] | None) -> Callable:
        if smoothing or weights is not None:
            raise UserError(
                "training.label_smoothing and class_weights are for models with a head; remove them"
            )
        return build()

    return loss


def _say_cut(count: int, task: TaskConfig) -> None:
    if count:
        log.warning(
            "%d targets are longer than task.max_target_length %d and were cut",
            count,
            task.max_target_length,
        )
