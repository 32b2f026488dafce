"""Predictions as JSON lines. No text of an example is among them: spans and answers are offsets."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.scoring.squad import normalize
from medjax.tasks.decode import Predictions
from medjax.tasks.examples import Example


def write_predictions(
    path: Path, examples: Sequence[Example], predictions: Predictions, labels: Sequence[str]
) -> None:
    """`predictions.jsonl`: id, gold, prediction, probabilities."""
    with path.open("w", encoding="utf-8") as file:
        for i, example in enumerate(examples):
            row = prediction(example, predictions, i, labels)
            row = {"id": row.pop("id"), "gold": _shown(example.gold, labels)} | row
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def prediction(
    example: Example, predictions: Predictions, place: int, labels: Sequence[str]
) -> dict[str, Any]:
    """One example's: id, prediction and, where there are any, probabilities by class."""
    row = {"id": example.id, "prediction": _shown(predictions.values[place], labels)}
    if predictions.probabilities is not None:
        values = np.round(predictions.probabilities[place].astype(float), 6).tolist()
        row["probabilities"] = dict(zip(labels, values, strict=True))
    return row


def test_identity(examples: Sequence[Example], labels: Sequence[str]) -> str:
    """A hash of ids, groups, gold and labels: scores of equal ones can be paired."""
    shown = [(e.id, e.group, _shown(e.gold, labels)) for e in examples]
    content = json.dumps([list(labels), shown], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def write_errors(
    path: Path, examples: Sequence[Example], predictions: Predictions, labels: Sequence[str]
) -> None:
    """`errors.csv`: what is not as in the gold, the most certain first; JSON in its cells."""
    rows = []
    for i, example in enumerate(examples):
        given, gold = _shown(predictions.values[i], labels), _shown(example.gold, labels)
        if _is_right(predictions.values[i], example):
            continue
        sure = certainty(predictions, i)
        rows.append((example.id, *(json.dumps(v, ensure_ascii=False) for v in (gold, given)), sure))
    rows.sort(key=lambda row: -(row[3] or 0))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "gold", "prediction", "certainty"))
        table.writerows(row[:3] + (f"{row[3]:.4f}" if row[3] is not None else "",) for row in rows)


def certainty(predictions: Predictions, place: int) -> float | None:
    """The probability of an example's least certain decision; none without probabilities."""
    if predictions.probabilities is None:
        return None
    own = predictions.probabilities[place]
    if isinstance(predictions.values[place], tuple):  # every label is a decision
        return float(min(max(p, 1 - p) for p in own))
    return float(own.max())


def _is_right(value: Any, example: Example) -> bool:
    gold = example.gold
    if isinstance(gold, str):
        return value.text.split() == gold.split()
    if hasattr(value, "margin") or value is None:
        texts = [normalize(answer.text) for answer in gold]
        return normalize(value.text) in texts if value is not None else not gold
    return set(value) == set(gold) if isinstance(value, tuple) else value == gold


def write_texts(path: Path, examples: Sequence[Example], predictions: Predictions) -> None:
    """What was written, in a file for its owner alone."""
    path.unlink(missing_ok=True)
    with private_file(path) as file:
        for example, text in zip(examples, predictions.texts, strict=True):
            row = {"id": example.id, "text": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def private_file(path: Path) -> Any:
    """A new file that its owner alone may read."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _shown(value: Any, labels: Sequence[str]) -> Any:
    """Class names; offsets for spans and answers, the length of a text."""
    if value is None:
        return None
    if hasattr(value, "margin"):
        return {"start": value.start, "end": value.end} if value.start >= 0 else {"start": None}
    if isinstance(value, str) or hasattr(value, "text"):
        return {"characters": len(getattr(value, "text", value))}
    if isinstance(value, tuple):
        return [_shown_item(item, labels) for item in value]
    return labels[value] if value >= 0 else None


def _shown_item(item: Any, labels: Sequence[str]) -> Any:
    if hasattr(item, "fragments"):
        return {"fragments": item.fragments, "label": item.type}
    if hasattr(item, "start"):
        return {"start": item.start, "end": item.start + len(item.text)}
    return labels[item]
