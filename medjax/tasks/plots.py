"""Pictures of a fine-tuning run: confusion matrix, reliability, learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from medjax.scoring.bootstrap import Interval
from medjax.scoring.classification import CALIBRATION_BINS

MAX_CLASSES = 40
LONGEST_NAME = 24


def confusion(
    path: Path, gold: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], labels: Sequence[str]
) -> None:
    """Counts of gold class (rows) by predicted class; the last column may be "no class"."""
    if len(labels) > MAX_CLASSES:
        return
    columns = [*labels, "no class"] if (predicted < 0).any() else list(labels)
    counts = np.zeros((len(labels), len(columns)), int)
    np.add.at(counts, (gold, np.where(predicted < 0, len(labels), predicted)), 1)
    size = 2.5 + 0.45 * len(labels)
    figure, axes = _figure(size + 1, size)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(columns)), map(_short, columns), rotation=90)
    axes.set_yticks(range(len(labels)), map(_short, labels))
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    _save(figure, path)


def reliability(
    path: Path,
    correct: Bool[np.ndarray, " N"],
    confidences: dict[str, Float[np.ndarray, " N"]],
) -> None:
    """Share of right answers against confidence, in the bins of the calibration error."""
    figure, axes = _figure(4.2, 4.0)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, confidence in confidences.items():
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        counts = np.bincount(bins, minlength=CALIBRATION_BINS)
        used = counts > 0
        places, shares = (
            np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)[used] / counts[used]
            for values in (confidence, correct)
        )
        axes.plot(places, shares, marker="o", markersize=4, label=name)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right answers")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)
    _save(figure, path)


def learning_curve(
    path: Path,
    metric: str,
    points: Sequence[tuple[int, Interval]],
    lines: dict[str, float],
) -> None:
    """A score with its interval against the labelled examples; baselines as lines."""
    figure, axes = _figure(5.2, 3.8)
    counts = [count for count, _ in points]
    means, lows, highs = (
        np.array([getattr(found, name) for _, found in points]) for name in ("mean", "low", "high")
    )
    errors = np.stack([means - lows, highs - means]).clip(0)
    axes.errorbar(counts, means, errors, marker="o", capsize=3, label="fine-tuned")
    for number, (name, value) in enumerate(lines.items()):
        axes.axhline(value, linestyle=("--", ":")[number % 2], color="grey", label=name)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("labelled examples in train")
    axes.set_ylabel(metric)
    axes.legend(frameon=False)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: no state of the process is touched

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
