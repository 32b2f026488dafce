"""The prepare command: from notes to shards that training reads, and everything that can fail."""

import contextlib
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
from medjax.prepare import run
from tests.tokenizers import KINDS, small_tokenizer


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with notes.jsonl, a tokenizer of each kind, and config.yaml."""
    folder = tmp_path_factory.mktemp("work")
    write_notes(folder / "notes.jsonl", 40, seed=0)
    texts = [json.loads(line)["text"] for line in (folder / "notes.jsonl").open()]
    for kind in KINDS:
        small_tokenizer(kind, texts, 700).save_pretrained(folder / kind)
    source = {"path": str(folder / "notes.jsonl"), "id": "id", "patient": "patient"}
    source |= {"name": "made up", "licence": "none needed", "access": "open"}
    config = {"sources": [source], "tokenizer": str(folder / "bpe"), "output": "unset"}
    config |= {"validation_fraction": 0.2, "shard_tokens": 30_000, "deduplicate": "exact"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def prepare(work, output, *overrides):
    run(load(PrepareConfig, [work / "config.yaml"], [f"output={output}", *overrides]))
    return Path(output)


def with_source(path, **more):
    """Override that replaces the sources by one."""
    return f"sources={json.dumps([{'path': str(path)} | more])}"


@pytest.mark.parametrize("kind", KINDS)
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
    for kind in KINDS:
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


def test_a_note_of_50_megabytes_is_counted_or_kept(work, tmp_path):
    """As broken quoting makes them; in the format whose library has a limit of its own."""
    path = tmp_path / "notes.csv"
    short = "text\n" + "".join(f"note number {i}\n" for i in range(50))
    path.write_text(f'{short}"{"word " * 10_000_000}"\n')
    out = prepare(work, tmp_path / "out", with_source(path))
    assert read_manifest(out).drops == {"over 1,000,000 characters": 1}
    path.write_text(f'{short}"{"word " * 1_000_000}"\n')
    options = ["cleaning.max_characters=100000000", "validation_fraction=0"]
    manifest = read_manifest(prepare(work, tmp_path / "all", with_source(path), *options))
    assert manifest.drops == {} and manifest.splits["train"].characters > 4_999_999


def test_typed_placeholders_and_a_tokenizer_that_parts_them(work, tmp_path, capsys):
    options = ["cleaning.placeholders=typed", "validation_fraction=0", f"tokenizer={work / 'bpe'}"]
    out = prepare(work, tmp_path / "out", *options)
    assert "[Name], [Reg#]" in capsys.readouterr().err
    tokens = np.concatenate(open_split(out, "train").arrays["tokens"])
    text = load_tokenizer(out / "tokenizer").decode(tokens)
    assert "[Name]" in text and "[MISC]" in text and "[**" not in text and "___" not in text
    tagged = {"cleaning": {"placeholders": "typed"}}
    texts = [json.loads(line)["text"] for line in (work / "notes.jsonl").open()]
    small_tokenizer("bpe", texts, 700, **tagged).save_pretrained(tmp_path / "tagged")
    options[-1] = f"tokenizer={tmp_path / 'tagged'}"
    out = prepare(work, tmp_path / "whole", *options)
    assert "take several tokens" not in capsys.readouterr().err
    own = load_tokenizer(out / "tokenizer").convert_tokens_to_ids("[Name]")
    tokens = np.concatenate(open_split(out, "train").arrays["tokens"])
    assert (tokens == own).sum() == text.count("[Name]")


def command(work, *arguments, **options):
    line = [sys.executable, "-m", "medjax.prepare", str(work / "config.yaml"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, **options)


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


SMALL_CHUNKS = """
import sys
import medjax.data.stream, medjax.prepare
medjax.data.stream.BATCH_CHARACTERS, medjax.data.stream.FEW = 2**15, 1
medjax.prepare.CHUNK_CHARACTERS = 2**17
if __name__ == "__main__":
    medjax.prepare.main(medjax.prepare.PrepareConfig, medjax.prepare.run, "")
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(work, tmp_path):
    """SIGKILL while notes are read, twice, and while shards are written; workers end too."""
    big = tmp_path / "big.jsonl"
    write_notes(big, 800, seed=9)
    (tmp_path / "small_chunks.py").write_text(SMALL_CHUNKS)
    source = {"path": str(big), "patient": "patient", "id": "id"}
    line = [sys.executable, str(tmp_path / "small_chunks.py"), str(work / "config.yaml")]
    line += ["--sources", json.dumps([source]), "--deduplicate", "near", "--output"]

    def start(name):
        environment = os.environ | {"MARK": str(tmp_path)}
        line_ = [*line, str(tmp_path / name)]
        return subprocess.Popen(line_, stderr=subprocess.PIPE, text=True, env=environment)

    def running():
        """Processes that these runs have started, workers included."""
        return [p for p in Path("/proc").glob("[0-9]*") if is_marked(p / "environ")]

    def is_marked(path):
        with contextlib.suppress(OSError):
            return str(tmp_path).encode() in path.read_bytes()

    whole = start("whole")
    assert whole.wait() == 0, whole.stderr.read()
    unfinished, workers = tmp_path / ".out.work", 0
    for moment in ("spool/00001.json", "spool/00004.json", "written.json"):
        process = start("out")
        deadline = time.monotonic() + 120
        while not (unfinished / moment).exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        workers += len(running()) - 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert unfinished.exists() and not (tmp_path / "out").exists()
        while running() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not running()
    assert workers >= 1
    process = start("out")
    _, shown = process.communicate()
    assert process.returncode == 0 and "reading: done by an earlier run" in shown
    assert not unfinished.exists()
    a, b = tmp_path / "whole", tmp_path / "out"
    names = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
    for name in names:
        if name.name != "manifest.json":
            assert (a / name).read_bytes() == (b / name).read_bytes(), name
    ours, theirs = (read_manifest(f).model_dump(exclude={"config"}) for f in (a, b))
    assert ours == theirs and "near duplicate" in ours["drops"]


