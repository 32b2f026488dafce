"""The prepare command: from notes to shards that training reads, and everything that can fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from medjax.config import UserError, load
from medjax.data.batches import Batches, Validation
from medjax.data.clean import clean
from medjax.data.config import CleaningConfig, PrepareConfig
from medjax.data.manifest import read_manifest
from medjax.data.shards import open_split, verify_split
from medjax.data.synthetic import write_notes
from medjax.data.tokenize import load_tokenizer, load_vocabulary, tokenizer_hash
from medjax.data.trainers import TRAINERS
from medjax.prepare import run

CANARY = "xylocanary"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with notes.jsonl, a tokenizer of each kind, and config.yaml."""
    folder = tmp_path_factory.mktemp("work")
    write_notes(folder / "notes.jsonl", 40, seed=0)
    texts = [json.loads(line)["text"] for line in (folder / "notes.jsonl").open()]
    for kind, train in TRAINERS.items():
        train(lambda: iter(texts), 700).save_pretrained(folder / kind)
    source = {"path": str(folder / "notes.jsonl"), "id": "id", "patient": "patient"}
    source |= {"name": "made up", "licence": "none needed", "access": "open"}
    config = {"sources": [source], "tokenizer": str(folder / "bpe"), "output": "unset"}
    config |= {"validation_fraction": 0.2, "shard_tokens": 30_000}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def prepare(work, output, *overrides):
    run(load(PrepareConfig, [work / "config.yaml"], [f"output={output}", *overrides]))
    return Path(output)


def with_source(path, **more):
    """Override that replaces the sources by one."""
    return f"sources={json.dumps([{'path': str(path)} | more])}"


@pytest.mark.parametrize("kind", TRAINERS)
def test_notes_to_batches(work, tmp_path, capsys, kind):
    out = prepare(work, tmp_path / "out", f"tokenizer={work / kind}")
    manifest = read_manifest(out)
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in (work / "notes.jsonl").open()]
    unique = {clean(r["text"], CleaningConfig()) for r in rows}
    assert manifest.drops == {"exact duplicate": len(rows) - len(unique)}
    splits = manifest.splits
    assert sum(s.documents for s in splits.values()) == len(unique)
    assert sum(s.patients for s in splits.values()) == 40
    assert sum(s.bytes for s in splits.values()) == sum(len(text.encode()) for text in unique)
    assert f"{splits['train'].tokens:,}" in printed and "exact duplicate" in printed
    assert len(splits["train"].shards) > 1 and splits["validation"].masked_words > 0
    source = manifest.sources[0]
    assert (source.name, source.licence, source.access) == ("made up", "none needed", "open")
    assert source.rows == len(rows) and source.documents == len(unique)

    copy, original = load_tokenizer(out / "tokenizer"), load_tokenizer(work / kind)
    assert tokenizer_hash(copy) == manifest.tokenizer.sha256 == tokenizer_hash(original)
    train, validation = open_split(out, "train"), open_split(out, "validation")
    expected = {tuple(ids) for ids in original(sorted(unique))["input_ids"]}
    assert tuple(train.document(0).tolist()) in expected
    assert tuple(validation.document(validation.info.documents - 1).tolist()) in expected
    vocabulary = load_vocabulary(out / "tokenizer")
    stream = train.read(np.array([0]), train.info.tokens)[0]
    assert (stream == vocabulary.separator_id).sum() == train.info.documents
    assert stream.max() < vocabulary.size == 700
    for split in ("train", "validation"):
        verify_split(out, split)
    batch = Batches([(train, 1.0)], 64, 8, 0)[3]["blocks"]
    assert batch.shape == (8, 64)
    words = Validation(validation, 64, 8)[0]["words"]
    assert 0.08 < (words > 0).mean() < 0.25


def test_masked_bytes_do_not_depend_on_the_tokenizer(work, tmp_path):
    sums = set()
    for kind in TRAINERS:
        out = prepare(work, tmp_path / kind, f"tokenizer={work / kind}")
        validation = open_split(out, "validation")
        words = validation.read(np.array([0]), validation.info.tokens, "words")[0]
        masked_bytes = int((words - 1).clip(0).sum())
        sums.add((masked_bytes, validation.info.bytes, validation.info.masked_words))
    assert len(sums) == 1


def test_the_same_run_gives_the_same_files(work, tmp_path):
    a, b = (prepare(work, tmp_path / name) for name in "ab")
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
    for file in files:
        if file.name != "manifest.json":
            assert (a / file).read_bytes() == (b / file).read_bytes()
    ours, theirs = (read_manifest(f).model_dump(exclude={"config"}) for f in (a, b))
    assert ours == theirs


def test_patients_are_not_divided_and_stay_when_notes_are_added(work, tmp_path):
    """Documents that stand in one split of a small corpus stand in the same split of a larger."""
    write_notes(tmp_path / "more.jsonl", 60, seed=0)
    columns = {"id": "id", "patient": "patient", "name": "made up"}
    sides = []
    for path, name in ((work / "notes.jsonl", "small"), (tmp_path / "more.jsonl", "large")):
        out = prepare(work, tmp_path / name, with_source(path, **columns))
        split = open_split(out, "validation")
        documents = {split.document(i).tobytes() for i in range(split.info.documents)}
        sides.append((documents, split.info.patients))
    assert sides[0][0] < sides[1][0] and sides[0][1] < sides[1][1]


