"""The finetune command: every kind of task learnt, resumed, chosen on validation, exported."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from flax.traverse_util import flatten_dict

from medjax.compare import run as compare
from medjax.comparison.config import CompareConfig
from medjax.config import UserError, load
from medjax.data.config import PrepareConfig
from medjax.data.tokenize import load_tokenizer
from medjax.finetune import FinetuneConfig, run
from medjax.hub.folder import load_pretrained, save_pretrained
from medjax.hub.heads import load_head_params
from medjax.models import build_model
from medjax.models.config import BertConfig, Compute, T5Config
from medjax.models.heads import attach, build_head
from medjax.prepare import run as run_prepare
from medjax.pretrain import PretrainConfig
from medjax.pretrain import run as run_pretrain
from medjax.scoring.bootstrap import interval
from medjax.scoring.lineage import read_lineage
from medjax.scoring.paired import difference, load_scores
from medjax.scoring.results import as_json
from medjax.tasks.read import read_task
from medjax.training import sweep
from medjax.training.state import abstract_state
from tests.tokenizers import small_tokenizer

pytestmark = pytest.mark.usefixtures("two_devices")
COUNT = 160
FINDINGS = ("fever", "cough", "rash", "pain")
FILLERS = ("today", "at", "home", "since", "then", "now", "after", "lunch", "with", "rest")


def sentence(i):
    """A sentence with one finding, denied or not; the words around it say nothing about it."""
    denied = (i * 7) % 3 == 0
    verb = "denies" if denied else "reports"
    words = random.Random(i).choices(FILLERS, k=4)
    return f"{verb} {FINDINGS[i % 4]} {' '.join(words)} {verb} it again", denied


def rows(kind):
    for i in range(COUNT):
        text, denied = sentence(i)
        finding = FINDINGS[i % 4]
        start = text.index(finding)
        row = {"id": f"n{i}", "text": text, "patient": f"p{i // 2}"}
        if kind == "multilabel":
            yield row | {"label": [finding] if denied else [finding, "present"]}
        elif kind == "tagging":
            span = {"start": start, "end": start + len(finding), "label": finding.upper()}
            yield row | {"label": [span]}
        else:
            yield row | {"label": "denied" if denied else "present"}


def squad():
    """A question is about a finding; of every fourth text it is not the one."""
    paragraphs = []
    for i in range(COUNT):
        text, finding = sentence(i)[0], FINDINGS[i % 4]
        answers = [] if i % 5 == 0 else [{"text": finding, "answer_start": text.index(finding)}]
        asked = "what is found" if answers else "which drug"
        question = {"id": f"q{i}", "question": asked, "answers": answers}
        paragraphs.append({"context": text, "qas": [question], "document_id": f"d{i}"})
    return {"data": [{"paragraphs": paragraphs}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Task files, a tiny BERT, and a configuration for each kind."""
    folder = tmp_path_factory.mktemp("finetune")
    texts = [sentence(i)[0] for i in range(COUNT)] + ["what is found", "which drug"] * 20
    small_tokenizer("wordpiece", texts, 150).save_pretrained(folder / "tokenizer")
    size = len(load_tokenizer(folder / "tokenizer"))
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.15,  # so narrow a model would hardly move from 0.02
    )
    model = build_model(config)
    params = model.init(jax.random.key(0))
    save_pretrained(folder / "model", model, params, tokenizer=folder / "tokenizer")
    common = {"max_length": 24, "stride": 4, "columns": {"id": "id", "group": "patient"}}
    tasks = {}
    for kind in ("classification", "multilabel", "tagging"):
        path = folder / f"{kind}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows(kind)))
        tasks[kind] = common | {"kind": kind, "train": str(path)}
    tasks["tagging"]["format"] = "spans"
    (folder / "squad.json").write_text(json.dumps(squad()))
    tasks["question_answering"] = common | {"train": str(folder / "squad.json")}
    tasks["question_answering"] |= {"kind": "question_answering", "columns": {}}
    training = {"epochs": 8, "batch_size": 8, "learning_rate": [0.005], "dropout": False}
    for kind, task in tasks.items():
        values = {"run_dir": "unset", "init_from": str(folder / "model"), "task": task}
        values |= {"training": training, "seeds": [1, 2], "draws": 100}
        values |= {"compute": {"dtype": "float32"}}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(values))
    return folder


