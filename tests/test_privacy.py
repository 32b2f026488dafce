"""Note text goes where it was asked for and nowhere else: a canary, searched for in every byte."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from medjax.data.synthetic import write_notes
from tests.training.conftest import MODELS, VOCABULARY

CANARY = "Xylocanary"
ENVIRONMENT = ("HF_", "XDG_", "JAX_COMPILATION_CACHE_DIR")


@pytest.fixture
def place(tmp_path):
    """Notes of which one holds the canary, and a home and a temporary folder of their own.

    A folder that `datasets` saved, whose library caches what it reads, holds it in every row.
    """
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    write_notes(tmp_path / "notes.jsonl", num_patients=30, seed=0)
    with open(tmp_path / "notes.jsonl", "a") as file:
        file.write(json.dumps({"text": f"Seen with {CANARY} today.", "patient": "c", "id": "c"}))
    import datasets

    rows = [{"text": f"{CANARY} saved {i}", "id": i} for i in range(9)]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    return tmp_path


# One process for several commands, as starting one for each costs seconds.
DRIVER = """
import json, runpy, sys
for verb, arguments in json.load(sys.stdin):
    sys.argv = [verb, *arguments]
    try:
        runpy.run_module(f"medjax.{verb}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    print(f"<{verb} ended with {code}>", flush=True)
"""


def commands(place, *wanted):
    """Runs (verb, values); neither what they say nor the folders around hold the canary."""
    calls = []
    for verb, values in wanted:
        path = place / f"{len(calls)}_{verb}.yaml"
        path.write_text(yaml.safe_dump(values))
        calls.append((verb, [str(path)]))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT)}
    environment |= {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(calls),
        env=environment | {"JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
    )
    assert CANARY.lower() not in (done.stdout + done.stderr).lower()
    for name in ("home", "tmp"):
        assert_absent(place / name)
    codes = re.findall(r"<(\w+) ended with (\d+)>", done.stdout)
    assert [verb for verb, _ in codes] == [verb for verb, _ in wanted], done.stderr
    return [int(code) for _, code in codes], done


def assert_absent(folder):
    """No file below the folder holds the canary, in any case."""
    for file in folder.rglob("*"):
        assert not file.is_file() or CANARY.lower().encode() not in file.read_bytes().lower(), file


def test_no_note_text_leaves_the_commands(place):
    source = {"path": str(place / "notes.jsonl"), "id": "id", "patient": "patient"}
    sources = [source, {"path": str(place / "saved"), "id": "id"}]
    tokenizer = {"sources": sources, "output": str(place / "tokenizer"), "kind": "wordpiece"}
    prepare = {"sources": sources, "output": str(place / "prepared"), "validation_fraction": 0.2}
    pretrain = MODELS["bert"] | {
        "run_dir": str(place / "run"),
        "data": [{"path": str(place / "prepared")}],
        "loop": {"steps": 4, "batch_size": 8, "log_every": 1},
        "evaluation": {"every": 2, "batches": 1},
    }
    table = place / "labelled.jsonl"
    rows = [{"text": f"{CANARY} says {i}", "label": "ny"[i % 2]} for i in range(40)]
    table.write_text("\n".join(map(json.dumps, rows)))
    finetune = {
        "run_dir": str(place / "tuned"),
        "init_from": str(place / "run"),
        "task": {"kind": "classification", "train": str(table), "max_length": 16, "stride": 4},
        "training": {"epochs": 1, "batch_size": 8},
        "seeds": [1],
        "draws": 100,
    }
    predict = {"model": str(place / "tuned" / "export"), "input": str(table)}
    ask = {"run_dir": str(place / "asked"), "model": str(place / "run"), "mode": "likelihood"}
    ask |= {"task": finetune["task"], "draws": 100}
    runs = {"runs": [str(place / "tuned"), str(place / "asked")], "output": str(place / "report")}
    codes, done = commands(
        place,
        ("train_tokenizer", tokenizer | {"vocab_size": VOCABULARY}),
        ("prepare", prepare | {"tokenizer": str(place / "tokenizer")}),
        ("pretrain", pretrain),
        ("finetune", finetune),
        ("predict", predict | {"output": str(place / "tuned" / "all.jsonl")}),
        ("prompt", ask | {"prompts": [{"name": "p", "input": "{{ text }}"}]}),
        ("compare", runs),
    )
    assert codes == [0] * 7 and "models: 2" in done.stdout, done.stderr
    for name in ("tokenizer", "prepared", "run", "tuned", "asked", "report"):
        assert_absent(place / name)

    broken = place / "broken.jsonl"
    span = [{"start": 0, "end": 99, "label": "X"}]
    broken.write_text(json.dumps({"text": CANARY, "label": span}))
    task = {"kind": "tagging", "format": "spans", "train": str(broken)}
    tokens = next((place / "prepared" / "train").glob("*.tokens"))
    tokens.write_bytes(tokens.read_bytes()[:-2])
    codes, done = commands(
        place,
        ("finetune", finetune | {"task": task, "run_dir": str(place / "no")}),
        ("pretrain", pretrain | {"run_dir": str(place / "other")}),
    )
    assert codes == [2, 2] and "Traceback" not in done.stderr
    assert "does not lie in its text" in done.stderr
    assert "but the manifest says" in done.stderr and not (place / "other").exists()


@pytest.mark.parametrize("verb", ["train_tokenizer", "prepare"])
@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", f'text\n"{CANARY}" said" twice\n', "line 2"),
        ("a.csv", f'text\n"{CANARY} without an end\n', "line"),
        ("a.csv", f"{CANARY}\nsecond\n", "no column 'text'"),
        ("a.jsonl", f"{CANARY}\n", "not a JSON object"),
        ("a.jsonl", f'{{"text": "{CANARY} \udce9"}}\n', "not valid utf-8"),
        ("a.parquet", CANARY, "cannot be read as a Parquet file"),
        ("a.txt.gz", CANARY, "gzip is damaged"),
    ],
)
def test_errors_say_nothing_of_the_text(place, verb, name, content, problem, capsys):
    """In one process, as starting one for each costs seconds."""
    from medjax import prepare, train_tokenizer
    from medjax.config import UserError
    from medjax.data.config import PrepareConfig, TokenizerConfig

    path = place / name
    path.write_text(content, errors="surrogateescape")
    common = {"sources": [{"path": str(path)}], "output": str(place / "out")}
    shutil.rmtree(place / "out", ignore_errors=True)
    with pytest.raises(UserError, match=problem) as error:
        if verb == "prepare":
            folder = tokenizer_folder(place)
            prepare.run(PrepareConfig(**common, tokenizer=folder))
        else:
            train_tokenizer.run(TokenizerConfig(**common, vocab_size=VOCABULARY))
    shown = capsys.readouterr()
    assert CANARY not in str(error.value) + shown.out + shown.err
    assert error.value.__suppress_context__ or error.value.__context__ is None
    assert not (place / "out").exists()


def tokenizer_folder(place):
    """A tokenizer that is never asked for a piece."""
    from transformers import BertTokenizerFast

    pieces = {p: i for i, p in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])}
    BertTokenizerFast(vocab=pieces).save_pretrained(place / "tiny")
    return str(place / "tiny")
