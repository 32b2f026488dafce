"""Decoders fine-tuned: asked by a prompt or with a head, whole or by LoRA, one task or several."""

import json

import jax
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from medjax.config import UserError
from medjax.data.tokenize import load_tokenizer
from medjax.hub.folder import load_pretrained, save_pretrained
from medjax.models import build_model
from medjax.models.config import Compute, DecoderConfig
from tests.test_finetune import (
    COUNT,
    FINDINGS,
    KINDS,
    finetune,
    place,  # noqa: F401
    predict_again,
    sentence,
    t5,  # noqa: F401
)
from tests.tokenizers import small_tokenizer

pytestmark = pytest.mark.usefixtures("two_devices")
ASKED = ["seeds=[1]", "training.epochs=10", "training.schedule=constant"]


@pytest.fixture(scope="module")
def decoder(place):  # noqa: F811
    """A tiny Llama beside the task files."""
    texts = [sentence(i)[0] for i in range(COUNT)] * 2
    texts += ["Which of these is it? denied; present. what is found which drug Answer: none"] * 40
    texts += ["Text: Question: Quote all FEVER: COUGH: RASH: PAIN: as `kind: words`, Found:"] * 40
    small_tokenizer("bpe", texts, 420).save_pretrained(place / "decoder_tokenizer")
    config = DecoderConfig(
        vocab_size=len(load_tokenizer(place / "decoder_tokenizer")),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=160,
        initializer_range=0.1,
    )
    model = build_model(config)
    params = model.init(jax.random.key(0))
    save_pretrained(place / "decoder", model, params, tokenizer=place / "decoder_tokenizer")
    return place / "decoder"


@pytest.mark.parametrize(
    "kind", [pytest.param("multilabel", marks=pytest.mark.long), "tagging", "question_answering"]
)
def test_a_decoder_learns_to_answer(place, decoder, tmp_path, kind):  # noqa: F811
    options = [*ASKED, f"init_from={decoder}", "answers.constrained=true"]
    options += ["training.epochs=20"] if kind == "multilabel" else []
    results = finetune(place, kind, tmp_path / "run", *options)
    scores = results["test"][results["main"]]
    assert scores[KINDS[kind][0]]["mean"] > 0.8
    assert next(iter(results["not_understood"].values())) == [0]
    if kind != "question_answering":
        predict_again(place, kind, tmp_path)


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_a_decoder_with_a_head(place, decoder, tmp_path, kind):  # noqa: F811
    options = ["seeds=[1]", f"init_from={decoder}", "answers.form=head"]
    results = finetune(place, kind, tmp_path / "run", *options)
    assert results["test"][results["main"]][KINDS[kind][0]]["mean"] > 0.8
    predict_again(place, kind, tmp_path)


def test_lora_of_all_projections(place, decoder, tmp_path):  # noqa: F811
    options = [*ASKED, f"init_from={decoder}", "training.lora={}", "write_text=true"]
    prompt = {"name": "own", "input": "{{ text }}", "answer": "It is"}
    options += [f"answers.prompt={json.dumps(prompt)}"]
    results = finetune(place, "classification", tmp_path / "run", *options)
    assert results["test"][results["main"]]["accuracy"]["mean"] > 0.8
    before = load_pretrained(decoder, Compute(dtype="float32"))[1]
    after = load_pretrained(tmp_path / "run" / "export", Compute(dtype="float32"))[1]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(moved["layers"]["mlp"][name]["kernel"] for name in ("up", "gate", "down"))
    assert not moved["embeddings"]["word"] and not moved["norm"]["scale"]
    values = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert (values["r"], values["lora_alpha"], values["task_type"]) == (32, 64.0, "CAUSAL_LM")
    names = set(load_file(tmp_path / "run/adapter/adapter_model.safetensors"))
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    predict_again(place, "classification", tmp_path)


