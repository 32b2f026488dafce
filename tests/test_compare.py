"""Runs as they lie in their folders, compared: one report, what cannot be used named in it."""

import csv
import json
import re

import numpy as np
import pytest
import yaml

from medjax.compare import run
from medjax.comparison.collect import collect
from medjax.comparison.config import CompareConfig
from medjax.comparison.contrasts import contrasts
from medjax.config import UserError
from medjax.scoring.bootstrap import interval
from medjax.scoring.classification import single_label_metrics
from medjax.scoring.lineage import Seen, Stage, write_lineage
from medjax.scoring.paired import group_counts, save_draws
from medjax.scoring.results import all_draws

COUNT = 400
GROUPS = np.arange(COUNT) // 2


def of_share(share, seeds=3):
    """Metrics of a model with so many right answers in hundred, equally hard for all models."""
    hard = np.random.default_rng(0).random((seeds, COUNT))
    gold = np.ones(COUNT, int)
    return [single_label_metrics(gold, (own < share).astype(int), 2) for own in hard]


def finished_run(
    folder,
    share,
    test="same",
    draws=500,
    curve=None,
    stages=None,
    prompted=False,
    flops=1e6,
    majority=None,
):
    """A run as medjax.finetune and medjax.prompt leave it."""
    folder.mkdir(parents=True)
    main, model = f"{folder.name}, all labels", folder.name
    curve = curve or {COUNT: share}
    names = {(main if n == max(curve) else f"{folder.name}, {n}"): n for n in curve}
    metrics = {name: of_share(curve[n]) for name, n in names.items()}
    rows = {name: all_draws(own, GROUPS, draws) for name, own in metrics.items()}
    if majority:
        rows["majority"] = all_draws(of_share(majority, 1), GROUPS, draws)
    save_draws(folder, rows, test, group_counts([own[0] for own in metrics[main]], GROUPS))
    inference = {"examples": COUNT, "bytes": 9000, "tokens_in": 4000, "tokens_out": 0}
    inference |= {"flops": COUNT * flops, "seconds": flops / 1e6}
    results = {"metric": "accuracy", "main": main, "labelled_examples": names}
    (folder / "results.json").write_text(json.dumps(results | {"inference": inference}))
    (folder / "selection.json").write_text("{}")
    about = {"model": model} if prompted else {"init_from": f"models/{model}", "training": {}}
    about["task"] = {"test": "rqe/test.csv"}
    (folder / "config.yaml").write_text(yaml.safe_dump(about))
    if stages:
        write_lineage(folder, stages)
    return str(folder)


def trained(name, tokens, domain="clinical", **more):
    """A pretraining and a fine-tuning."""
    first = Stage(
        kind="pretraining", name=name, parameters=1000, objective="masked_lm",
        tokens={domain: tokens}, unique_tokens={domain: tokens / 2}, bytes={domain: 4 * tokens},
        flops=6e3 * tokens, device_hours=2.0, device="TPU v5 lite", **more,
    )  # fmt: skip
    second = Stage(
        kind="finetuning", name="ft", parameters=1100, tokens={"labelled": 500.0}, flops=3e6,
        device_hours=0.5, device="cpu",
    )  # fmt: skip
    return [first, second]


@pytest.fixture
def report(tmp_path, capsys):
    """Makes the report of a configuration: (its Markdown, what is printed, its folder)."""

    def make(**options):
        folder = tmp_path / "report"
        assert run(CompareConfig(output=str(folder), **options)) == 0
        return (folder / "report.md").read_text(), capsys.readouterr().out, folder

    return make