def test_work_of_another_configuration_is_not_gone_on_with(work, tmp_path):
    unfinished = tmp_path / ".out.work"
    (unfinished / "spool").mkdir(parents=True)
    (unfinished / "identity").write_text("another")
    (unfinished / "spool" / "00000.json").write_text("{}")
    prepare(work, tmp_path / "out")
    assert not unfinished.exists()


def test_sources_with_weights_are_stored_apart(work, tmp_path):
    for name in "ab":
        rows = [{"text": f"{name} note {i} of one", "patient": i} for i in range(300)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = [
        {"path": str(tmp_path / f"{n}.jsonl"), "patient": "patient", "name": n, "weight": w}
        for n, w in (("a", 3.0), ("b", 1.0))
    ]
    out = prepare(work, tmp_path / "out", f"sources={json.dumps(sources)}")
    manifest = read_manifest(out)
    tokenizer = load_tokenizer(out / "tokenizer")
    for place, name in enumerate("ab"):
        split = open_split(out, "train", place)
        texts = [tokenizer.decode(split.document(i)) for i in range(split.info.documents)]
        assert texts and all(f"{name} note" in text for text in texts)
        assert split.info.documents == sum(s.documents for s in split.info.shards)
    whole = open_split(out, "train").info
    assert whole.documents == manifest.splits["train"].documents
    verify_split(out, "train")
    from medjax.pretrain import CorpusConfig, weighted_splits

    weights = [w for _, w in weighted_splits(CorpusConfig(path=str(out), weight=2.0))]
    assert weights == [1.5, 0.5]


def test_near_duplicates_evaluation_examples_and_held_out_patients(work, tmp_path, capsys):
    note = "Seen for chest pain with normal troponin , sent home on aspirin to return if worse ."
    rows = [{"text": f"{note} {note} number {i} " * 3, "patient": i} for i in range(200)]
    words = [" ".join(f"w{(i * j) % 977}" for j in range(1, 60)) for i in range(1, 200)]
    rows += [{"text": text, "patient": 1000 + i} for i, text in enumerate(words)]
    rows += [{"text": text + " added word", "patient": 3000 + i} for i, text in enumerate(words)]
    rows += [{"text": "the very example of an evaluation", "patient": 5000}]
    notes = tmp_path / "notes.jsonl"
    notes.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "ids.txt").write_text("1000\n1001\n77777\n")
    (tmp_path / "test.jsonl").write_text('{"q": "The VERY example of: an evaluation!"}')
    held = [{"path": str(tmp_path / "ids.txt"), "source": "h", "evaluation": "e"}]
    evaluation = [{"name": "e", "path": str(tmp_path / "test.jsonl"), "fields": ["q"]}]
    evaluation[0]["remove"] = True
    source = with_source(notes, patient="patient", name="h")
    options = [f"hold_out={json.dumps(held)}", f"evaluation={json.dumps(evaluation)}"]
    manifest = read_manifest(prepare(work, tmp_path / "out", source, *options, "deduplicate=near"))
    assert manifest.drops["patient held out"] == 2
    assert manifest.drops["holds an evaluation example"] == 1
    # two held out first notes leave their copies the first of their kind
    assert manifest.drops["near duplicate"] == 197
    (info,) = manifest.hold_out
    assert (info.ids, info.found, info.notes) == (3, 2, 2)
    (found,) = manifest.evaluations
    assert (found.removed, found.notes_removed) == ("by id and text", 1)
    printed = capsys.readouterr().out
    assert "2 of 3 ids occur; 2 notes out" in printed and "1 of 1 checkable examples" in printed
    (tmp_path / "ids.txt").write_text("1000\n")
    with pytest.raises(UserError, match="id lists or evaluation files have changed"):
        prepare(work, tmp_path / "out", source, *options, "deduplicate=near")


def test_a_full_disk_is_named_and_leaves_nothing(work, tmp_path, monkeypatch):
    from medjax.data import shards

    def full(path, *args, **kwargs):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(shards, "open", full, raising=False)
    with pytest.raises(UserError, match=r"00000\.tokens: the disk is full"):
        prepare(work, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.work"]
    monkeypatch.undo()
    prepare(work, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
