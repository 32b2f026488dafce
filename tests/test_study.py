"""The study's jobs: every command is one that medjax takes, in an order that can be run."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from medjax.comparison.config import CompareConfig
from medjax.config import UserError, _split_arguments, load
from medjax.data.config import PrepareConfig, TokenizerConfig
from medjax.data.synthetic import write_notes
from medjax.finetune import FinetuneConfig
from medjax.pretrain import PretrainConfig
from medjax.prompt import PromptConfig

ROOT = Path(__file__).parent.parent
SCHEMAS = {
    "train_tokenizer": TokenizerConfig,
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "prompt": PromptConfig,
}


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(ROOT / "scripts"))
    return importlib.import_module("study")


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes").mkdir()
    write_notes(tmp_path / "notes" / "notes.jsonl", num_patients=10, seed=0)
    return str(tmp_path / "notes")


@pytest.mark.parametrize("name", ["small", "base"])
def test_every_job_is_a_command(study, notes, tmp_path, name):
    """And begins from what an earlier job makes."""
    path = ROOT / f"configs/study/{name}.yaml"
    config = load(study.StudyConfig, [path], [f"run_dir={tmp_path}"])
    places = study.Places(notes, notes, None)
    tasks = study.write_tasks(config, places, tmp_path)
    jobs = list(study.all_jobs(config, places, tasks, tmp_path))
    assert len({job.name for job in jobs}) == len(jobs) == len({job.done for job in jobs})
    made, kinds, done = {notes}, set(), set()
    for job in jobs:
        kinds.add(job.name.split("/")[0])
        assert done.issuperset(job.needs) and bool(job.needs) == (not job.name.startswith("token"))
        done.add(job.done)
        if job.name.startswith("untrained"):
            made.add(str(job.done.parent))
            continue
        verb = job.command[2].removeprefix("medjax.")
        paths, overrides, _ = _split_arguments(SCHEMAS[verb], job.command[3:])
        own = load(SCHEMAS[verb], paths, overrides)
        needed = [getattr(own, name, None) for name in ("init_from", "model", "tokenizer")]
        needed += [corpus.path for corpus in getattr(own, "data", [])]
        for place in filter(lambda n: isinstance(n, str), needed):
            home = place.partition("/checkpoints")[0].removesuffix("/export")
            assert {place, home} & made, f"{job.name} needs {place}"
        if "/checkpoints/" in (needed[0] or ""):
            assert int(needed[0][-8:]) % (config.steps[0] // study.DECAY) == 0
        made.add(str(getattr(own, "output", None) or own.run_dir))
    assert kinds == {"tokenizer", "shards", "pretrain", "untrained", "finetune", "prompt"}
    for job in jobs:
        if job.name.startswith("finetune"):
            job.done.parent.mkdir(parents=True)
    found = CompareConfig.model_validate(study.comparison(config, tasks, tmp_path))
    names = {model.name for model in study.models(config, tmp_path)}
    pairs = [(pair.first, pair.second) for pair in found.contrasts]
    assert all(name in names for pair in pairs for name in pair)
    assert all(name in names for own in found.lineages.values() for name in own)
    assert len(found.claims) >= 14


def test_jobs_begin_when_what_they_need_is_there(study, tmp_path, capfd):
    """Two at a time on a core each; after a failure none begins, and the same call goes on."""
    begun = tmp_path / "begun"

    def job(name, *needs, ends="true"):
        script = f"echo {name} $(nproc) >> {begun}; {ends} && touch {tmp_path / name}"
        needed = [tmp_path / need for need in needs]
        return study.Job(name, tmp_path / name, needed, ["sh", "-c", script])

    waits = f"while ! grep -q third {begun}; do sleep 0.05; done"  # so they do run side by side
    jobs = [job("first", ends=waits), job("second", "first"), job("third")]
    assert study.run_jobs(jobs, 2, tmp_path) == 0
    lines = [line.split() for line in begun.read_text().splitlines()]
    assert {lines[0][0], lines[1][0]} == {"first", "third"} and lines[2][0] == "second"
    cores = len(os.sched_getaffinity(0))
    assert {int(number) for _, number in lines} <= {max(cores // 2, 1), (cores + 1) // 2}
    assert "[3/3] second" in capfd.readouterr().out

    jobs = [job("fourth", ends="exit 7"), job("fifth", "fourth"), job("sixth", "fourth")]
    assert study.run_jobs(jobs, 2, tmp_path) == 7
    assert "ended with 7" in capfd.readouterr().out
    assert [line.split()[0] for line in begun.read_text().splitlines()][3:] == ["fourth"]
    with pytest.raises(UserError, match="fifth needs .*fourth, which no job has made"):
        study.run_jobs(jobs[1:], 2, tmp_path)


def test_a_dry_run_says_how_long_it_takes(study, notes, tmp_path, monkeypatch, capsys):
    arguments = ["--clinical", notes, "--general", notes, "--run_dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["study", *arguments, "--dry-run"])
    assert study.main() == 0
    printed = capsys.readouterr().out
    assert "pretrain/modernbert-2M-clinical-stem" in printed and "2 side by side, about" in printed
    assert not (tmp_path / "run" / "pretraining").exists()
    (tmp_path / "odd.yaml").write_text(f"base: {ROOT}/configs/study/small.yaml\nsteps: [100]\n")
    (tmp_path / "third.yaml").write_text(
        f"base: {ROOT}/configs/study/small.yaml\n"
        "families: {bert: {config: x.yaml, tokenizer: wordpiece, sizes: {}}}\n"
    )
    for wrong, problem in (
        (["--clinical", str(tmp_path)], "no sources and no files of notes"),
        ([str(tmp_path / "third.yaml"), *arguments], "modernbert, t5, bert are not t5 and one"),
        ([str(tmp_path / "odd.yaml"), *arguments], "not all multiples of 6"),
    ):
        monkeypatch.setattr(sys, "argv", ["study", "--run_dir", str(tmp_path / "no"), *wrong])
        assert study.main() == 2
        assert problem in capsys.readouterr().err


def test_general_text_stands_in(study, tmp_path):
    importlib.import_module("study_inputs").docstrings(tmp_path / "general.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "general.jsonl").open()]
    assert len(rows) > 300 and sum(len(row["text"]) for row in rows) > 10**6


def test_predicted_tokens_of_a_training(study):
    """Few labels are passed over until there are enough steps; reading costs a third."""
    about = {"tokens_per_example": 5, "train": 1000, "validation": 30, "test": 90}
    about |= {"epochs": 2, "min_steps": 50, "batch_size": 10}
    assert study.finetuning_tokens(about, 1.0) == 5 * (2 * 1000 + (2 * 30 + 90) / 3)
    few = 3 * 2 * 100  # two epochs of three passes
    assert study.finetuning_tokens(about, 0.1) == 5 * (few + (2 * 3 + 90) / 3)