def test_a_report_holds_every_part(tmp_path, report):
    """Two lineages with two checkpoints each, a learning curve, and a prompted model."""
    runs = []
    for name, low, high in (("scratch", 0.5, 0.8), ("general", 0.3, 0.7)):
        for tokens, share in ((1e6, low), (4e6, high)):
            own = tmp_path / "runs" / f"{name}-{tokens:.0e}"
            curve = {40: 0.4, 400: share} if name == "scratch" else None
            runs.append(finished_run(own, share, curve=curve, stages=trained(name, tokens)))
    runs.append(finished_run(tmp_path / "runs" / "asked", 0.6, prompted=True, flops=1e9))
    options = {
        "tasks": {"RQE": {"runs": [str(tmp_path / "runs" / "*")]}},
        "prices": {"TPU": 1.5, "cpu": 0.1},
        "hardware": [{"name": "pod", "peak_flops": 1e12, "mfu": 0.5, "price_per_hour": 2.0}],
        "reference": "general-4e+06",
        "claims": [
            {"claim": "clinical text helps", "first": "scratch-4e+06", "second": "general-4e+06"}
        ],
    }
    text, printed, folder = report(**options)
    assert "RQE: of the models scratch-4e+06 scores highest" in text
    assert re.search(r"scratch-4e\+06 \| 1,100 \| 400 \| 0\.7\d\d ± .* best", text)
    assert "| 4M clinical | 2M clinical | 16.0 MB |" in text
    # 2 hours at 1.5 and half an hour at 0.1
    assert "| 2.500 | 3.05 |" in text
    ratio = re.search(r"\| scratch \| [^|]+ \| ([\d.]+) \[([\d.]+), ([\d.]+)\]", text)
    assert 0 < float(ratio[2]) < float(ratio[1]) < float(ratio[3]) < 1
    assert (
        "what accuracy 0.6" in text
        and "labels to equal what is prompted" in text
        and "break-even" in text
    )
    assert "clinical text helps" in text and "| holds |" in text
    assert "39.4B" in text  # of the papers
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == len(list((folder / "figures").glob("*.svg"))) >= 6
    assert not re.search(r'(src|href)="(?!#)(?!http://www\.w3\.org)', page)  # all in the one file
    for row in csv.DictReader((folder / "results.csv").open()):
        assert row["task"] == "RQE" and 0 < float(row["low"]) < float(row["high"]) < 1
    assert "report.html (tasks: 1, models: 5)" in printed
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report(**options)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_differences_are_paired_and_adjusted(tmp_path):
    paths = [finished_run(tmp_path / f"r{i}", s) for i, s in enumerate((0.7, 0.8, 0.7))]
    (task,) = collect(CompareConfig(runs=paths)).tasks
    first, better, same = task.runs
    (own, other), problems = contrasts([(task, [(better, first), (same, first)])])
    assert not problems and task.name == "rqe"
    means = [interval(each.draws("accuracy")) for each in (better, first)]
    assert own.found.mean == pytest.approx(means[0].mean - means[1].mean)
    assert 0 < own.found.low < own.found.mean < own.found.high and own.found.p_value < 0.01
    assert own.adjusted == pytest.approx(2 * own.found.p_value) and own.permutation < 0.01
    assert other.found.mean == 0 and other.found.p_value > 0.5 and other.permutation == 1.0
    assert own.found.high - own.found.low < 2 * (means[0].high - means[0].low)
    assert own.not_worse(0.01) and not other.not_worse(1e-9)
    apart, _ = contrasts([(task, [(better, first)]), (task, [(same, first)])])  # of one family
    assert [each.adjusted for each in apart] == [own.adjusted, other.adjusted]
    lower = own._replace(task=task._replace(metric="brier"))  # better when it is lower
    assert not lower.not_worse(0.01)


