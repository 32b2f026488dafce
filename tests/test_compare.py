"""Runs compared by the scores that they left: paired, adjusted, refused where nothing is paired."""

import json

import numpy as np
import pytest

from medjax.compare import CompareConfig, run
from medjax.config import UserError
from medjax.scoring.bootstrap import interval
from medjax.scoring.classification import single_label_metrics
from medjax.scoring.paired import holm, load_scores, save_draws
from medjax.scoring.results import all_draws

COUNT = 400


def finished_run(folder, share, test="same", draws=500, seeds=3):
    """A run of so many right answers in hundred."""
    folder.mkdir()
    rng = np.random.default_rng(0)  # of equal difficulty for all runs
    hard = rng.random((seeds, COUNT))
    gold = np.ones(COUNT, int)
    metrics = [single_label_metrics(gold, (own < share).astype(int), 2) for own in hard]
    save_draws(folder, {"own": all_draws(metrics, np.arange(COUNT) // 2, draws)}, test)
    (folder / "results.json").write_text(json.dumps({"metric": "accuracy", "main": "own"}))
    (folder / "selection.json").write_text("{}")
    return str(folder)


def test_differences_are_paired_and_adjusted(tmp_path, capsys):
    runs = [finished_run(tmp_path / f"r{i}", s) for i, s in enumerate((0.7, 0.8, 0.7))]
    output = tmp_path / "found.json"
    assert run(CompareConfig(runs=runs, output=str(output))) == 0
    found = json.loads(output.read_text())
    better, same = (found["difference"][name] for name in runs[1:])
    assert better["mean"] == pytest.approx(
        found["scores"][runs[1]]["mean"] - found["scores"][runs[0]]["mean"]
    )
    assert 0 < better["low"] < better["mean"] < better["high"] and better["p_value"] < 0.01
    assert better["p_value_holm"] == pytest.approx(2 * better["p_value"])
    assert same["mean"] == 0 and same["p_value"] > 0.5
    alone = interval(load_scores(runs[1]).rows["own"]["accuracy"])
    assert better["high"] - better["low"] < 2 * (alone.high - alone.low)
    printed = capsys.readouterr().out
    assert "p (Holm)" in printed and runs[2] in printed


def test_what_cannot_be_paired_is_refused(tmp_path):
    first = finished_run(tmp_path / "first", 0.7)
    cases = {
        "other test examples": finished_run(tmp_path / "other", 0.7, test="other"),
        "differ in `draws`": finished_run(tmp_path / "fewer", 0.7, draws=50),
        "stands there twice": first,
        "no results.json": str(tmp_path),
    }
    for problem, second in cases.items():
        with pytest.raises(UserError, match=problem):
            run(CompareConfig(runs=[first, second]))
    second = finished_run(tmp_path / "second", 0.8)
    with pytest.raises(UserError, match="no metric 'rougeL'; it has accuracy, macro_f1"):
        run(CompareConfig(runs=[first, second], metric="rougeL"))
    (tmp_path / "second" / "selection.json").unlink()
    with pytest.raises(UserError, match=r"no selection\.json; only finished runs"):
        load_scores(second)
    (tmp_path / "first" / "draws.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="is damaged"):
        load_scores(first)


def test_holm_on_known_values():
    """0.01, 0.04, 0.03: three, two and one times the value, never falling."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
