"""Losses of labelled rows, as sums for the train step: of classes, tags, answers' ends, and texts.

A batch holds `weight` [B]: 1 for a row, 0 for what fills up the last batch of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from medjax.models.heads import Labeller
from medjax.models.model import Batch, Model, Params
from medjax.objectives.vocabulary_loss import vocabulary_loss

Sums = dict[str, Array]
IGNORED = -100
LOSS_CHUNK = 128


def build_label_loss(
    labeller: Labeller,
    kind: str,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Callable[..., Sums]:
    """`loss(params, batch, keys, *, key) -> sums` for `training/step.py`.

    Args:
      kind: "classification" or "relations" (`labels` [B]), "multilabel" (`labels` [B, C], 0 or 1),
        "tagging" (`labels` [B, T], -100: no prediction) or "question_answering" (`labels` [B, 2]:
        the answer's first and last token).
      smoothing: label smoothing of classes and tags.
      class_weights: of each class in the loss of classification, relations and multilabel.
    """
    weights = None if class_weights is None else jnp.asarray(class_weights, jnp.float32)

    def loss(params: Params, batch: Batch, keys: Array, *, key: Array | None = None) -> Sums:
        del keys  # nothing is drawn here
        logits = labeller.logits(params, batch, key=key).astype(jnp.float32)
        if kind == "question_answering":
            logits = masked_scores(logits, batch["attention_mask"])
        return sums_of(logits, batch["labels"], batch["weight"])

    def sums_of(logits: Array, labels: Array, rows: Array) -> Sums:
        if kind == "multilabel":
            nats = optax.sigmoid_binary_cross_entropy(logits, labels)
            nats = nats if weights is None else nats * weights
            right = (logits > 0) == (labels > 0)
            return _sums(nats, right, jnp.broadcast_to(rows[:, None], nats.shape))
        if kind == "question_answering":
            scores = jnp.swapaxes(logits, 1, 2)  # [B, 2, T]
            return _sums(*_classes(scores, labels, 0.0), jnp.stack([rows, rows], 1))
        if kind == "tagging":
            known = (labels != IGNORED) * rows[:, None]
            return _sums(*_classes(logits, jnp.maximum(labels, 0), smoothing), known)
        own = rows if weights is None else rows * weights[labels]
        return _sums(*_classes(logits, labels, smoothing), own)

    return loss


def build_text_loss(model: Model, start_id: int) -> Callable[..., Sums]:
    """The same for a T5 that writes: `labels` [B, T], -100 where nothing is to be written.

    Args:
      start_id: what the decoder begins with.
    """

    def loss(params: Params, batch: Batch, keys: Array, *, key: Array | None = None) -> Sums:
        del keys
        known = batch["labels"] != IGNORED
        labels = jnp.where(known, batch["labels"], 0)
        before = jnp.roll(labels, 1, axis=1).at[:, 0].set(start_id)
        inputs = {n: batch[n] for n in ("input_ids", "attention_mask")}
        hidden = model.hidden(params, inputs | {"decoder_input_ids": before}, key=key)
        return vocabulary_loss(
            model.head(params, hidden),
            labels,
            known * batch["weight"][:, None],
            vocab_size=model.config.vocab_size,
            chunk=LOSS_CHUNK,
        )._asdict()

    return loss


def build_answer_loss(model: Model) -> Callable[..., Sums]:
    """The same for a decoder that goes on from prompts: the loss is on the answers alone.

    `input_ids` [B, L]: prompts, each with its answer after it, one or several in a row, which
    `segment_ids` (0: padding) and `position_ids` [B, L] tell apart. `labels` [B, A]: the tokens of
    the answers, -100 where there are no more; `places` [B, A]: the token before each, whose states
    alone are made scores of.
    """

    def loss(params: Params, batch: Batch, keys: Array, *, key: Array | None = None) -> Sums:
        del keys
        inputs = {name: batch[name] for name in ("input_ids", "segment_ids", "position_ids")}
        hidden = model.hidden(params, inputs, key=key)
        hidden = jnp.take_along_axis(hidden, batch["places"][..., None], 1)
        known = batch["labels"] != IGNORED
        return vocabulary_loss(
            model.head(params, hidden),
            jnp.where(known, batch["labels"], 0),
            known.astype(jnp.float32),
            vocab_size=model.config.vocab_size,
            chunk=LOSS_CHUNK,
        )._asdict()

    return loss


def masked_scores(logits: Float[Array, "B T 2"], attention_mask: Array) -> Float[Array, "B T 2"]:
    """Scores of answers' ends, where padding can be none."""
    return jnp.where(attention_mask[..., None] > 0, logits, jnp.finfo(jnp.float32).min / 2)


def _classes(logits: Array, labels: Array, smoothing: float) -> tuple[Array, Array]:
    """Cross-entropy in nats, and where the best class is the right one."""
    log_probabilities = jax.nn.log_softmax(logits)
    nats = -jnp.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]
    if smoothing:
        nats = (1 - smoothing) * nats - smoothing * log_probabilities.mean(-1)
    return nats, logits.argmax(-1) == labels


def _sums(nats: Array, right: Array, weight: Array) -> Sums:
    weight = weight.astype(jnp.float32)
    return {
        "loss": (nats * weight).sum(),
        "z_loss": jnp.float32(0),
        "correct": (right * weight).sum(),
        "weight": weight.sum(),
    }
