"""Prompting from files to results: every mode, resumption, other systems' answers, bad input."""

import json
import shutil
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from medjax.config import UserError, load
from medjax.data.tokenize import load_tokenizer
from medjax.hub.folder import load_pretrained, save_pretrained
from medjax.models import build_model
from medjax.models.config import BertConfig, Compute, DecoderConfig, T5Config
from medjax.prompt import PromptConfig, run
from medjax.scoring.paired import load_scores
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example
from medjax.training.writing import shortened
from tests.tokenizers import small_tokenizer

pytestmark = pytest.mark.usefixtures("two_devices")
FINDINGS = ("fever", "cough", "rash", "pain")
COUNT = 80


def sentence(i):
    return f"the patient {'denies' if i % 2 else 'has'} {FINDINGS[i % 4]} since day {i}"


def row(i, kind):
    own = {"id": f"e{i}", "text": sentence(i), "patient": f"p{i // 2}"}
    start = sentence(i).index(FINDINGS[i % 4])
    span = {"start": start, "end": start + len(FINDINGS[i % 4]), "label": "Finding"}
    label = {
        "classification": "denied" if i % 2 else "present",
        "multilabel": [FINDINGS[i % 4]] if i % 3 else [],
        "tagging": [span],
        "text_to_text": FINDINGS[i % 4],
    }
    return own | {"label": label[kind]}


