"""The train_tokenizer command: folders that AutoTokenizer loads, the same every time."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from medjax.config import UserError, load
from medjax.data.config import TokenizerConfig
from medjax.data.placeholders import TAGS
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
    files = {"tokenizer.json", "tokenizer_config.json", "training.json"}
    files |= {"spiece.model"} if kind == "unigram" else set()
    assert {p.name for p in (tmp_path / "out").iterdir()} == files
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


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["kind=unigram", "lowercase=true"], "set normalization to nmt_nfkc"),
        (["kind=bpe", "lowercase=true"], "lowercase is not for bpe"),
        (["kind=bpe", "individual_digits=true"], "individual_digits is for unigram, not for bpe"),
        (["kind=wordpiece", "normalization=nmt_nfkc"], "normalization is for unigram"),
    ],
)
def test_options_of_another_kind(config_file, options, problem):
    with pytest.raises(UserError, match=problem):
        load(TokenizerConfig, [config_file], options)


ODD = "Café ½ tablet, ﬁne １２ mg 3⁄4 µg \u0130stanbul Straße 12/03 (x)"


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["normalization=nmt_nfkc"],
        ["normalization=nmt_nfkc", "lowercase=true"],
        ["individual_digits=true"],
        ["split_punctuation=true", "normalization=nmt_nfkc"],
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_options_of_sentencepiece(config_file, tmp_path, options):
    """What they promise, and a SentencePiece model with the same ids on every note."""
    import sentencepiece

    tokenizer = train(config_file, tmp_path / "out", "unigram", "vocab_size=600", *options)
    learnt = [p for p in tokenizer.get_vocab() if not p.startswith("<")]
    parts = [p.lstrip("▁") for p in learnt]
    joined = any(any(c.isdigit() for c in p) and len(p) > 1 for p in parts)
    assert joined != ("individual_digits=true" in options)
    mixed = any(any(c.isalnum() for c in p) and any(c in ",.:/" for c in p) for p in parts)
    assert mixed != ("split_punctuation=true" in options)
    assert any(p != p.lower() for p in parts) != ("lowercase=true" in options)
    assert (tokenizer.tokenize("ﬁ") == tokenizer.tokenize("fi")) == (
        len(options) > 0 and "nmt" in " ".join(options)
    )

    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "out" / "spiece.model"))
    assert model.vocab_size() == len(tokenizer) and model.unk_id() == 2
    lines = (config_file.parent / "notes.jsonl").read_text().splitlines()
    notes = [json.loads(line)["text"] for line in lines]
    texts = [" ".join(text.split()) for text in [*notes, ODD]]
    ours = tokenizer(texts, add_special_tokens=False).input_ids
    theirs = model.encode(texts)
    assert sum(len(ids) for ids in ours) == sum(len(ids) for ids in theirs)
    differ = [i for i, ids in enumerate(ours) if ids != theirs[i]]
    assert len(differ) < len(texts) / 50  # equally good paths ("1" "11", "11" "1")


@pytest.mark.parametrize("kind", EXPECTED)
def test_tags_of_placeholders_are_tokens(config_file, tmp_path, kind):
    tokenizer = train(config_file, tmp_path / "out", kind, "cleaning.placeholders=typed")
    assert len(tokenizer) == SIZE
    assert set(TAGS) < set(tokenizer.get_vocab())
    assert not any(tag[1:-1] in tokenizer.get_vocab() for tag in ("[Company]", "[Country]"))
    expected = ["[Name]", "[LOC]", "[Name]"]
    pieces = tokenizer.tokenize("Mr.[Name]of [LOC], by [Name]")
    assert [p for p in pieces if p in TAGS] == expected
    special = set(tokenizer.all_special_tokens)
    assert not special & set(TAGS)


@pytest.mark.parametrize("kind", EXPECTED)
def test_no_piece_comes_from_the_notes_of_few_patients(config_file, tmp_path, kind):
    """A name in many notes of three patients, and one in a note each of eight."""
    names, lines = {"Qvaxzu": 3, "Wyqozk": 8}, (config_file.parent / "notes.jsonl").read_text()
    for name, patients in names.items():
        for i in range(200 * patients):
            patient = f"{name}{i % patients if i >= patients or patients < 8 else i}"
            text = f"{name} came back, number {i} of {name}."
            lines += json.dumps({"id": f"{name}-{i}", "patient": patient, "text": text}) + "\n"
    (tmp_path / "notes.jsonl").write_text(lines)
    source = f"sources=[{{path: {tmp_path / 'notes.jsonl'}, id: id, patient: patient}}]"
    pieces = train(config_file, tmp_path / "out", kind, source, "vocab_size=600").get_vocab()
    assert not any("Qv" in piece for piece in pieces)
    assert any("Wyq" in piece for piece in pieces)
    assert any(piece.endswith("Q") for piece in pieces)  # a single character
    careless = train(config_file, tmp_path / "all", kind, source, "min_patients=1")
    assert any("Qvaxzu" in piece for piece in careless.get_vocab())


def test_a_sample_is_always_the_same_notes(config_file, tmp_path, capsys):
    drops = []
    for name in ("a", "b"):
        train(config_file, tmp_path / name, "bpe", "sample=0.5", "vocab_size=400")
        drops.append(json.loads((tmp_path / name / "training.json").read_text())["drops"])
    record = json.loads((tmp_path / "b" / "training.json").read_text())
    assert drops[0] == drops[1]
    assert 0.4 < record["documents"] / (record["documents"] + drops[0]["outside the sample"]) < 0.6
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (
        tmp_path / "b" / "tokenizer.json"
    ).read_bytes()


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
