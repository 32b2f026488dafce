"""Sections made of runs that are not there: a planted law is found again and drawn."""

from pathlib import Path

from medjax.comparison.collect import Comparison
from medjax.comparison.config import CompareConfig
from medjax.comparison.curves import scaling, tokens
from medjax.comparison.report import Picture, Table, write_report
from medjax.comparison.runs import Pretraining
from medjax.scoring.lineage import Stage
from medjax.scoring.scaling import Scaling

LAW = Scaling(e=1.2, a=50.0, alpha=0.3, b=200.0, beta=0.3)


def pretraining(parameters, read, objective="masked_lm"):
    """A run whose loss at each of its evaluations is the law's."""
    stage = Stage(
        kind="pretraining", name="r", parameters=parameters, objective=objective,
        tokens={"clinical": read}, bytes={"clinical": 4 * read}, flops=6 * parameters * read,
    )  # fmt: skip
    losses = [(k, LAW.loss(parameters, read * k / 4)) for k in (1, 2, 3, 4)]
    return Pretraining(Path("r"), f"{parameters:.0e}-{read:.0e}", stage, [], 4, losses)


def test_a_planted_law_is_found_and_objectives_stay_apart(tmp_path):
    runs = [pretraining(n, d) for n in (1e6, 4e6, 16e6) for d in (1e7, 4e7, 16e7, 64e7)]
    few = [pretraining(1e6, 1e7, "causal_lm")]
    asked = [{"parameters": 4e6, "tokens": 4e7}, {"parameters": 1e9, "tokens": 1e9}]
    of = Comparison(CompareConfig(predict=asked), [], runs + few, [])
    found = scaling(of)
    causal, text, picture, table = found.blocks
    assert causal.startswith("bits per byte (causal)") and "no fit is made" in causal
    assert text.startswith("nats per masked byte (masked_lm)") and "L = 1.2" in text
    (_, _, within, note), (_, _, _, beyond) = table.rows
    assert float(within.split()[0]) == round(LAW.loss(4e6, 4e7), 3)
    assert (note, beyond) == ("", "extrapolated")
    curves = tokens(of)
    names = [block.name for block in curves.blocks if isinstance(block, Picture)]
    assert len(names) == 6 and len(set(names)) == 6  # two objectives, three axes
    assert sum(isinstance(block, Table) for block in curves.blocks) == 2
    write_report(tmp_path, "t", [found, curves])
    assert len(list((tmp_path / "figures").glob("*.png"))) == 7
    assert f"figures/{picture.name}.svg" in (tmp_path / "report.md").read_text()
