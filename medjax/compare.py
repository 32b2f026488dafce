"""Compare finished fine-tuning runs that were scored on the same test examples.

    python -m medjax.compare RUN_DIR RUN_DIR [RUN_DIR ...]

The first run is the reference: of every other one the difference to it is shown with its interval
and p-value, by a paired bootstrap over patients (else documents) and training seeds, and the
p-value adjusted for the number of comparisons (Holm).
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from medjax.config import Schema, UserError, main
from medjax.scoring.bootstrap import interval
from medjax.scoring.paired import difference, holm, load_scores
from medjax.scoring.results import columns, table


class CompareConfig(Schema):
    """What is compared."""

    runs: list[str] = Field(min_length=2)
    """Run directories of medjax.finetune; the first is the reference."""
    metric: str | None = None
    """By default the one that decided on the reference's validation."""
    output: str | None = None
    """A JSON file for the figures."""


def run(config: CompareConfig) -> int:
    """Prints scores and differences; the exit code."""
    if len(set(map(Path, config.runs))) < len(config.runs):
        raise UserError("runs: a run stands there twice; name each once")
    scores = [load_scores(path) for path in config.runs]
    reference, metric = scores[0], config.metric or scores[0].metric
    found = [difference(own, reference, metric) for own in scores[1:]]
    adjusted = holm([own.p_value for own in found])
    rows = [(str(s.run_dir), {metric: interval(s.rows[s.main][metric])}) for s in scores]
    print("test: mean ± deviation over seeds [95% interval over groups and seeds]")
    print(table(rows, [metric]))
    print(f"\ndifference to {reference.run_dir} [95% interval]")
    lines = [["", metric, "p", "p (Holm)"]]
    results = {}
    for own, change, p_value in zip(scores[1:], found, adjusted, strict=True):
        shown = f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        lines.append([str(own.run_dir), shown, f"{change.p_value:.3f}", f"{p_value:.3f}"])
        results[str(own.run_dir)] = change._asdict() | {"p_value_holm": p_value}
    print(columns(lines))
    if config.output:
        content = {"metric": metric, "reference": str(reference.run_dir)}
        content["scores"] = {name: own[metric]._asdict() for name, own in rows}
        content["difference"] = results
        Path(config.output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    main(CompareConfig, run, __doc__, folders="runs")