def finetune(place, kind, run_dir, *overrides):
    config = load(FinetuneConfig, [place / f"{kind}.yaml"], [f"run_dir={run_dir}", *overrides])
    assert run(config) == 0
    return json.loads((run_dir / "results.json").read_text())


KINDS = {
    "classification": ("accuracy", "sequence", ["denied", "present"]),
    "multilabel": ("micro_f1", "sequence", sorted([*FINDINGS, "present"])),
    "tagging": ("span_f1", "token", None),
    "question_answering": ("f1", "answer", None),
}


@pytest.fixture(scope="module")
def t5(place):
    """A tiny T5 beside the task files, and a task of writing."""
    texts = [sentence(i)[0] for i in range(COUNT)]
    texts += ["question: what is found context: denied, present, FEVER: COUGH; RASH: PAIN:"] * 40
    small_tokenizer("unigram", texts, 260).save_pretrained(place / "t5_tokenizer")
    size = len(load_tokenizer(place / "t5_tokenizer"))
    config = T5Config(
        vocab_size=size, d_model=48, d_kv=16, d_ff=64, num_layers=1, num_heads=3, dropout_rate=0.0
    )
    model = build_model(config)
    params = model.init(jax.random.key(0))
    save_pretrained(place / "t5", model, params, tokenizer=place / "t5_tokenizer")
    path = place / "text_to_text.jsonl"
    with path.open("w") as file:
        for row in rows("classification"):
            finding = next(f for f in FINDINGS if f in row["text"])
            file.write(json.dumps(row | {"label": f"{finding} {row['label']}"}) + "\n")
    values = yaml.safe_load((place / "classification.yaml").read_text())
    values["task"] |= {"kind": "text_to_text", "train": str(path)}
    (place / "text_to_text.yaml").write_text(yaml.safe_dump(values))
    return place / "t5"


@pytest.mark.parametrize(
    ("kind", "metric"),
    [pytest.param("multilabel", "micro_f1", marks=pytest.mark.long), ("text_to_text", "rougeL")],
)
def test_a_t5_learns_to_write_the_answer(place, t5, tmp_path, kind, metric):
    options = [f"init_from={t5}", "seeds=[1]", "training.epochs=14", "write_text=true"]
    options += ['training.optimizer={"name": "adamw"}', "decoding.num_beams=2"]
    results = finetune(place, kind, tmp_path / "run", *options)
    model, *baselines = results["test"].values()
    assert model[metric]["mean"] > 0.9
    assert len(baselines) == (2 if kind == "multilabel" else 0)
    (unclear,) = next(iter(results["not_understood"].values()))
    written = tmp_path / "run" / "generated.jsonl"
    assert written.stat().st_mode & 0o777 == 0o600
    texts = [json.loads(line)["text"] for line in written.open()]
    assert len(texts) == 32
    if kind == "multilabel":
        known = {"", "present", *FINDINGS}
        wrong = [t for t in texts if not {part.strip() for part in t.split(",")} <= known]
        assert unclear == len(wrong) < 16
    else:
        assert unclear == 0 and any("present" in text for text in texts)
        for file in (tmp_path / "run").rglob("*.json*"):
            assert file == written or "fever present" not in file.read_text()
    predict_again(place, kind, tmp_path)


