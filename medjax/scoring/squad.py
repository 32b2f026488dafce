"""Extractive answers: exact match and F1 as SQuAD 2.0's official script counts them.

Rajpurkar et al. 2018. Of several gold answers the best counts; a question without an answer is
right if and only if the prediction is empty.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from medjax.scoring.metric import Metric, additive

ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_metrics(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> list[Metric]:
    """EM and F1 of all questions, of those with an answer and of those without.

    Beside them, the F1 of answering every question with nothing.

    Args:
      gold: the texts of each question's answers; none where it has no answer.
      predicted: one text a question; empty: no answer.
    """
    exact = np.array([exact_match(own, text) for own, text in zip(gold, predicted, strict=True)])
    overlap = np.array([token_f1(own, text) for own, text in zip(gold, predicted, strict=True)])
    answered = np.array([bool(answers(own)) for own in gold], float)
    everything = np.ones(len(gold))
    found = []
    for name, chosen in (("", everything), ("_has_answer", answered), ("_no_answer", 1 - answered)):
        if chosen.any():
            found.append(_mean(f"exact_match{name}", exact, chosen))
            found.append(_mean(f"f1{name}", overlap, chosen))
    return [*found, _mean("f1_always_empty", 1 - answered, everything)]


def exact_match(gold: Sequence[str], predicted: str) -> float:
    """1 if the normalised prediction is one of the gold answers."""
    return float(any(normalize(answer) == normalize(predicted) for answer in answers(gold) or [""]))


def token_f1(gold: Sequence[str], predicted: str) -> float:
    """The best overlap of words with a gold answer."""
    return max(_overlap(answer, predicted) for answer in answers(gold) or [""])


def answers(gold: Sequence[str]) -> list[str]:
    """Gold answers that are not empty once normalised."""
    return [answer for answer in gold if normalize(answer)]


def normalize(text: str) -> str:
    """Lower case, without punctuation and English articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def _overlap(gold: str, predicted: str) -> float:
    own, found = normalize(gold).split(), normalize(predicted).split()
    if not own or not found:
        return float(own == found)
    shared = sum((Counter(own) & Counter(found)).values())
    return 2 * shared / (len(own) + len(found))


def _mean(name: str, scores: np.ndarray, chosen: np.ndarray) -> Metric:
    return additive(name, np.stack([scores * chosen, chosen], axis=1), "mean")
