"""What fine-tuning trains and asks: an encoder with a head on it, or a T5 that writes its answer.

Both are a Learner to the commands: parameters, a loss of rows, and what the model says of rows.
What that means for the task is the business of `tasks/decode.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.config import UserError
from medjax.data.tokenize import load_tokenizer
from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import build_generate
from medjax.models.heads import Labeller, attach, build_head, load_head, with_pretrained
from medjax.models.model import DECODERS, Params
from medjax.models.spec import count_params, init_params
from medjax.objectives.labels import build_label_loss, build_text_loss, masked_scores
from medjax.tasks.config import TaskConfig
from medjax.tasks.encode import Rows, encode_examples
from medjax.tasks.examples import Example
from medjax.tasks.tagging import tag_names
from medjax.tasks.targets import row_targets, text_targets
from medjax.tasks.text_forms import check_labels, source
from medjax.training.flops import BACKWARD_AND_FORWARD, t5_flops
from medjax.training.initial import Backbone
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
    respond: Callable[[Params, Feed], list]
    """What the model says of each row: logits, or the text that it writes."""
    encode: Callable[[Sequence[Example]], Rows]
    """Examples -> rows."""
    targets: Callable[[Sequence[Example], Rows], list[np.ndarray]]
    """Examples and their rows -> what is to be learnt of each row."""
    row_flops: Callable[[int, int], float]
    """Tokens of a row and of its target -> model FLOPs of a training step on it."""
    tokenizer: Any
    labeller: Labeller | None
    """The encoder and its head; none for a T5."""
    use: str
    """What the model gives scores of: "sequence", "token", "answer"; "text": it writes."""
    score_names: Sequence[str]
    """Names of the scores, in their order."""
    frozen: Params | None = None
    """What is not trained (`adapt.py`); the loss then takes it as `frozen`."""
    whole: Callable[[Params], Params] = lambda params: params
    """Trained parameters -> those of the model."""


def build_learner(
    backbone: Backbone,
    task: TaskConfig,
    labels: Sequence[str],
    head: str | None,
    decoding: DecodingConfig,
    mesh: Mesh,
) -> Learner:
    """The Learner of a task for a T5 or an encoder.

    Raises:
      UserError: the model, its tokenizer or the head do not fit the task.
    """
    limit = backbone.model.config.max_length
    if limit is not None and task.max_length > limit:
        raise UserError(
            f"task.max_length {task.max_length} is beyond the {limit} positions of the model; "
            "lower it"
        )
    family = backbone.model.config.model_type
    if family in DECODERS:
        raise UserError(
            f"a {family} is a decoder, which has no head for this task; give an encoder or a T5, "
            "or prompt it with medjax.prompt"
        )
    if family == "t5":
        return _writer(backbone, task, labels, head, decoding, mesh)
    if task.kind == "text_to_text":
        raise UserError("text_to_text needs a model that writes; give a T5 as init_from")
    return _with_head(backbone, task, labels, head, mesh)


def _with_head(
    backbone: Backbone, task: TaskConfig, labels: Sequence[str], head: str | None, mesh: Mesh
) -> Learner:
    """An encoder with the task's head."""
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
        row_flops=lambda length, target: 2.0 * BACKWARD_AND_FORWARD * weights * length,
        tokenizer=tokenizer,
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

    def respond(params: Params, feed: Feed) -> list[np.ndarray]:
        found: list[Any] = [None] * len(feed.rows.input_ids)
        pending: list[tuple[np.ndarray, jax.Array]] = []
        unlabelled = feed._replace(targets=None)
        for chosen in feed.plan.in_order_of_length():
            batch = unlabelled.batch(chosen)
            del batch["weight"]
            pending.append((chosen, logits(params, place_batch(batch, mesh))))
        for chosen, values in pending:
            for row, own in zip(chosen, np.asarray(values), strict=True):
                if row >= 0:
                    length = len(feed.rows.input_ids[row])
                    found[row] = own[:length] if kind in PER_TOKEN else own
        return found

    return respond


def _writer(
    backbone: Backbone,
    task: TaskConfig,
    labels: Sequence[str],
    head: str | None,
    decoding: DecodingConfig,
    mesh: Mesh,
) -> Learner:
    """A T5 that reads the task as text and writes the answer."""
    if head:
        raise UserError("head is for encoders; remove it, a T5 writes its answer")
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

    def loss(smoothing: float, weights: Sequence[float] | None) -> Callable:
        if smoothing or weights is not None:
            raise UserError(
                "training.label_smoothing and class_weights are for encoders; remove them"
            )
        return build_text_loss(model, start_id)

    def respond(params: Params, feed: Feed) -> list[str]:
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
        if cut:
            log.warning(
                "%d targets are longer than task.max_target_length %d and were cut",
                cut,
                task.max_target_length,
            )
        return found

    return Learner(
        specs=model.specs,
        init=model.init,
        start=lambda seed: backbone.params,
        loss=loss,
        respond=respond,
        encode=encode,
        targets=targets,
        row_flops=lambda s, t: float(BACKWARD_AND_FORWARD * t5_flops(model.config, s, t)),
        tokenizer=tokenizer,
        labeller=None,
        use="text",
        score_names=labels,
    )