def predict_again(place, kind, folder, *overrides):
    """The exported model on all texts, without labels: what the run said of test."""
    from medjax.predict import PredictConfig
    from medjax.predict import run as predict

    table = folder / "unlabelled.jsonl"
    lines = [json.loads(line) for line in (place / f"{kind}.jsonl").open()]
    table.write_text(
        "\n".join(json.dumps({n: v for n, v in line.items() if n != "label"}) for line in lines)
    )
    options = [
        f"model={folder / 'run' / 'export'}",
        f"input={table}",
        f"output={folder / 'all.jsonl'}",
    ]
    if kind == "tagging":
        options.append("format=table")
    assert predict(load(PredictConfig, [], [*options, *overrides])) == 0
    found = {row["id"]: row for row in map(json.loads, (folder / "all.jsonl").open())}
    assert set(found) == {line["id"] for line in lines}
    for line in map(json.loads, (folder / "run" / "predictions.jsonl").open()):
        own = found[line["id"]]
        assert own["prediction"] == line["prediction"]
        for name, value in line.get("probabilities", {}).items():
            assert own["probabilities"][name] == pytest.approx(value, abs=2e-6)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_learnt_scored_and_exported(place, tmp_path, capsys, kind):
    metric, use, labels = KINDS[kind]
    seeds = [1, 2] if kind == "classification" else [1]
    results = finetune(place, kind, tmp_path / "run", f"seeds={seeds}")
    model, *baselines = results["test"].values()
    found = model[metric]
    assert found["mean"] > 0.9 and found["seeds"] == len(seeds) and found["low"] <= found["mean"]
    assert len(baselines) == (2 if use == "sequence" else 0)
    printed = capsys.readouterr().out
    assert metric in printed and "[95% interval over" in printed
    selection = json.loads((tmp_path / "run" / "selection.json").read_text())["1"]
    assert selection["learning_rate"] == 0.005 and set(selection["seeds"]) == set(map(str, seeds))
    check_export(tmp_path / "run", use, labels)
    check_predictions(tmp_path / "run", place, kind)
    if kind != "question_answering":
        limit = ["review_below=0.9"] if use == "sequence" else []
        found = predict_again(place, kind, tmp_path, *limit)
        assert not limit or {row["review"] for row in found.values()} <= {True, False}
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Not for clinical use" in card and "To be added by the author" in card


def check_export(run_dir, use, labels):
    """The folder gives the scores that were reported."""
    values = json.loads((run_dir / "export" / "config.json").read_text())
    assert labels is None or list(values["id2label"].values()) == labels
    model, body = load_pretrained(run_dir / "export", Compute(dtype="float32"))
    head = load_head_params(run_dir / "export", model.config, use)
    count = head["classifier"]["bias"].shape[0]
    kind = "sequence" if use == "sequence" else "token"
    labeller = attach(
        build_model(model.config, Compute(dtype="float32"), ()),
        build_head(kind, model.config, count),
    )
    params = {"backbone": {n: p for n, p in body.items() if n != "pooler"}, "head": head}
    tokenizer = load_tokenizer(run_dir / "export")
    ids = np.array([tokenizer(sentence(3)[0]).input_ids], np.int32)
    assert np.isfinite(labeller.logits(params, {"input_ids": ids})).all()
    rules = json.loads((run_dir / "export" / "medjax.json").read_text())
    assert rules["task"]["max_length"] == 24


def check_predictions(run_dir, place, kind):
    lines = [json.loads(line) for line in (run_dir / "predictions.jsonl").open()]
    ids = {line["id"] for line in lines}
    assert 20 < len(ids) == len(lines) < COUNT
    right = sum(
        line["prediction"] == line["gold"]
        or isinstance(line["gold"], list)
        and [line["prediction"]] == (line["gold"] or [None])
        for line in lines
    )
    assert right > 0.8 * len(lines)
    scores, results = load_scores(run_dir), json.loads((run_dir / "results.json").read_text())
    left = as_json({n: interval(d) for n, d in scores.rows[scores.main].items()})
    assert left == results["test"][results["main"]]
    assert difference(scores, scores, scores.metric).p_value == 1
    texts = {sentence(i)[0] for i in range(COUNT)}
    for file in run_dir.rglob("*.json*"):
        content = file.read_text()
        assert not any(text in content for text in texts), file


PARTS = ["training.freeze=backbone", "training.freeze=1"]
PARTS += ['training.lora={"rank": 2, "targets": ["q", "o"]}']


