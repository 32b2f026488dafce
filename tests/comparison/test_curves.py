"""Sections made of runs that are not there: a planted law is found again and drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from medjax.comparison.collect import Comparison
from medjax.comparison.config import CompareConfig
from medjax.comparison.curves import tokens
from medjax.comparison.losses import scaling
from medjax.comparison.report import Picture, Table, write_report
from medjax.comparison.runs import Loss, Pretraining, load_pretraining
from medjax.scoring.lineage import Stage, write_lineage
from medjax.scoring.scaling import Scaling

LAW = Scaling(e=1.2, a=50.0, alpha=0.3, b=200.0, beta=0.3)


def pretraining(parameters, read, objective="masked_lm", domain="clinical"):
    """A run whose loss at each of its evaluations is the law's."""
    stage = Stage(
        kind="pretraining", name="r", parameters=parameters, objective=objective,
        tokens={domain: read}, bytes={domain: 4 * read}, flops=6 * parameters * read,
    )  # fmt: skip
    losses = [Loss(k, LAW.loss(parameters, read * k / 4), None) for k in (1, 2, 3, 4)]
    return Pretraining(Path("r"), f"{parameters:.0e}-{read:.0e}", stage, [], 4, losses, 5.0, 7.0)


def test_a_planted_law_is_found_and_objectives_stay_apart(tmp_path):
    runs = [pretraining(n, d) for n in (1e6, 4e6, 16e6) for d in (1e7, 4e7, 16e7, 64e7)]
    few = [pretraining(1e6, 1e7, "causal_lm")]
    asked = [{"parameters": 4e6, "tokens": 4e7}, {"parameters": 1e9, "tokens": 1e9}]
    of = Comparison(CompareConfig(predict=asked), [], runs + few, [])
    found = scaling(of)
    text, picture, table, causal = found.blocks
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


def test_each_text_has_its_own_picture_and_one_sentence_says_where_there_is_no_fit():
    grid = [(n, d) for n in (1e6, 4e6, 16e6) for d in (1e7, 4e7, 16e7, 64e7)]
    fitted = [pretraining(*own, domain=name) for own in grid for name in ("clinical", "general")]
    few = [pretraining(*own, "causal_lm", name) for own in grid[:4] for name in ("news", "songs")]
    found = scaling(Comparison(CompareConfig(), [], fitted + few, [])).blocks
    pictures = [block.name for block in found if isinstance(block, Picture)]
    assert len(pictures) == len(set(pictures)) == 2
    (refused,) = [block for block in found if isinstance(block, str) and "no fit" in block]
    assert "news text" in refused and "songs text" in refused


def validated(folder, read, efficiency, notes="9 notes of 99 bytes"):
    """A run directory whose loss falls with the logarithm of what it reads, batches alike hard."""
    folder.mkdir()
    hard = np.random.default_rng(0).normal(1, 0.1, 40)
    lines = []
    for step in (1, 2, 4, 8, 16):
        losses = (5 - np.log(efficiency * read * step / 16)) * hard
        own = {"step": step, "validation/loss": 3.0, "validation/unigram_plateau": 3.05}
        own["validation/nats_per_masked_byte"] = float(losses.mean())
        own["validation/batches"] = [[loss * 50, 50.0] for loss in losses]
        lines.append(json.dumps(own) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    stage = Stage(
        kind="pretraining", name=folder.name, parameters=10, objective="masked_lm",
        tokens={"clinical": read}, bytes={"clinical": 4 * read}, flops=60 * read,
        validated_on=notes,
    )  # fmt: skip
    write_lineage(folder, [stage])
    return load_pretraining(folder)


def test_what_a_loss_takes_is_compared_on_the_same_notes_alone(tmp_path):
    """One run needs a third of the other's tokens, in every draw: batches are drawn in pairs."""
    slow, fast = validated(tmp_path / "slow", 16.0, 1), validated(tmp_path / "fast", 16.0, 3)
    elsewhere = validated(tmp_path / "elsewhere", 16.0, 9, notes="3 notes of 33 bytes")
    blocks = tokens(Comparison(CompareConfig(), [], [slow, fast, elsewhere], [])).blocks
    (reached,) = (own for own in blocks if isinstance(own, Table) and "takes" in own.caption)
    assert "on 9 notes of 99 bytes" in reached.caption
    assert [row[0] for row in reached.rows] == ["slow", "fast"]
    assert reached.rows[1][2] == reached.rows[1][4] == "0.33 [0.33, 0.33]"
    assert "where slow ends" in reached.caption
    assert reached.rows[0][1:] == ["1.60e+01", "1", "9.60e+02", "1"]
    (ends,) = (own for own in blocks if isinstance(own, Table) and "9 notes" in own.caption
               and own is not reached)  # fmt: skip
    assert all("[" in row[6] for row in ends.rows)
    (near,) = {own for own in blocks if isinstance(own, str) and "slow, fast" in own}
    assert near.startswith("Hardly past the unigram plateau")


def test_declared_lineages_are_curves_of_the_ends_of_runs(tmp_path):
    runs = [validated(tmp_path / f"r{n}", float(n), 1) for n in (4, 8, 16)]
    config = CompareConfig(lineages={"notes": ["r4", "r8", "r16"]})
    found = tokens(Comparison(config, [], runs, [])).blocks
    picture = next(own for own in found if isinstance(own, Picture))
    (line,) = picture.figure.axes[0].containers
    assert line[0].get_xdata() == pytest.approx([4, 8, 16])


def test_a_law_is_of_runs_on_one_text(tmp_path):
    """Continued runs and those on other text are apart; a branch on the same text is not."""
    general = pretraining(1e6, 1e7).stage.model_copy(update={"tokens": {"general": 1e7}})
    own = pretraining(4e6, 1e7)
    again, more = own._replace(earlier=[own.stage]), own._replace(earlier=[general, own.stage])
    assert (own.text, again.text, more.text) == ("clinical", "clinical", "general then clinical")
    blocks = scaling(Comparison(CompareConfig(), [], [own, again, more], [])).blocks
    texts = ["clinical text:", "general then clinical text:"]
    assert len(blocks) == 2 and all(t in b for t, b in zip(texts, blocks, strict=True))


def test_what_a_run_read_includes_earlier_runs():
    general = pretraining(1e6, 1e7, domain="general").stage
    run = pretraining(4e6, 2e7)._replace(earlier=[general])
    found = tokens(Comparison(CompareConfig(), [], [run], [])).blocks
    (table,) = [block for block in found if isinstance(block, Table)]
    assert table.rows[0][2:6] == ["10M general, 20M clinical", "120.0 MB", "5.40e14", "0.250"]
