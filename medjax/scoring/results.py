"""From the metrics of every seed to what is reported: intervals, tables, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax.scoring.bootstrap import Draws, Interval, draw, interval
from medjax.scoring.metric import Metric

LOWER_IS_BETTER = ("brier", "calibration_error", "calibration_error_before_temperature")


def all_draws(
    metrics: Sequence[Sequence[Metric]], clusters: np.ndarray, draws: int
) -> dict[str, Draws]:
    """Every metric on drawn clusters.

    Args:
      metrics: of each seed, in the same order.
    """
    return {
        of_metric[0].name: draw(of_metric, clusters, draws)
        for of_metric in zip(*metrics, strict=True)
    }


def intervals(
    metrics: Sequence[Sequence[Metric]], clusters: np.ndarray, draws: int
) -> dict[str, Interval]:
    """Every metric over the seeds, as `all_draws`."""
    return {name: interval(own) for name, own in all_draws(metrics, clusters, draws).items()}


def as_json(values: dict[str, Interval]) -> dict[str, Any]:
    """Plain values; what is not a number is null."""
    return {
        name: {k: _plain(v) for k, v in found._asdict().items()} for name, found in values.items()
    }


def table(rows: Sequence[tuple[str, dict[str, Interval]]], names: Sequence[str]) -> str:
    """A row a model, a column a metric: mean, deviation over seeds, interval."""
    header = ["", *names]
    lines = [
        [title, *(_cell(values[name]) if name in values else "" for name in names)]
        for title, values in rows
    ]
    return columns([header, *lines])


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Cells under each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(found: Interval) -> str:
    spread = "" if math.isnan(found.deviation) else f" ± {found.deviation:.3f}"
    return f"{found.mean:.3f}{spread} [{found.low:.3f}, {found.high:.3f}]"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
