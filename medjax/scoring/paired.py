"""Comparison of runs by what each left in `draws.npz`: its scores on the same drawn clusters.

All runs draw clusters with the same seed, so that runs on the same test examples in the same groups
were scored on the same draws, and their differences are those of a paired bootstrap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from medjax.config import UserError
from medjax.scoring.bootstrap import Difference, Draws, compare
from medjax.scoring.metric import FORMS, Metric

FILE = "draws.npz"
BETWEEN = "\t"  # of a row's name and a metric's
SWAPS = 2000


class Counts(NamedTuple):
    """What a metric is made of."""

    form: str
    """Which of `metric.FORMS`."""
    of_groups: Float[np.ndarray, "S C K"]
    """Summed over the examples of each cluster, for each training seed."""


class Scores(NamedTuple):
    """A run's scores on test."""

    run_dir: Path
    metric: str
    """The one that decided on validation."""
    main: str
    """The row of the run's own model on most labels; other rows are other shares and baselines."""
    rows: dict[str, dict[str, Draws]]
    """Name -> metric -> draws."""
    test: str
    """Equal for equal test examples, groups, gold and labels."""
    counts: Counts | None = None
    """Of the main row's deciding metric, where it is one of summed counts."""


def group_counts(metrics: Sequence[Metric], clusters: Int[np.ndarray, " N"]) -> Counts | None:
    """The counts of one metric of each seed's predictions.

    Args:
      clusters: which cluster each example belongs to.
    """
    if metrics[0].form is None:
        return None
    sums = np.zeros((len(metrics), int(clusters.max()) + 1, metrics[0].counts.shape[1]))
    for own, metric in zip(sums, metrics, strict=True):
        np.add.at(own, clusters, metric.counts)
    return Counts(metrics[0].form, sums)


def save_draws(
    run_dir: Path, rows: dict[str, dict[str, Draws]], test: str, counts: Counts | None = None
) -> None:
    """Writes `draws.npz`.

    Args:
      test: what identifies the examples.
    """
    arrays = {"test": np.array(test)}
    if counts:
        arrays |= {"form": np.array(counts.form), "counts": counts.of_groups}
    for name, metrics in rows.items():
        for metric, own in metrics.items():
            for field, value in own._asdict().items():
                arrays[BETWEEN.join((name, metric, field))] = np.asarray(value)
    np.savez_compressed(run_dir / FILE, **arrays)


def load_scores(run_dir: str | Path) -> Scores:
    """The scores of a finished run.

    Raises:
      UserError: it has not finished, chose nothing on validation, or is damaged.
    """
    run_dir = Path(run_dir)
    for name in ("results.json", "selection.json", FILE):
        if not (run_dir / name).is_file():
            raise UserError(
                f"{run_dir}: no {name}; only finished runs of medjax.finetune can be compared"
            )
    try:
        results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
        with np.load(run_dir / FILE) as file:
            test = str(file["test"])
            counts = Counts(str(file["form"]), file["counts"]) if "form" in file else None
            found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
            for key in file.files:
                if BETWEEN in key:
                    name, metric, field = key.split(BETWEEN)
                    found.setdefault(name, {}).setdefault(metric, {})[field] = file[key]
        rows = {
            name: {m: Draws(**own)._replace(clusters=int(own["clusters"])) for m, own in of.items()}
            for name, of in found.items()
        }
        return Scores(run_dir, results["metric"], results["main"], rows, test, counts)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(
            f"{run_dir}: results.json or {FILE} is damaged ({type(error).__name__}); "
            "remove results.json and run the same command again"
        ) from None


def difference(first: Scores, second: Scores, metric: str) -> Difference:
    """The first run's main row less the second's.

    Raises:
      UserError: they were not scored on the same examples, with the same metric and draws.
    """
    both = f"{first.run_dir} and {second.run_dir}"
    if first.test != second.test:
        raise UserError(
            f"{both} were scored on other test examples, groups or labels, so nothing is paired"
        )
    for scores in (first, second):
        if metric not in scores.rows[scores.main]:
            raise UserError(
                f"{scores.run_dir} has no metric {metric!r}; it has "
                f"{', '.join(scores.rows[scores.main])}"
            )
    own, other = (scores.rows[scores.main][metric] for scores in (first, second))
    if len(own.drawn) != len(other.drawn):
        raise UserError(f"{both} differ in `draws`; run one again with the other's")
    return compare(own, other)


def permutation(first: Counts, second: Counts, swaps: int = SWAPS) -> float:
    """p-value of an approximate randomization test (Noreen 1989): the two models' predictions of
    whole clusters change places at random. Seeds are paired in their order.
    """
    seeds = min(len(first.of_groups), len(second.of_groups))
    own, other, form = first.of_groups[:seeds], second.of_groups[:seeds], FORMS[first.form]
    swapped = np.random.default_rng(0).random((swaps, own.shape[1])) < 0.5
    swapped = np.concatenate([np.zeros((1, own.shape[1])), swapped])  # first as it is
    differences = np.mean(
        [
            form((1 - swapped) @ a + swapped @ b) - form(swapped @ a + (1 - swapped) @ b)
            for a, b in zip(own, other, strict=True)
        ],
        axis=0,
    )
    found, drawn = abs(differences[0]), np.abs(differences[1:])
    return float((1 + (drawn >= found - 1e-12).sum()) / (swaps + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted (Holm 1979): never below the raw ones."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted.tolist()
