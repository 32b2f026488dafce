"""What a model says of rows to predictions: pooled classes, spans out of tags, answers, texts; and
what is selected on validation to make them: thresholds, temperature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from medjax.scoring.classification import (
    auprc,
    auroc,
    brier,
    calibration_error,
    multi_label_metrics,
    single_label_metrics,
)
from medjax.scoring.metric import Metric
from medjax.scoring.selection import (
    best_f1_thresholds,
    best_null_threshold,
    fit_temperature,
    threshold_for_recall,
)
from medjax.scoring.spans import seqeval_metrics, span_metrics, string_set_metrics
from medjax.scoring.squad import squad_metrics
from medjax.scoring.text import text_metrics
from medjax.tasks.config import TaskConfig
from medjax.tasks.encode import NOWHERE, Rows
from medjax.tasks.entities import entity_strings, gold_strings, read_entities
from medjax.tasks.examples import Example
from medjax.tasks.question_answering import Found, best_answer
from medjax.tasks.tagging import spans_of_tags, tag_names, tags_of_words
from medjax.tasks.targets import seen
from medjax.tasks.text_forms import Written, parse

ALWAYS_ANSWER = 1e30
MAIN_METRICS = {
    "classification": "accuracy",
    "relations": "micro_f1",
    "multilabel": "micro_f1",
    "tagging": "span_f1",
    "question_answering": "f1",
    "text_to_text": "rougeL",
}


class Scored(NamedTuple):
    """What a model says of a split, one row after the other."""

    examples: Sequence[Example]
    rows: Rows
    outputs: Sequence[np.ndarray] | Sequence[str]
    """Of each row its logits ([C], or [T, C] for tags, [T, 2] for answers), or the text written."""
    read: Callable[[Sequence[str], Sequence[Example]], Predictions] | None = None
    """Texts, one an example, to predictions; none: by the rules of `text_forms`."""

    @property
    def is_text(self) -> bool:
        """Whether the model writes."""
        return isinstance(self.outputs[0], str)


class Selection(NamedTuple):
    """Chosen on validation, before test is looked at."""

    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    """multilabel: probability of each label from which on it is given."""
    null_threshold: float = 0.0
    """question_answering: margin above which there is no answer."""
    operating: float | None = None
    """Probability from which on the class of the operating point is flagged."""


class Predictions(NamedTuple):
    """What the model says of each example."""

    values: list[Any]
    """classification, relations: class; multilabel: tuple of classes; tagging: tuple of Span;
    question_answering: Found, or None for no answer; text_to_text: Written. -1: no class."""
    probabilities: Float[np.ndarray, "N C"] | None
    uncalibrated: Float[np.ndarray, "N C"] | None = None
    """Probabilities without the temperature that validation chose."""
    tags: list[list[str]] | None = None
    """tagging: of every word."""
    strings: list[frozenset[tuple[str, str]]] | None = None
    """tagging, of a model that writes: (type, words) of each entity that it names."""
    texts: list[str] | None = None
    """Of a model that writes: what it wrote, windows one a line."""
    not_understood: int | None = None
    """Of a model that writes: examples whose output, or a part of it, means nothing."""


def select(
    scored: Scored, labels: Sequence[str], config: TaskConfig, thresholds: float | str | None
) -> Selection:
    """What validation decides.

    Args:
      thresholds: multilabel: "tuned" for each label, or a probability for all of them.
    """
    if config.kind == "tagging" or scored.is_text:
        return Selection()
    if config.kind == "question_answering":
        gold = [[answer.text for answer in example.gold] for example in scored.examples]
        found = _answers(scored, config)
        margins = np.array([answer.margin for answer in found])
        if all(gold):  # every question has an answer: none is never right
            return Selection(null_threshold=ALWAYS_ANSWER)
        return Selection(
            null_threshold=best_null_threshold(gold, [answer.text for answer in found], margins)
        )
    logits = pooled(scored)
    if config.kind == "multilabel":
        if thresholds != "tuned":
            return Selection(thresholds=(thresholds,) * len(labels))
        gold = hot(scored.examples, len(labels))
        return Selection(thresholds=tuple(best_f1_thresholds(gold, _sigmoid(logits)).tolist()))
    gold = np.array([example.gold for example in scored.examples])
    return Selection(temperature=fit_temperature(logits, gold))


def predict(
    scored: Scored, labels: Sequence[str], config: TaskConfig, selection: Selection
) -> Predictions:
    """Predictions in the order of the examples."""
    if scored.read is not None:
        return scored.read(scored.outputs, scored.examples)
    if scored.is_text:
        return _of_texts(scored, labels, config)
    if config.kind == "tagging":
        tags = _word_tags(scored, tag_names(labels))
        pairs = zip(tags, scored.examples, strict=True)
        return Predictions([spans_of_tags(own, e.words) for own, e in pairs], None, tags=tags)
    if config.kind == "question_answering":
        found = _answers(scored, config)
        return Predictions(
            [None if a.margin > selection.null_threshold else a for a in found], None
        )
    logits = pooled(scored)
    if config.kind == "multilabel":
        probabilities = _sigmoid(logits)
        given = probabilities >= np.array(selection.thresholds)
        return Predictions([tuple(np.flatnonzero(row)) for row in given], probabilities)
    calibrated, plain = softmax(logits / selection.temperature), softmax(logits)
    return Predictions(logits.argmax(1).tolist(), calibrated, plain)


def metrics_of(
    examples: Sequence[Example],
    predictions: Predictions,
    labels: Sequence[str],
    config: TaskConfig,
) -> list[Metric]:
    """Every metric of the task's kind; `MAIN_METRICS` names the one that decides by default."""
    if config.kind == "tagging":
        gold = [tags_of_words(example.gold, example.words)[0] for example in examples]
        spans = span_metrics([example.gold for example in examples], predictions.values)
        found = [*spans, *seqeval_metrics(gold, predictions.tags)]
        if predictions.strings is not None:
            own = [gold_strings(example) for example in examples]
            found += string_set_metrics(own, predictions.strings)
        return found
    if config.kind == "question_answering":
        gold = [[answer.text for answer in example.gold] for example in examples]
        return squad_metrics(gold, ["" if v is None else v.text for v in predictions.values])
    if config.kind == "text_to_text":
        return text_metrics([[e.gold] for e in examples], [v.text for v in predictions.values])
    count, probabilities = len(labels), predictions.probabilities
    if config.kind == "multilabel":
        gold = hot(examples, count)
        given = np.zeros_like(gold)
        for i, value in enumerate(predictions.values):
            given[i, list(value)] = True
        return multi_label_metrics(gold, given)
    gold = np.array([example.gold for example in examples])
    predicted = np.array(predictions.values)
    positive = None
    if config.no_relation is not None:
        positive = [i for i, label in enumerate(labels) if label != config.no_relation]
    found = single_label_metrics(gold, predicted, count, positive)
    if probabilities is None:
        return found
    one_hot = np.eye(count, dtype=bool)[gold]
    found.append(brier(one_hot, probabilities))
    found.append(calibration_error(predicted == gold, probabilities.max(1)))
    if predictions.uncalibrated is not None:
        before = calibration_error(predicted == gold, predictions.uncalibrated.max(1))
        found.append(before._replace(name="calibration_error_before_temperature"))
    if count == 2:
        found += [auroc(gold == 1, probabilities[:, 1]), auprc(gold == 1, probabilities[:, 1])]
    return found