def test_what_cannot_be_used_is_said_and_the_rest_reported(tmp_path, report):
    first = finished_run(tmp_path / "first", 0.7)
    second = finished_run(tmp_path / "second", 0.8)
    other = finished_run(tmp_path / "other", 0.7, test="other")
    fewer = finished_run(tmp_path / "fewer", 0.7, draws=100)
    damaged = finished_run(tmp_path / "damaged", 0.7)
    (tmp_path / "damaged" / "draws.npz").write_bytes(b"PK")
    unfinished = finished_run(tmp_path / "unfinished", 0.7)
    (tmp_path / "unfinished" / "selection.json").unlink()
    seen = [Seen(name="R-QE", path="rqe/all.csv", examples=7)]  # the task is RQE
    dirty = finished_run(tmp_path / "dirty", 0.95, stages=trained("d", 1e6, evaluations=seen))
    runs = [first, second, other, fewer, damaged, unfinished, dirty]
    text, printed, _ = report(tasks={"RQE": {"runs": runs, "published": "MedNLI"}})
    for problem in (
        f"{other}: scored on other test examples",
        f"{fewer}: has 100 draws",
        f"{damaged}: results.json or draws.npz is damaged",
        f"{unfinished}: no selection.json",
        "dirty was pretrained on notes that hold 7 of its examples: contaminated",
    ):
        assert problem in text and problem in printed
    assert "RQE: of the models second scores highest" in text  # not dirty, whose score is higher
    assert "| dirty |" not in text.split("## Tests")[1].split("## Cost")[0]
    assert "every model has read of its examples" in report(runs=[dirty])[0]
    assert re.search(r"\| dirty .*contaminated \|", text)
    assert "not recorded" in text and re.search(r"GatorTron .* 0\.883 ± 0\.002 ", text)


def test_mistakes_are_named(tmp_path):
    first = finished_run(tmp_path / "a" / "model", 0.7)
    twin = finished_run(tmp_path / "b" / "model", 0.8)
    cases = {
        "both 'model' on": {"runs": [first, twin]},
        "stands among the runs twice": {"runs": [first, first]},
        "there is no folder": {"runs": [str(tmp_path / "nowhere")]},
        "nothing to compare": {"runs": [str(tmp_path)]},
        "no folder fits": {"runs": [str(tmp_path / "nowhere*")]},
        "is none of .*MedNLI": {"tasks": {"x": {"runs": [first], "published": "MedNIL"}}},
        "holds no earlier report": {"runs": [first], "output": first},
    }
    for problem, options in cases.items():
        with pytest.raises(UserError, match=problem):
            run(CompareConfig(**({"output": str(tmp_path / "out")} | options)))
    named = CompareConfig(runs=[first, twin], names={twin: "other"})
    assert [own.model for own in collect(named).tasks[0].runs] == ["model", "other"]
    with pytest.raises(UserError, match="results.json: no such|no results.json"):
        collect(CompareConfig(runs=[str(tmp_path / "a")]))


def test_families_count_alike(tmp_path, report):
    """Two tasks of a family and one of another: (a + b) / 2 and c, then their mean."""
    tasks, shares = {}, {"a": (0.6, 0.5), "b": (0.8, 0.5), "c": (0.3, 0.5)}
    for task, own in shares.items():
        for model, share in zip(("m", "n"), own, strict=True):
            finished_run(tmp_path / task / model, share, test=task)
        family = "qa" if task == "c" else "ner"
        tasks[task] = {"runs": [str(tmp_path / task / "*")], "family": family}
    text, *_ = report(tasks=tasks)
    found = re.search(r"\| m \| ([\d.]+) ± [^|]+\| ([\d.]+) ± [^|]+\| ([\d.]+) ±", text)
    ner, qa, mean = map(float, found.groups())
    plain = {task: collect(CompareConfig(tasks=tasks)).tasks["abc".index(task)] for task in "abc"}
    scores = {t: interval(own.run("m").draws("accuracy")).mean for t, own in plain.items()}
    assert ner == pytest.approx((scores["a"] + scores["b"]) / 2, abs=6e-4)
    assert (qa, mean) == pytest.approx((scores["c"], (ner + scores["c"]) / 2), abs=1.1e-3)
    assert "out of distribution" not in text.split("## Tests")[0]
