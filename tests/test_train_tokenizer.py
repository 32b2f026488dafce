"""The train_tokenizer command: folders that AutoTokenizer loads, the same every time."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from medjax.config import UserError, load
from medjax.data.config import TokenizerConfig
from medjax.data.synthetic import write_notes
from medjax.train_tokenizer import run

SIZE = 800
TEXT = "Pt denies chest pain, on metformin 500 mg BID."
EXPECTED = {
    "unigram": ("T5Tokenizer", [], ["</s>"]),
    "wordpiece": ("BertTokenizer", ["[CLS]"], ["[SEP]"]),
    "bpe": ("RobertaTokenizer", ["<s>"], ["</s>"]),
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notes")
    write_notes(folder / "notes.jsonl", 25, seed=0)
    config = {"sources": [{"path": str(folder / "notes.jsonl")}], "vocab_size": SIZE}
    config["output"] = str(folder / "unset")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def train(config_file, output, kind, *more):
    overrides = [f"output={output}", f"kind={kind}", *more]
    run(load(TokenizerConfig, [config_file], overrides))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(output)


@pytest.mark.parametrize("kind", EXPECTED)
def test_auto_tokenizer_loads_the_class_of_the_family(config_file, tmp_path, capsys, kind):
    tokenizer = train(config_file, tmp_path / "out", kind)
    name, begin, end = EXPECTED[kind]
    assert type(tokenizer).__name__ == name and len(tokenizer) == SIZE
    ids = tokenizer(TEXT).input_ids
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert pieces[: len(begin)] == begin and pieces[-1:] == end
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    if kind == "wordpiece":  # sets punctuation apart
        decoded = decoded.replace(" ,", ",").replace(" .", ".")
    assert decoded == TEXT
    assert not {p.name for p in (tmp_path / "out").iterdir()} - {
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    }
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["drops"]["exact duplicate"] > 0 and record["documents"] > 200
    assert f"({kind}) with 800 pieces" in capsys.readouterr().out


def test_t5_has_its_ids_and_sentinels(config_file, tmp_path):
    tokenizer = train(config_file, tmp_path / "t5", "unigram")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100)])
    assert sentinels == list(range(SIZE - 1, SIZE - 101, -1))
    assert tokenizer("x <extra_id_0> y").input_ids.count(SIZE - 1) == 1


def test_lowercase_wordpiece(config_file, tmp_path):
    tokenizer = train(config_file, tmp_path / "out", "wordpiece", "lowercase=true")
    assert (
        tokenizer.do_lower_case
        and tokenizer("PT DENIES").input_ids == tokenizer("pt denies").input_ids
    )
    assert not any(p != p.lower() for p in tokenizer.get_vocab() if p[0] != "[")
    with pytest.raises(UserError, match="lowercase is for kind wordpiece"):
        load(TokenizerConfig, [config_file], ["kind=unigram", "lowercase=true"])


@pytest.mark.parametrize("kind", EXPECTED)
def test_another_process_trains_the_same_files(config_file, tmp_path, kind):
    """Hash tables are seeded per process, and one thread sums in another order than two."""
    train(config_file, tmp_path / "here", kind)
    command = [sys.executable, "-m", "medjax.train_tokenizer", str(config_file), "--kind", kind]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    subprocess.run(
        [*command, "--output", str(tmp_path / "there")],
        check=True,
        env=environment,
        capture_output=True,
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_too_large_a_vocabulary_says_what_there_is(config_file, tmp_path):
    for kind in EXPECTED:
        with pytest.raises(UserError, match=r"vocab_size is 90,000, but these notes give [\d,]+"):
            train(config_file, tmp_path / "out", kind, "vocab_size=90000")
    assert not any(tmp_path.iterdir())
    with pytest.raises(UserError, match="vocab_size = 10 .*greater than or equal to 300"):
        load(TokenizerConfig, [config_file], ["vocab_size=10"])


def test_an_existing_tokenizer_is_left_alone_or_refused(config_file, tmp_path, capsys):
    train(config_file, tmp_path / "out", "bpe")
    before = (tmp_path / "out" / "tokenizer.json").stat().st_mtime_ns
    capsys.readouterr()
    train(config_file, tmp_path / "out", "bpe")
    assert "already trained by this configuration; left alone" in capsys.readouterr().out
    assert (tmp_path / "out" / "tokenizer.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"made differently.*\n  kind: 'bpe' -> 'wordpiece'"):
        train(config_file, tmp_path / "out", "wordpiece")
    replaced = train(config_file, tmp_path / "out", "wordpiece", "overwrite=true")
    assert type(replaced).__name__ == "BertTokenizer"
