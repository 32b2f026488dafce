"""What no model has to learn: the most frequent class, and logistic regression on word counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medjax.tasks.config import TaskConfig
from medjax.tasks.decode import Predictions, hot
from medjax.tasks.examples import Example

BASELINES = ("majority", "tfidf_logreg")
KINDS = ("classification", "relations", "multilabel")
MAX_FEATURES = 50_000


def baseline(
    name: str,
    train: Sequence[Example],
    examples: Sequence[Example],
    labels: Sequence[str],
    config: TaskConfig,
) -> Predictions:
    """Predictions of "majority" or "tfidf_logreg" (TF-IDF of words and pairs of words)."""
    if config.kind == "multilabel":
        gold = hot(train, len(labels))
        return _multilabel(name, train, examples, gold)
    gold = np.array([example.gold for example in train])
    shares = np.bincount(gold, minlength=len(labels)) / len(gold)
    if name == "majority":
        probabilities = np.tile(shares, (len(examples), 1))
        return Predictions([int(shares.argmax())] * len(examples), probabilities)
    from sklearn.linear_model import LogisticRegression

    features, own = _features(train, examples)
    model = LogisticRegression(max_iter=1000).fit(features, gold)
    probabilities = np.zeros((len(examples), len(labels)))
    probabilities[:, model.classes_] = model.predict_proba(own)
    return Predictions(probabilities.argmax(1).tolist(), probabilities)


def _multilabel(
    name: str, train: Sequence[Example], examples: Sequence[Example], gold: np.ndarray
) -> Predictions:
    shares = gold.mean(0)
    if name == "majority":
        probabilities = np.tile(shares, (len(examples), 1))
    else:
        from sklearn.linear_model import LogisticRegression

        features, own = _features(train, examples)
        probabilities = np.tile(shares, (len(examples), 1))
        for label in np.flatnonzero((shares > 0) & (shares < 1)):
            model = LogisticRegression(max_iter=1000, class_weight="balanced")
            probabilities[:, label] = model.fit(features, gold[:, label]).predict_proba(own)[:, 1]
    return Predictions([tuple(np.flatnonzero(row >= 0.5)) for row in probabilities], probabilities)


def _features(train: Sequence[Example], examples: Sequence[Example]) -> tuple:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, max_features=MAX_FEATURES, sublinear_tf=True
    )
    return vectorizer.fit_transform(map(_text, train)), vectorizer.transform(map(_text, examples))


def _text(example: Example) -> str:
    return f"{example.text} {example.text_pair or ''}"
