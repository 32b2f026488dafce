"""What fine-tuning trains and asks: a model with a head on it.

A Learner is what the commands know: parameters, a loss of rows, and what the model says of rows;
`writers.py` makes those that write their answers. What it means for the task is the business of
`tasks/decode.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.config import UserError
from medjax.data.tokenize import load_tokenizer, padding_id
from medjax.decoding.config import DecodingConfig
from medjax.models.config import DECODERS
from medjax.models.heads import Labeller, attach, build_head, load_head, with_pretrained
from medjax.models.model import Params
from medjax.models.spec import count_params, init_params
from medjax.objectives.labels import build_label_loss, masked_scores
from medjax.tasks.config import TaskConfig
from medjax.tasks.decode import Predictions
from medjax.tasks.encode import Rows, encode_examples
from medjax.tasks.examples import Example
from medjax.tasks.tagging import tag_names
from medjax.tasks.targets import row_targets
from medjax.tasks.templates import AnswersConfig
from medjax.training.flops import BACKWARD_AND_FORWARD
from medjax.training.initial import Backbone, without_lm_head
from medjax.training.labelled import Feed
from medjax.training.mesh import place_batch

log = logging.getLogger(__name__)

PER_TOKEN = ("tagging", "question_answering")


class Learner(NamedTuple):
    """A model and its task as pure functions of its parameters and of rows."""

    specs: Params
    init: Callable[[jax.Array], Params]
    start: Callable[[int], Params]
    """Seed -> the first parameters: the published ones, and a fresh head."""
    loss: Callable[..., Callable[..., dict[str, jax.Array]]]
    """loss(label_smoothing, class_weights) -> the loss for `training/step.py`."""
    respond: Callable[[Params, Feed, Sequence[Example]], list]
    """What the model says of each row of these examples: logits, or the text that it writes."""
    encode: Callable[[Sequence[Example]], Rows]
    """Examples -> rows."""
    targets: Callable[[Sequence[Example], Rows], list[np.ndarray]]
    """Examples and their rows -> what is to be learnt of each row."""
    row_flops: Callable[[int, int], float]
    """Tokens of a row and of its target -> model FLOPs of the forward pass."""
    pad_id: int
    """Fills rows up."""
    labeller: Labeller | None
    """The backbone and its head; none for a model that writes."""
    use: str
    """What the model gives scores of: "sequence", "token", "answer"; "text": it writes."""
    score_names: Sequence[str]
    """Names of the scores, in their order."""
    read: Callable[[Sequence[str], Sequence[Example]], Predictions] | None = None
    """What was written to predictions, other than by `tasks/text_forms.py`."""
    goes_on: bool = False
    """Targets go on from their rows, as a decoder's answers from prompts."""
    frozen: Params | None = None
    """What is not trained (`adapt.py`); the loss then takes it as `frozen`."""
    whole: Callable[[Params], Params] = lambda params: params
    """Trained parameters -> those of the model."""
    backward: float = BACKWARD_AND_FORWARD - 1.0
    """FLOPs of the backward pass relative to those of the forward pass."""


def build_learner(
    backbone: Backbone,
    task: TaskConfig,
    labels: Sequence[str],
    head: str | None,
    answers: AnswersConfig,
    decoding: DecodingConfig,
    mesh: Mesh,
) -> Learner:
    """The Learner of a task.

    Args:
      head: import path of a user's own; none: the family's.
      answers: whether a decoder has a head or writes, and how it is asked.

    Raises:
      UserError: the model, its tokenizer or the head do not fit the task.
    """
    from medjax.training.writers import asked_decoder, t5_writer

    limit = backbone.model.config.max_length
    if limit is not None and task.max_length > limit:
        raise UserError(
            f"task.max_length {task.max_length} is beyond the {limit} positions of the model; "
            "lower it"
        )
    family = backbone.model.config.model_type
    if family not in DECODERS and answers != AnswersConfig():
        raise UserError(f"answers is for decoders, not for a {family}; remove it")
    if head and (family == "t5" or family in DECODERS and answers.form == "text"):
        raise UserError(
            "head is for encoders and for decoders with answers.form head; remove it, the model "
            "writes its answer"
        )
    if family == "t5":
        return t5_writer(backbone, task, labels, decoding, mesh)
    if family in DECODERS and answers.form == "text":
        return asked_decoder(backbone, task, labels, answers, decoding, mesh)
    if task.kind == "text_to_text":
        raise UserError(
            "text_to_text needs a model that writes; give a T5 or a decoder as init_from"
        )
    if family in DECODERS:
        backbone = without_lm_head(backbone)
    return _with_head(backbone, task, labels, head, mesh)