@pytest.mark.parametrize("option", PARTS)
def test_a_part_is_trained(place, tmp_path, option):
    options = ["seeds=[1]", "training.epochs=2", option]
    finetune(place, "classification", tmp_path / "run", *options)
    before = load_pretrained(place / "model", Compute(dtype="float32"))[1]
    after = load_pretrained(tmp_path / "run" / "export", Compute(dtype="float32"))[1]
    before, after = (flatten_dict(tree, sep="/") for tree in (before, after))
    moved = {path for path in after if path in before and (after[path] != before[path]).any()}
    body = {path for path in moved if path.startswith(("layers/", "embeddings/"))}
    if "lora" in option:
        assert body == {"layers/attention/q/kernel", "layers/attention/o/kernel"}
        values = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
        assert values["r"] == 2
        for name, has_pair in {"attention.output.dense": True, "output.dense": False}.items():
            found = re.fullmatch(values["target_modules"], f"bert.encoder.layer.0.{name}")
            assert bool(found) == has_pair
        assert values["modules_to_save"] == ["classifier", "pooler"]
    else:
        assert not body
    predict_again(place, "classification", tmp_path)
    finetune(place, "classification", tmp_path / "run", *options)  # replaces what it wrote


def test_more_of_a_run_is_written(place, tmp_path):
    """Slices, operating point, rows of thresholds, differences, errors, pictures, lineage."""
    options = ["seeds=[1, 2]", "training.epochs=1", "task.columns.meta=[site]"]
    table = tmp_path / "sites.jsonl"
    with table.open("w") as file:
        for i, row in enumerate(rows("classification")):
            file.write(json.dumps(row | {"site": "AB"[i // 80]}) + "\n")
    options += [f"task.train={table}", 'operating_point={"label": "denied", "recall": 0.9}']
    run_dir = tmp_path / "run"
    results = finetune(place, "classification", run_dir, *options, "label_fractions=[0.3, 1.0]")
    slices = results["slices"]
    assert set(slices) == {"site", "length"} and set(slices["site"]) == {"A", "B"}
    assert sum(part["examples"] for part in slices["site"].values()) == 32
    small = [part for own in slices.values() for part in own.values() if part["examples"] < 20]
    assert small and not any("accuracy" in part for part in small)
    point = results["operating_point"]
    assert point["label"] == "denied" and len(point["thresholds"]) == 2
    assert set(point["test"]) == {"sensitivity", "specificity", "ppv", "npv", "flagged"}
    assert "majority" in results["difference_to"] and len(results["difference_to"]) == 3
    assert all(0 < own["p_value"] <= 1 for own in results["difference_to"].values())
    metrics = next(iter(results["test"].values()))
    assert {"calibration_error", "calibration_error_before_temperature"} <= set(metrics)
    for name in ("confusion.png", "reliability.png", "learning_curve.png"):
        assert (run_dir / name).read_bytes()[:4] == b"\x89PNG"
    wrong = (run_dir / "errors.csv").read_text().splitlines()[1:]
    seed = results["exported_seed_on_test"]
    assert len(wrong) == round(32 * (1 - seed["accuracy"]))
    assert results["data"]["test"]["examples"] == 32 and len(results["weights_sha256"]) == 1
    assert results["training_hours"] > 0 and results["tokenizer_sha256"]


def test_fixed_thresholds_are_rows_of_their_own(place, tmp_path):
    options = ["seeds=[1]", "training.epochs=1", "thresholds=[0.6225, tuned]"]
    results = finetune(place, "multilabel", tmp_path / "run", *options)
    first, second = list(results["test"])[:2]
    assert second == f"{first}, threshold tuned"
    rules = json.loads((tmp_path / "run" / "export" / "medjax.json").read_text())
    assert rules["selection"]["thresholds"] == [0.6225] * 5


def test_each_of_several_checkpoints(place, tmp_path, capsys):
    """A run of masked-LM training goes in, a fine-tuning for each step comes out."""
    notes = tmp_path / "notes.jsonl"
    notes.write_text("\n".join(json.dumps({"text": sentence(i)[0]}) for i in range(160)))
    sources = f"[{{path: {notes}}}]"
    prepare = [f"sources={sources}", f"tokenizer={place / 'tokenizer'}"]
    prepare += [f"output={tmp_path / 'shards'}", "validation_fraction=0.1", "deduplicate=none"]
    run_prepare(load(PrepareConfig, [], prepare))
    options = [f"data=[{{path: {tmp_path / 'shards'}}}]", f"run_dir={tmp_path / 'pretrained'}"]
    options += [f"init_from={place / 'model'}", "loop.steps=3", "loop.batch_size=8"]
    options += ['objective={"kind": "masked_lm", "sequence_length": 16}', "checkpoint.every=1"]
    options += ["checkpoint.keep_last=3", "evaluation.batches=1"]
    assert run_pretrain(load(PretrainConfig, [], options)) == 0
    overrides = [f"init_from={tmp_path / 'pretrained'}", "steps=[1, last]", "seeds=[1]"]
    config = [place / "classification.yaml"]
    overrides += [f"run_dir={tmp_path / 'run'}", "training.epochs=1", "label_fractions=[0.3, 1.0]"]
    assert run(load(FinetuneConfig, config, overrides)) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["test_by_step"]) == ["1", "3"]
    own = json.loads((tmp_path / "run" / "step_1" / "results.json").read_text())
    assert own["checkpoint"]["step"] == 1 and own["checkpoint"]["init_from"]
    assert results["test_by_step"]["1"] == own["test"][own["main"]]["accuracy"]
    assert own["main"] == "pretrained @ 1, 116 labelled examples"
    first, read, _ = read_lineage(tmp_path / "run" / "step_1")
    _, whole, _ = read_lineage(tmp_path / "run" / "step_3")
    assert (first.kind, first.name, read.name) == ("published", "model", "pretrained")
    assert read.tokens == {"clinical": 8 * 16} and whole.tokens == {"clinical": 3 * 8 * 16}
    assert whole.flops == pytest.approx(3 * read.flops) and read.flops > 0
    assert 0 < read.device_hours < whole.device_hours < 1
    assert read_lineage(tmp_path / "pretrained" / "export") == [first, whole]
    capsys.readouterr()
    given = [str(tmp_path / "run")]
    report, losses = tmp_path / "report", [str(tmp_path / "pretrained")]
    assert compare(CompareConfig(runs=given, pretraining=losses, output=str(report))) == 0
    assert "pretrained @ 3" in capsys.readouterr().out
    written = (report / "report.md").read_text()
    for shown in ("384 clinical", "published: what it read is not known", "nats per masked byte"):
        assert shown in written
    with pytest.raises(UserError, match=r"holds the checkpoints \[1, 2, 3\], not all of \[9\]"):
        run(load(FinetuneConfig, config, [*overrides, "steps=[9]", f"run_dir={tmp_path / 'no'}"]))


def test_a_finished_run_is_scored_again_and_another_refused(place, tmp_path):
    first = finetune(place, "tagging", tmp_path / "run", "training.epochs=2")
    begin = time.monotonic()
    again = finetune(place, "tagging", tmp_path / "run", "training.epochs=2")
    assert time.monotonic() - begin < 60
    for results in (first, again):
        assert results["inference"].pop("seconds") > 0
    assert again == first
    cost, (stage, tuning) = first["inference"], read_lineage(tmp_path / "run" / "export")
    assert cost["tokens_in"] > 0 and cost["tokens_out"] == 0 and cost["bytes"] > cost["tokens_in"]
    assert stage.kind == "published" and tuning.kind == "finetuning" and tuning.parameters > 10_000
    # forward and backward of every token of train, in both epochs
    read = tuning.tokens["labelled"] * cost["flops"] / cost["tokens_in"]
    assert tuning.flops == pytest.approx(3 * read)
    with pytest.raises(UserError, match="another configuration"):
        finetune(place, "tagging", tmp_path / "run", "training.epochs=3")


def test_killed_it_goes_on_to_the_same_result(place, tmp_path):
    """SIGKILL after the first checkpoint, in a process of its own."""
    whole = finetune(place, "classification", tmp_path / "whole", "training.epochs=4")
    command = [sys.executable, "-m", "medjax.finetune", str(place / "classification.yaml")]
    command += ["--run_dir", str(tmp_path / "cut"), "--training.epochs", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if any((tmp_path / "cut").glob("trainings/*/checkpoints/*.json")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    assert process.wait() in (-signal.SIGKILL, 0)
    resumed = finetune(place, "classification", tmp_path / "cut", "training.epochs=4")
    assert resumed["test"] == whole["test"]
    both = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("whole", "cut")]
    assert both[0] == both[1]


def test_learning_rate_and_fractions(place, tmp_path):
    """The better rate is chosen on validation; fewer labels are worse, and counted."""
    options = ["training.learning_rate=[0.00001,0.005]", "label_fractions=[0.05,1.0]"]
    options += ["seeds=[1]", "training.epochs=5", "training.min_steps=12"]
    results = finetune(place, "tagging", tmp_path / "run", *options)
    for folder in (tmp_path / "run" / "trainings").iterdir():
        steps = [int(step) for step in json.loads((folder / "validated.json").read_text())]
        assert steps == [steps[0] * epoch for epoch in (1, 2, 3, 4, 5)]
        assert steps[-1] == 15 if "0.05" in folder.name else steps[-1] > 12, folder.name
    spent = [json.loads(p.read_text()) for p in (tmp_path / "run").glob("trainings/*/goodput.json")]
    compiling = [own["compilation"] for own in spent]  # the second rate has the first one's batches
    assert min(compiling) == 0 < max(compiling) and min(own["steps"] for own in spent) > 0
    selection = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert selection["1"]["learning_rate"] == 0.005
    kept = {path.parts[-3]: path.name for path in (tmp_path / "run").glob("trainings/*/*/*.json")}
    chosen = {f: own["learning_rate"] for f, own in selection.items()}
    assert set(kept) == {f"labels_{f}-lr_{rate:g}-seed_1" for f, rate in chosen.items()}
    few, all_ = (v["span_f1"]["mean"] for v in list(results["test"].values())[:2])
    assert few < all_
    counts = [s["seeds"]["1"]["labelled_examples"]["train"] for s in selection.values()]
    assert counts[0] < 20 < counts[1]


def test_label_fractions_share_their_programs(place, tmp_path):
    """Steps of a batch's shape are the same program, whatever the number of labels."""
    config = load(FinetuneConfig, [place / "tagging.yaml"], [f"run_dir={tmp_path / 'run'}"])
    setup = sweep.build(config, read_task(config.task))
    programs = set()
    with jax.set_mesh(setup.mesh):
        for fraction in (0.3, 1.0):
            own = sweep.build_trainer(config, setup, *sweep.share_of(config, setup, fraction))
            rows = own.feed.plan.epoch(0)[0]
            batch = setup.feeds["train"].batch(rows)
            programs.add(own.step.lower(abstract_state(own.specs, setup.mesh), batch).as_text())
    assert len(programs) == 1


def test_no_epoch_scores_the_untrained_head(place, tmp_path, capsys):
    finetune(place, "classification", tmp_path / "run", "training.epochs=0")
    assert "untrained head" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["task.max_length=64"], "task.max_length 64 is beyond the 40 positions"),
        (["metric=rouge"], "metric 'rouge' is none of classification's: accuracy"),
        (["training.class_weights=[1.0]"], "class_weights has 1 numbers for 2 classes"),
        (["head=json:loads"], "no flax.linen Module"),
        (["init_from=/nowhere"], "no such folder"),
        (["training.freeze=2"], "training.freeze 2: there are 1 layers"),
        (['training.lora={"targets": ["qkv"]}'], "no layer has the projection qkv"),
        (["write_text=true"], "write_text is for models that write"),
        (['operating_point={"label": "x", "recall": 0.9}'], "'x' is no class"),
    ],
)
def test_what_does_not_fit_is_said_before_training(place, tmp_path, options, problem):
    with pytest.raises(UserError, match=problem):
        finetune(place, "classification", tmp_path / "run", *options)
    assert not any((tmp_path / "run").glob("trainings/*/checkpoints/*"))


def test_a_tokenizer_of_another_model(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    texts = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)] * 2
    small_tokenizer("wordpiece", texts, 400).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="take the tokenizer that belongs to the model"):
        finetune(place, "classification", tmp_path / "run", f"init_from={tmp_path / 'model'}")
    assert Path(tmp_path / "model").is_dir()