PROMPT = {
    "name": "plain",
    "instruction": "What is said? {{ labels | join(', ') }}.",
    "input": "Text: {{ text }}",
    "answer": "Answer:",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny decoder, a tiny T5, task files and a configuration."""
    folder = tmp_path_factory.mktemp("prompt")
    texts = [sentence(i) for i in range(COUNT)] * 3
    texts += ["What is said? denied, present, none. Text: Answer: Finding: {};"] * 30
    for kind in ("bpe", "unigram"):
        tokenizer = small_tokenizer(kind, texts, 330 if kind == "bpe" else 200)
        tokenizer.save_pretrained(folder / f"tokenizer_{kind}")
    size = len(load_tokenizer(folder / "tokenizer_bpe"))
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16}
    sizes |= {"num_hidden_layers": 2, "num_key_value_heads": 1, "initializer_range": 0.3}
    config = DecoderConfig(
        model_type="qwen3", vocab_size=size, max_position_embeddings=256, **sizes
    )
    model = build_model(config)
    params = model.init(jax.random.key(0))
    save_pretrained(folder / "decoder", model, params, tokenizer=folder / "tokenizer_bpe")
    size = len(load_tokenizer(folder / "tokenizer_unigram"))
    model = build_model(T5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=32, num_layers=1))
    params = model.init(jax.random.key(1))
    save_pretrained(folder / "t5", model, params, tokenizer=folder / "tokenizer_unigram")
    for kind in ("classification", "multilabel", "tagging", "text_to_text"):
        lines = [json.dumps(row(i, kind)) for i in range(COUNT)]
        (folder / f"{kind}.jsonl").write_text("\n".join(lines))
        task = {"kind": kind, "train": str(folder / f"{kind}.jsonl")}
        task |= {"columns": {"id": "id", "group": "patient"}}
        if kind == "tagging":
            task["format"] = "spans"
        values = {"run_dir": "unset", "model": str(folder / "decoder"), "task": task}
        values |= {"prompts": [PROMPT], "draws": 100, "compute": {"dtype": "float32"}}
        values |= {"decoding": {"max_new_tokens": 24}}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(values))
    return folder


def prompt(place, kind, run_dir, *overrides):
    config = load(PromptConfig, [place / f"{kind}.yaml"], [f"run_dir={run_dir}", *overrides])
    assert run(config) == 0
    results = json.loads((run_dir / "results.json").read_text())
    return results, results["test"][results["main"]]


@pytest.mark.parametrize("mode", ["free", "constrained", "likelihood"])
@pytest.mark.parametrize("model", ["decoder", "t5"])
def test_every_mode_of_a_closed_task(place, tmp_path, mode, model):
    results, scores = prompt(
        place, "classification", tmp_path / "run", f"mode={mode}", f"model={place / model}"
    )
    if mode == "constrained":
        assert results["not_understood"] == {f"{model}, 0-shot, constrained": [0]}
    assert 0 <= scores["accuracy"]["mean"] <= 1
    assert results["cut"] == 0
    assert results["tokens_in"][0] > 100 and results["seconds_per_example"][0] > 0
    assert ("brier" in scores) == (mode == "likelihood")
    lines = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
    assert len(lines) == results["groups_in_test"] * 2
    assert load_scores(tmp_path / "run").metric == "accuracy"
    answers = list((tmp_path / "run/answers").iterdir())
    assert bool(answers) == (mode == "likelihood")  # no text is left that was not asked for
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in answers)
    assert not (tmp_path / "run/generated.jsonl").exists()


@pytest.mark.parametrize("model", ["decoder", "t5"])
def test_in_int8_the_scores_are_nearly_the_same(place, tmp_path, model):
    found = []
    for int8 in ("false", "true"):
        run_dir = tmp_path / int8
        options = ["mode=likelihood", f"model={place / model}", f"int8={int8}"]
        results, _ = prompt(place, "classification", run_dir, *options)
        assert results["int8"] == (int8 == "true")
        (answers,) = (run_dir / "answers").iterdir()
        found.append([json.loads(line)["output"] for line in answers.open()])
    difference = np.abs(np.subtract(*found)).max()
    assert 0 < difference < 0.1 * np.std(found[0])


@pytest.mark.parametrize("kind", ["classification", "multilabel", "tagging", "text_to_text"])
def test_there_is_a_prompt_for_every_kind(place, tmp_path, kind):
    results, _ = prompt(place, kind, tmp_path / "run", "prompts=[]", "shots.count=1")
    assert results["prompt"] == "default" and results["shots"] == 1


@pytest.mark.parametrize("rule", ["head", "tail", "head_tail"])
def test_what_is_cut_of_texts_is_counted(place, rule):
    tokenizer = load_tokenizer(place / "tokenizer_bpe")
    words = " ".join(sentence(i) for i in range(8))
    examples = [Example("long", words, words), Example("short", "fever")]
    config = TaskConfig(kind="classification", train="x", max_length=12, stride=4, long=rule)
    (long, short), cut = shortened(examples, tokenizer, config)
    assert cut.tolist() == [True, False] and short == examples[1]
    assert long.text == long.text_pair
    parts = long.text.split(" ... ")
    assert len(parts) == (2 if rule == "head_tail" else 1)
    assert words.startswith(parts[0]) == (rule != "tail")
    assert words.endswith(parts[-1]) == (rule != "head")


@pytest.mark.parametrize("kind", ["multilabel", "tagging"])
def test_possible_answers_are_all_understood(place, tmp_path, kind):
    overrides = ["mode=constrained", "shots.count=2", "decoding.temperature=3.0"]
    results, _ = prompt(place, kind, tmp_path / "run", *overrides)
    assert list(results["not_understood"].values()) == [[0]]
    if kind == "tagging":  # quoted from the text, so every span has a place in it
        lines = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
        spans = [span for line in lines for span in line["prediction"]]
        assert spans and all(span["fragments"][0][0] >= 0 for span in spans)


def test_entities_as_json(place, tmp_path):
    """Shots show them so, and answers that are held to the schema are lists of them."""
    template = PROMPT | {"entities": "json"}
    overrides = [f"prompts={json.dumps([template])}", "mode=constrained", "shots.count=2"]
    overrides += ["decoding.temperature=3.0", "decoding.max_new_tokens=80", "write_text=true"]
    shutil.copytree(place / "decoder", tmp_path / "tuned/export")
    own = [*overrides, f"model={tmp_path / 'tuned/export'}"]
    results, _ = prompt(place, "tagging", tmp_path / "run", *own)
    assert list(results["not_understood"]) == ["tuned, 2-shot, constrained"]
    lines = [json.loads(line) for line in (tmp_path / "run/generated.jsonl").open()]
    found = [json.loads(line["text"]) for line in lines]
    assert {tuple(own) for items in found for own in items} == {("type", "text")}
    assert results["not_understood"]["tuned, 2-shot, constrained"] == [0]  # words of the text
    export = ["model=null", f"export={tmp_path / 'prompts.jsonl'}", "allow_export=true"]
    config = load(
        PromptConfig, [place / "tagging.yaml"], [*overrides[:1], "shots.count=2", *export]
    )
    assert run(config) == 0
    first = (tmp_path / "prompts.jsonl").read_text().splitlines()[0]
    assert '[{"type": "Finding", "text": ' in json.loads(first)["prompt"]


def test_the_best_prompt_on_validation_is_chosen_and_shots_are_seeded(place, tmp_path):
    other = PROMPT | {"name": "other", "answer": "", "labels": {"denied": "no", "present": "yes"}}
    results, _ = prompt(
        place,
        "classification",
        tmp_path / "run",
        f"prompts={json.dumps([PROMPT, other])}",
        "shots.count=3",
        "seeds=[1, 2]",
        "mode=likelihood",
    )
    selection = json.loads((tmp_path / "run/selection.json").read_text())
    assert set(selection["validation"]) == {"plain", "other"}
    best = max(selection["validation"], key=selection["validation"].get)
    assert selection["prompt"] == best == results["prompt"]
    assert selection["labelled_examples"] > 3
    assert results["seeds"] == [1, 2] and len(results["shared_tokens"]) == 2
    assert results["shared_tokens"][0] > 20
    names = {path.name for path in (tmp_path / "run/answers").iterdir()}
    place_of_best = ["plain", "other"].index(best)
    assert names >= {f"test-prompt_{place_of_best}-seed_{seed}.jsonl" for seed in (1, 2)}


def test_killed_it_goes_on_without_repeating_or_losing_answers(place, tmp_path, monkeypatch):
    options = ["write_text=true", "decoding.temperature=1.5", "seeds=[1, 2]"]
    whole, _ = prompt(place, "text_to_text", tmp_path / "whole", *options)
    monkeypatch.setattr("medjax.tasks.answers.TOGETHER", 5)
    prompt(place, "text_to_text", tmp_path / "cut", *options)
    answers = tmp_path / "cut/answers/test-prompt_0-seed_1.jsonl"
    content = answers.read_bytes()
    answers.write_bytes(content[: len(content) // 2])  # within a line
    (tmp_path / "cut/results.json").unlink()
    again, _ = prompt(place, "text_to_text", tmp_path / "cut", *options)
    assert again["test"] == whole["test"]
    names = [json.loads(line)["id"] for line in answers.open()]
    assert len(names) == len(set(names))
    other = (tmp_path / "whole/answers/test-prompt_0-seed_2.jsonl").read_text()
    assert other != (tmp_path / "whole/answers/test-prompt_0-seed_1.jsonl").read_text()
    for name in ("generated.jsonl", "predictions.jsonl"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()
    for file in (answers, tmp_path / "cut/generated.jsonl"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_answers_of_other_systems_are_read_by_the_same_rules(place, tmp_path):
    config = load(PromptConfig, [place / "classification.yaml"], ["run_dir=x"])
    from medjax.tasks.read import read_task

    test = read_task(config.task).splits["test"]
    said = ["I think it is Denied.", "PRESENT", "nothing of the kind"]
    file = tmp_path / "gpt.jsonl"
    lines = [json.dumps({"id": e.id, "output": said[i % 3]}) for i, e in enumerate(test)]
    file.write_text("\n".join(lines))
    results, scores = prompt(
        place, "classification", tmp_path / "run", "model=null", f"completions={file}"
    )
    want = sum(e.gold == (i % 3) for i, e in enumerate(test)) / len(test)
    assert scores["accuracy"]["mean"] == pytest.approx(want)
    unread = sum(i % 3 == 2 for i in range(len(test)))
    assert results["not_understood"] == {"gpt": [unread]}
    for content, problem in (
        (lines[:-1], "1 ids of test are missing"),
        ([*lines, lines[0]], f"the id {test[0].id} occurs twice"),
        ([*lines[:-1], "{"], f"line {len(lines)}: no object with `id` and `output`"),
    ):
        file.write_text("\n".join(content))
        with pytest.raises(UserError, match=problem):
            prompt(place, "classification", tmp_path / "bad", "model=null", f"completions={file}")


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["model=null"], "give either a model, or completions"),
        (["mode=constrained", "decoding.max_new_tokens=1"], "raise it"),
        (["shots.count=500"], "is more than the"),
        (["pattern=a"], "are for mode constrained"),
        (["task.long=windows"], "is for encoders"),
        ([f"prompts={json.dumps([PROMPT | {'input': '{{ tekst }}'}])}"], "'tekst' is undefined"),
        ([f"prompts={json.dumps([PROMPT | {'labels': {'absent': 'no'}}])}"], "labels names absent"),
        ([f"prompts={json.dumps([PROMPT, PROMPT])}"], "names must differ"),
        (["decoding.max_new_tokens=300"], "more than max_position_embeddings, 256"),
        (["mode=constrained", "pattern=("], "regular expression is wrong"),
        (["shots={count: 1, choice: fixed, ids: [e999]}"], "1 are not in train"),
    ],
)
def test_what_does_not_fit_is_said(place, tmp_path, overrides, problem):
    with pytest.raises(UserError, match=problem):
        prompt(place, "classification", tmp_path / "run", *overrides)


def test_prompts_are_exported_and_their_answers_read(place, tmp_path):
    """Texts leave only where they may; what comes back is scored as if written here."""
    run_dir, file = tmp_path / "run", tmp_path / "prompts.jsonl"
    base = [f"run_dir={run_dir}", "model=null", f"export={file}", "shots.count=2"]
    config = load(PromptConfig, [place / "tagging.yaml"], [*base, "task.terms=PhysioNet 1.5"])
    with pytest.raises(UserError, match=r"not declared open \(terms: PhysioNet 1.5\)"):
        run(config)
    assert not file.exists() and not run_dir.exists()
    for option in ("task.open=true", "allow_export=true"):
        file.unlink(missing_ok=True)
        assert run(load(PromptConfig, [place / "tagging.yaml"], [*base, option])) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    rows = [json.loads(line) for line in file.open()]
    assert rows[0]["messages"][1]["content"] in rows[0]["prompt"]
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    with pytest.raises(UserError, match="exists; remove it"):
        run(load(PromptConfig, [place / "tagging.yaml"], [*base, "task.open=true"]))

    answers, texts = tmp_path / "answers.jsonl", {f"e{i}": sentence(i) for i in range(COUNT)}
    with answers.open("w") as out:
        for number, own in enumerate(rows):
            finding = next(f for f in FINDINGS if f in texts[own["id"]])
            said = f"Finding: {finding}" + ("; Finding: gout" if number % 2 else "")
            out.write(json.dumps({"id": own["id"], "output": said}) + "\n")
    options = ["model=null", f"completions={answers}"]
    _, scores = prompt(place, "tagging", run_dir, *options)
    assert scores["span_recall"]["mean"] == scores["string_set_recall"]["mean"] == 1
    assert scores["string_set_precision"]["mean"] == pytest.approx(2 / 3, abs=0.02)


@pytest.fixture(scope="module")
def encoder(place):
    """A tiny BERT with its LM head."""
    texts = [sentence(i) for i in range(COUNT)] + ["denied present Text: Answer: , ."] * 20
    small_tokenizer("wordpiece", texts, 150).save_pretrained(place / "tokenizer_wordpiece")
    config = BertConfig(
        vocab_size=len(load_tokenizer(place / "tokenizer_wordpiece")),
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    model = build_model(config)
    params = model.init(jax.random.key(0))
    save_pretrained(place / "bert", model, params, tokenizer=place / "tokenizer_wordpiece")
    return place / "bert"


def test_an_encoder_fills_its_masks(place, encoder, tmp_path):
    """The score of a class is the log probability of its tokens at as many masks."""
    prompts = [PROMPT | {"labels": {"denied": "denies fever"}}]
    options = [f"model={encoder}", "mode=likelihood", f"prompts={json.dumps(prompts)}"]
    prompt(place, "classification", tmp_path / "run", *options)
    tokenizer = load_tokenizer(encoder)
    model, params = load_pretrained(encoder, Compute(dtype="float32"), ("lm_head",))
    (answers,) = (tmp_path / "run" / "answers").iterdir()
    rows = [json.loads(line) for line in answers.open()]
    texts = {f"e{i}": sentence(i) for i in range(COUNT)}
    run = jax.jit(model.apply)
    for own in rows[:5]:
        asked = f"What is said? denies fever, present.\n\nText: {texts[own['id']]}\nAnswer:"
        ids = tokenizer(asked).input_ids
        for score, label in zip(own["output"], ["denies fever", "present"], strict=True):
            wanted = tokenizer(label, add_special_tokens=False).input_ids
            masked = [*ids[:-1], *[tokenizer.mask_token_id] * len(wanted), ids[-1]]
            logits = run(params, {"input_ids": jnp.array([masked])}).logits[0]
            found = jax.nn.log_softmax(logits)[len(ids) - 1 :][: len(wanted)]
            expected = float(found[np.arange(len(wanted)), np.array(wanted)].sum())
            assert score == pytest.approx(expected, abs=1e-3)


def test_an_encoder_does_not_write(place, encoder, tmp_path):
    for mode in ("free", "constrained"):
        options = [f"model={encoder}", f"mode={mode}"]
        with pytest.raises(UserError, match="a bert does not write; set mode: likelihood"):
            prompt(place, "classification", tmp_path / "run", *options)
    with pytest.raises(UserError, match="more than the 64 positions"):
        shots = ["mode=likelihood", "shots.count=6"]
        prompt(place, "classification", tmp_path / "run", f"model={encoder}", *shots)