def metric_names(
    examples: Sequence[Example], labels: Sequence[str], config: TaskConfig, *, is_text: bool
) -> list[str]:
    """The metrics that predictions of these examples will have: those of the first one's gold."""
    first = examples[0]
    values, tags, probabilities = [first.gold], None, None
    if config.kind == "tagging":
        tags = [tags_of_words(first.gold, first.words)[0]]
    elif config.kind == "question_answering":
        values = [None]
    elif config.kind == "text_to_text":
        values = [Written(first.gold)]
    elif not is_text:
        probabilities = np.full((1, len(labels)), 1 / len(labels))
    strings = [frozenset()] if is_text and config.kind == "tagging" else None
    given = Predictions(values, probabilities, probabilities, tags, strings)
    return [metric.name for metric in metrics_of(examples[:1], given, labels, config)]


def take(predictions: Predictions, kept: np.ndarray) -> Predictions:
    """Those of some of the examples, by index."""
    lists = {n: getattr(predictions, n) for n in ("values", "tags", "strings", "texts")}
    arrays = {n: getattr(predictions, n) for n in ("probabilities", "uncalibrated")}
    some = {n: None if own is None else [own[i] for i in kept] for n, own in lists.items()}
    return predictions._replace(
        **some, **{n: None if own is None else own[kept] for n, own in arrays.items()}
    )


