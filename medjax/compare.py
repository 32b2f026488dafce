"""Compare runs: scores, tests, tokens, FLOPs and cost in one report.

    python -m medjax.compare RUN_DIR RUN_DIR [RUN_DIR ...] [--output FOLDER]
    python -m medjax.compare CONFIG.yaml

Runs of medjax.finetune and medjax.prompt are put together by their test examples, and followed back
to what their models have read. The folder then holds `report.html` (one file, readable offline),
`report.md`, `results.csv` and every figure as SVG and PNG. What cannot be used is named, and the
rest is reported.

    tasks:
      RQE: {runs: [runs/rqe-*]}
      MedNLI: {runs: [runs/mednli-*], published: MedNLI}
    reference: bert_scratch
    prices: {cpu: 0.05, NVIDIA H100: 2.5}
"""

from __future__ import annotations

from pathlib import Path

from medjax.comparison.config import CompareConfig
from medjax.config import UserError, main
from medjax.scoring.results import columns

TITLE = "Which model is worth it?"


def run(config: CompareConfig) -> int:
    """Writes the report and prints its scores; the exit code."""
    from medjax.comparison.advice import advice
    from medjax.comparison.claims import claims
    from medjax.comparison.collect import collect
    from medjax.comparison.costs import costs, pareto, use
    from medjax.comparison.curves import labels, tokens
    from medjax.comparison.literature import literature
    from medjax.comparison.losses import scaling
    from medjax.comparison.report import Section, write_csv, write_report
    from medjax.comparison.tables import HEADER, numbers, scores, tests

    folder = Path(config.output)
    if folder.exists() and any(folder.iterdir()) and not (folder / "report.md").exists():
        raise UserError(
            f"{folder}: is not empty and holds no earlier report; choose another output"
        )
    found = collect(config)
    sections = [advice(found)]
    if found.tasks:
        sections += [scores(found), tests(found), costs(found), use(found), pareto(found)]
    sections += [tokens(found), scaling(found), labels(found), claims(found), literature()]
    doubts = found.problems or ["Nothing was left out."]
    sections.append(Section("Left out, or to be taken with care", doubts))
    write_report(folder, TITLE, sections)
    write_csv(folder / "results.csv", HEADER, numbers(found))
    for section in sections[:3] if found.tasks else ():
        for block in section.blocks:
            if isinstance(block, str):
                print(block)
            elif hasattr(block, "rows"):
                block = block.filled()
                print(f"\n{block.caption}\n{columns([list(block.header), *map(list, block.rows)])}")
        print()
    print(f"{folder / 'report.html'} (tasks: {len(found.tasks)}, models: {len(found.models)})")
    for problem in found.problems:
        print(f"  {problem}")
    return 0


if __name__ == "__main__":
    main(CompareConfig, run, __doc__, folders="runs")