def _with_head(
    backbone: Backbone, task: TaskConfig, labels: Sequence[str], head: str | None, mesh: Mesh
) -> Learner:
    """A model with the task's head."""
    config, tokenizer = backbone.model.config, load_tokenizer(backbone.tokenizer)
    use = {"tagging": "token", "question_answering": "answer"}.get(task.kind, "sequence")
    names = tag_names(labels) if use == "token" else labels
    count = 2 if use == "answer" else len(names)
    if head:
        module = load_head(head, count)
    else:
        kind = "sequence" if use == "sequence" else "token"
        module = build_head(kind, config, count, dropout=use != "answer")
    labeller = attach(backbone.model, module)
    embeddings = count_params(labeller.specs["backbone"]["embeddings"])
    weights = count_params(labeller.specs) - embeddings

    def start(seed: int) -> Params:
        own = init_params(labeller.specs["head"], jax.random.key(seed))
        own = with_pretrained(own, backbone.pretrained_head)
        whole = NamedSharding(mesh, PartitionSpec())
        return {"backbone": backbone.params, "head": jax.device_put(own, whole)}

    def loss(smoothing: float, weights: Sequence[float] | None) -> Callable:
        return build_label_loss(labeller, task.kind, smoothing, weights)

    windows = task.long == "windows" or task.kind in PER_TOKEN
    return Learner(
        specs=labeller.specs,
        init=labeller.init,
        start=start,
        loss=loss,
        respond=_scorer(labeller, task.kind, mesh),
        encode=lambda examples: encode_examples(examples, tokenizer, task, windows=windows),
        targets=lambda examples, rows: row_targets(examples, rows, labels, task),
        row_flops=lambda length, target: 2.0 * weights * length,
        pad_id=padding_id(tokenizer),
        labeller=labeller,
        use="own" if head else use,
        score_names=names,
    )


def _scorer(labeller: Labeller, kind: str, mesh: Mesh) -> Callable[[Params, Feed], list]:
    """Logits of each row: [C], or [T, C] for tags and answers' ends."""

    @jax.jit
    def logits(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        scores = labeller.logits(params, batch).astype(np.float32)
        if kind == "question_answering":
            scores = masked_scores(scores, batch["attention_mask"])
        return scores

    def respond(params: Params, feed: Feed, examples: Sequence[Example]) -> list[np.ndarray]:
        found: list[Any] = [None] * len(feed.rows.input_ids)
        pending: list[tuple[np.ndarray, jax.Array]] = []
        unlabelled, shape = feed._replace(targets=None), None
        for chosen in feed.plan.in_order_of_length():
            batch = unlabelled.batch(chosen)
            del batch["weight"]
            if shape != batch["input_ids"].shape:  # may compile, whose seconds are counted apart
                jax.block_until_ready(pending[-1:])
                shape = batch["input_ids"].shape
            pending.append((chosen, logits(params, place_batch(batch, mesh))))
        for chosen, values in pending:
            for row, own in zip(chosen, np.asarray(values), strict=True):
                if row >= 0:
                    length = len(feed.rows.input_ids[row])
                    found[row] = own[:length] if kind in PER_TOKEN else own
        return found

    return respond
