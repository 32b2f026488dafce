"""What the papers say: their break-even figures recomputed, printed FLOPs that contradict them."""

from __future__ import annotations

from collections.abc import Sequence

from medjax.comparison.report import Section, Table
from medjax.published import papers, published_models
from medjax.scoring.cost import Option, break_even, contradictions

WEIGHTS = (
    1.0,
    1.12,
)  # Lehman et al. 2023, section 4.1: tokens of a general tokenizer for one of ours


def literature() -> Section:
    """The same in every report."""
    text = (
        "Total FLOPs = 6·P·w·(pretraining + fine-tuning tokens) + 2·P·w·(inference tokens), with w "
        "the tokens that a tokenizer makes for one of another (Lehman et al. 2023, section 4.1)."
    )
    rows = []
    models = {model.name: model for model in published_models()}
    for paper in papers().values():
        for stated in paper.get("break_even", ()):
            own, other = models[stated["first"]], models[stated["second"]]
            for weight in WEIGHTS:
                paid = Option(own.parameters, sum(own.tokens.values()))
                found = break_even(paid, Option(other.parameters, weight=weight))
                rows.append(
                    [
                        own.name,
                        other.name,
                        f"{weight:g}",
                        f"{found / 1e9:.1f}B",
                        f"{stated['stated'] / 1e9:.0f}B [{stated['mark']}]",
                    ]
                )
    header = ["model", "against", "w of the other", "tokens of inference", "as printed"]
    tables = [Table("Break-even, recomputed", header, rows)]
    rows = [
        [own.model, own.domain, f"{own.printed:.1e}", f"{own.computed:.1e}"]
        for own in contradictions(published_models())
    ]
    header = ["model", "domain", "printed", "6·P·T"]
    tables.append(Table("Printed FLOPs that the formula contradicts", header, rows))
    corrected = [line for paper in papers().values() for line in paper.get("corrected", ())]
    return Section("The papers", [text, *tables, *_listed(corrected)])


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"Corrected here: {'; '.join(lines)}."] if lines else []