def flag_from(
    examples: Sequence[Example], predictions: Predictions, label: int, recall: float
) -> float:
    """The probability from which on flagging a class finds this share of its examples."""
    return threshold_for_recall(has(examples, label), predictions.probabilities[:, label], recall)


def has(examples: Sequence[Example], label: int) -> np.ndarray:
    """Which examples are of a class: [N]."""
    golds = (e.gold if isinstance(e.gold, tuple) else (e.gold,) for e in examples)
    return np.array([label in gold for gold in golds])


def pooled(scored: Scored) -> Float[np.ndarray, "N C"]:
    """The mean of the scores of each example's windows."""
    logits = np.stack(scored.outputs)
    totals = np.zeros((len(scored.examples), logits.shape[1]))
    np.add.at(totals, scored.rows.example, logits)
    counts = np.bincount(scored.rows.example, minlength=len(scored.examples))
    return totals / counts[:, None]


def hot(examples: Sequence[Example], count: int) -> np.ndarray:
    """Which labels each example has: [N, C]."""
    found = np.zeros((len(examples), count), bool)
    for i, example in enumerate(examples):
        found[i, list(example.gold)] = True
    return found


def softmax(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Probabilities of classes."""
    from scipy.special import softmax

    return softmax(logits, axis=1)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(logits)


def _of_texts(scored: Scored, labels: Sequence[str], config: TaskConfig) -> Predictions:
    """What the texts say; of tagging's windows all spans together.

    Tags, and so seqeval's figures, know only of spans that stand in the text.
    """
    parts: list[list[Any]] = [[] for _ in scored.examples]
    texts: list[list[str]] = [[] for _ in scored.examples]
    for i, places, output in zip(
        scored.rows.example, scored.rows.places, scored.outputs, strict=True
    ):
        own = seen(scored.examples[i], places, config)
        parts[i].append(parse(output, scored.examples[i], labels, config, own))
        texts[i].append(output)
    written = {
        "texts": ["\n".join(own) for own in texts],
        "not_understood": sum(not all(part.understood for part in own) for own in parts),
    }
    if config.kind != "tagging":
        return Predictions([own[0].value for own in parts], None, **written)
    spans = [tuple(dict.fromkeys(s for part in own for s in part.value)) for own in parts]
    tags = [
        tags_of_words([s for s in own if s.fragments[0][0] >= 0], example.words)[0]
        for own, example in zip(spans, scored.examples, strict=True)
    ]
    strings = [entity_strings(read_entities(text, "plain"), labels) for text in written["texts"]]
    return Predictions(spans, None, tags=tags, strings=strings, **written)


def _word_tags(scored: Scored, names: Sequence[str]) -> list[list[str]]:
    """The tag of every word, from the window in which it is farthest from an end."""
    tags = [np.zeros(len(example.words), np.int64) for example in scored.examples]
    depth = [np.full(len(example.words), -1) for example in scored.examples]
    for i, places, logits in zip(
        scored.rows.example, scored.rows.places, scored.outputs, strict=True
    ):
        tokens = np.flatnonzero(places[:, 0] != NOWHERE)
        words = places[tokens, 0]
        own = np.minimum(tokens, len(places) - tokens)
        better = own > depth[i][words]
        depth[i][words[better]] = own[better]
        tags[i][words[better]] = logits[tokens[better]].argmax(1)
    return [[names[tag] for tag in own] for own in tags]


def _answers(scored: Scored, config: TaskConfig) -> list[Found]:
    windows: list[list[int]] = [[] for _ in scored.examples]
    for row, i in enumerate(scored.rows.example):
        windows[i].append(row)
    return [
        best_answer(
            example,
            [scored.outputs[row] for row in rows],
            [scored.rows.places[row] for row in rows],
            config.max_answer_length,
        )
        for example, rows in zip(scored.examples, windows, strict=True)
    ]