@pytest.mark.parametrize("model", ["decoder", pytest.param("t5", marks=pytest.mark.long)])
def test_several_tasks_in_one_training(place, decoder, t5, tmp_path, capsys, model):  # noqa: F811
    """Each is scored; families count alike in the mean; what was not trained on stands apart."""
    tasks = {k: yaml.safe_load((place / f"{k}.yaml").read_text())["task"] for k in KINDS}
    others = [
        {"name": "findings", "task": tasks["multilabel"], "weight": 0.5, "family": "classes"},
        {"name": "spans", "task": tasks["tagging"]},
        {"name": "questions", "task": tasks["question_answering"], "weight": 0},
    ]
    options = [f"init_from={place / model}", f"others={json.dumps(others)}", "family=classes"]
    seeds = [1, 2] if model == "decoder" else [1]
    options += [f"seeds={seeds}", "training.epochs=1", "baselines=[]"]
    options += ['training.lora={"rank": 4, "targets": "all"}'] if model == "decoder" else []
    run_dir = tmp_path / "run"
    results = finetune(place, "classification", run_dir, *options)
    assert results["metric"] == "accuracy"
    chosen = json.loads((run_dir / "selection.json").read_text())["1"]
    assert chosen["metric"] == "mean_of_tasks"
    figures = chosen["seeds"]["1"]["metrics"]
    parts = [figures["accuracy"], figures["findings/micro_f1"], figures["spans/span_f1"]]
    assert figures["mean_of_tasks"] == pytest.approx(np.mean(parts))
    assert "questions/f1" not in figures
    own = {}
    for name in ("findings", "spans", "questions"):
        found = json.loads((run_dir / "tasks" / name / "results.json").read_text())
        own[name] = found["test"][found["main"]][found["metric"]]["mean"]
        assert found["trained_on"] == (name != "questions")
        assert (run_dir / "tasks" / name / "predictions.jsonl").exists()
    table = json.loads((run_dir / "tasks.json").read_text())
    first = results["test"][results["main"]]["accuracy"]["mean"]
    family = (first + own["findings"]) / 2
    assert table["  mean of classes"]["mean"] == pytest.approx(family)
    mean = table["mean of families trained on"]
    assert mean["mean"] == pytest.approx((family + own["spans"]) / 2)
    assert mean["low"] <= mean["mean"] <= mean["high"] and mean["seeds"] == len(seeds)
    assert table["mean of families not trained on"]["mean"] == pytest.approx(own["questions"])
    assert "mean of families not trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "option", "problem"),
    [
        (["a", "a"], "seeds=[1]", "a name stands there twice"),
        (["a"], "label_fractions=[0.5, 1.0]", "label_fractions are for a single task"),
        (["a"], "init_from={place}/model", "others are for models that write"),
    ],
)
def test_tasks_that_cannot_be_mixed(place, decoder, tmp_path, others, option, problem):  # noqa: F811
    task = yaml.safe_load((place / "multilabel.yaml").read_text())["task"]
    others = json.dumps([{"name": name, "task": task} for name in others])
    options = [f"init_from={decoder}", f"others={others}", option.format(place=place)]
    with pytest.raises(UserError, match=problem):
        finetune(place, "classification", tmp_path / "run", *options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["task.max_length=150"], "prompts and answers may have"),
        (["head=a:B"], "head is for encoders and for decoders with answers.form head"),
        (["task.long=windows"], "task.long windows is for encoders"),
        (["training.label_smoothing=0.1"], "class_weights are for models with a head"),
        (['answers.prompt={"name": "a", "input": "{{ txt }}"}'], "prompt a: 'txt' is undefined"),
    ],
)
def test_what_does_not_fit_a_decoder(place, decoder, tmp_path, options, problem):  # noqa: F811
    long = place / "long.jsonl"
    rows = [json.loads(line) for line in (place / "classification.jsonl").open()]
    rows[0]["text"] = " ".join(f"{f} today" for f in FINDINGS * 30)
    long.write_text("\n".join(map(json.dumps, rows)))
    options = [*options, f"init_from={decoder}", f"task.train={long}"]
    with pytest.raises(UserError, match=problem):
        finetune(place, "classification", tmp_path / "run", *options)


def test_an_encoder_is_not_asked(place, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="answers is for decoders, not for a bert"):
        finetune(place, "classification", tmp_path / "run", "answers.constrained=true")
