"""Generated text against references: ROUGE (Lin 2004, by rouge-score) and exact match."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medjax.scoring.metric import Metric, additive

ROUGE = ("rouge1", "rouge2", "rougeL")


def text_metrics(references: Sequence[Sequence[str]], predicted: Sequence[str]) -> list[Metric]:
    """F-measures of ROUGE-1, -2 and -L (with stemming), and exact match up to white space.

    Of several references the one with the best score counts.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(ROUGE, use_stemmer=True)
    scores = np.zeros((len(predicted), len(ROUGE) + 1))
    for i, (own, text) in enumerate(zip(references, predicted, strict=True)):
        for reference in own:
            found = scorer.score(reference, text)
            exact = reference.split() == text.split()
            row = [*(found[name].fmeasure for name in ROUGE), float(exact)]
            scores[i] = np.maximum(scores[i], row)
    return [_mean(name, scores[:, i]) for i, name in enumerate((*ROUGE, "exact_match"))]


def _mean(name: str, scores: np.ndarray) -> Metric:
    counts = np.stack([scores, np.ones(len(scores))], axis=1)
    return additive(name, counts, "mean")