def test_a_complete_output_is_left_alone_and_another_refused(work, tmp_path, capsys):
    out = prepare(work, tmp_path / "out")
    before = (out / "manifest.json").stat().st_mtime_ns
    prepare(work, out)
    assert "already prepared by this configuration; left alone" in capsys.readouterr().out
    assert (out / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"made differently.*\n  seed: 0 -> 5"):
        prepare(work, out, "seed=5")
    with pytest.raises(UserError, match="the tokenizer is another"):
        prepare(work, out, f"tokenizer={work / 'unigram'}")
    prepare(work, out, "seed=5", "overwrite=true")
    assert read_manifest(out).seed == 5
    notes = tmp_path / "notes.jsonl"
    shutil.copy(work / "notes.jsonl", notes)
    prepare(work, tmp_path / "copy", with_source(notes))
    with notes.open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(UserError, match="the source files have changed"):
        prepare(work, tmp_path / "copy", with_source(notes))


def test_sources_keep_their_own_patients(work, tmp_path):
    """Patient 1 of one hospital is not patient 1 of another, unless the sources share a name."""
    for name in "ab":
        rows = [{"text": f"{name} note {i} of a patient", "patient": i % 50} for i in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for names, expected in ((("one", "one"), 50), (("one", "two"), 100)):
        sources = [
            {"path": str(tmp_path / f"{file}.jsonl"), "patient": "patient", "name": name}
            for file, name in zip("ab", names, strict=True)
        ]
        out = prepare(work, tmp_path / "".join(names), f"sources={json.dumps(sources)}")
        assert sum(s.patients for s in read_manifest(out).splits.values()) == expected


def test_impossible_splits(work, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"note {i}", "patient": 1}) for i in range(9)))
    with pytest.raises(UserError, match="all 9 notes belong to one patient"):
        prepare(work, tmp_path / "out", with_source(path, patient="patient"))
    assert not (tmp_path / "out").exists()
    options = [with_source(path, patient="patient"), "validation_fraction=0"]
    out = prepare(work, tmp_path / "out", *options)
    assert list(read_manifest(out).splits) == ["train"]


def test_notes_without_text_are_counted_and_nothing_left_is_an_error(work, tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("text\n" + "".join(f"note number {i}\n" for i in range(50)) + '" "\n""\nab\n')
    out = prepare(work, tmp_path / "out", with_source(path), "cleaning.min_characters=3")
    assert read_manifest(out).drops == {"empty text": 2, "under 3 characters": 1}
    path.write_text('text\n" "\n""\n')
    with pytest.raises(UserError, match=r"no usable note among 2 rows \(2 empty text\)"):
        prepare(work, tmp_path / "none", with_source(path))


def command(work, *arguments, **options):
    line = [sys.executable, "-m", "medjax.prepare", str(work / "config.yaml"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, **options)


def test_no_text_of_a_note_leaves_the_prepared_folder(work, tmp_path):
    """Searches output, HOME and the temporary folder for a word that every note holds."""
    notes, home, temporary = tmp_path / "notes.jsonl", tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    rows = [{"text": f"{CANARY} number {i} again", "id": i} for i in range(300)]
    good = "\n".join(map(json.dumps, rows))
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(temporary)}
    environment = {k: v for k, v in environment.items() if not k.startswith(("HF_", "XDG_"))}
    import datasets

    saved = tmp_path / "saved"
    datasets.Dataset.from_list([{"text": f"{CANARY} saved {i}"} for i in range(9)]).save_to_disk(
        saved
    )
    bad_lines = [f'\n{{"text": "{CANARY}\n{CANARY}', f'\n{{"text": "{CANARY} \udce9"}}']
    for bad, code in zip(bad_lines, (0, 2), strict=True):
        notes.write_text(good + bad, errors="surrogateescape")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        sources = json.dumps([{"path": str(notes)}, {"path": str(saved)}])
        arguments = ["--sources", sources, "--output", tmp_path / "out"]
        done = command(work, *map(str, arguments), env=environment)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and CANARY not in done.stdout + done.stderr
        for folder in (home, temporary, tmp_path / "out"):
            for file in folder.rglob("*"):
                assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
    assert "line 301" in done.stderr and not (tmp_path / "out").exists()


def test_errors_are_sentences_with_exit_code_2(work, tmp_path):
    source = json.dumps([{"path": str(work / "notes.jsonl"), "text": "txt"}])
    done = command(work, "--output", str(tmp_path / "out"), "--sources", source)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no column 'txt'" in done.stderr and "did you mean 'text'?" in done.stderr
    done = command(work, "--validation_fractoin", "0.1")
    assert done.returncode == 2 and "did you mean validation_fraction?" in done.stderr


def test_help_is_quick(work):
    begin = time.monotonic()
    done = command(work, "--help")
    assert done.returncode == 0 and "validation_fraction" in done.stdout
    assert time.monotonic() - begin < 6  # under 2 s on an idle machine


def test_a_killed_run_leaves_no_folder_and_the_next_one_works(work, tmp_path):
    """SIGKILL while shards are being written."""
    out, big = tmp_path / "out", tmp_path / "big.jsonl"
    write_notes(big, 1500, seed=9)
    line = [sys.executable, "-m", "medjax.prepare", str(work / "config.yaml")]
    line += ["--output", str(out), "--sources", json.dumps([{"path": str(big)}])]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = tmp_path / ".out.incomplete"
    deadline = time.monotonic() + 60
    while not (partial / "train" / "00001.tokens").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists() and not out.exists()
    with pytest.raises(UserError, match="not a prepared folder"):
        open_split(partial, "train")
    prepare(work, out)
    verify_split(out, "train")
    assert not partial.exists()


def test_a_full_disk_is_named_and_leaves_nothing(work, tmp_path, monkeypatch):
    from medjax.data import shards

    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(shards, "open", full, raising=False)
    with pytest.raises(UserError, match=r"00000\.tokens: the disk is full"):
        prepare(work, tmp_path / "out")
    assert not any(tmp_path.iterdir())
