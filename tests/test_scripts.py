"""Scripts that read published corpora and task sets, on invented files of their layout."""

import csv
import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import pytest

from medjax.hub.folder import load_pretrained, save_pretrained
from medjax.models import build_model
from medjax.models.config import BertConfig
from medjax.scoring.lineage import read_lineage
from tests.tokenizers import small_tokenizer

SCRIPTS = Path(__file__).parent.parent / "scripts"


def run(script, *arguments):
    subprocess.run([sys.executable, SCRIPTS / script, *map(str, arguments)], check=True)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))


def test_hoc(tmp_path):
    labels = "< Resisting cell death--Apoptosis ANDEvading growth suppressors< <NULL< "
    files = {"text/1.txt": "One. Two.", "labels/1.txt": labels}
    files |= {"text/2.txt": "None.", "labels/2.txt": "< "}
    archive(tmp_path / "hoc.tar.gz", files)
    run("open_tasks.py", "hoc", tmp_path / "hoc.tar.gz", tmp_path)
    first, second = lines(tmp_path / "hoc_all.jsonl")
    assert first["label"] == ["Evading growth suppressors", "Resisting cell death"]
    assert second == {"id": "2", "text": "None.", "label": []}


def test_rqe(tmp_path):
    for name in ("Train", "Test"):
        pair = f'<pair pid="1" value="true"><chq> {name} a?\n</chq><faq>b?</faq></pair>'
        (tmp_path / f"RQE_{name}_1.xml").write_text(f"<RQE>{pair}</RQE>")
    run("open_tasks.py", "rqe", tmp_path, tmp_path)
    (row,) = lines(tmp_path / "rqe_test.jsonl")
    assert row == {"id": "Test1", "chq": "Test a?", "faq": "b?", "label": "true"}
    assert lines(tmp_path / "rqe_train.jsonl")[0]["id"] == "Train1"


def test_pubmedqa(tmp_path):
    item = {"QUESTION": "Q?", "CONTEXTS": ["a", "b"], "LONG_ANSWER": "c", "final_decision": "no"}
    (tmp_path / "ori_pqal.json").write_text(json.dumps({"7": item, "8": item}))
    (tmp_path / "test_ground_truth.json").write_text(json.dumps({"8": "no"}))
    run("open_tasks.py", "pubmedqa", tmp_path, tmp_path)
    (row,) = lines(tmp_path / "pubmedqa_test.jsonl")
    assert row == {"id": "8", "question": "Q?", "context": "a b", "label": "no"}
    assert [own["id"] for own in lines(tmp_path / "pubmedqa_train.jsonl")] == ["7"]


def test_mtsamples(tmp_path):
    names = ("note_id", "medical_specialty", "transcription")
    with gzip.open(tmp_path / "m.csv.gz", "wt", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        for i in range(60):
            own = {"note_id": i, "transcription": f"text {i % 55}"}
            table.writerow(own | {"medical_specialty": " Surgery"})
        table.writerow(own | {"medical_specialty": "Rare"})
        table.writerow({"note_id": 99, "medical_specialty": " Surgery", "transcription": " "})
    run("open_tasks.py", "mtsamples", tmp_path / "m.csv.gz", tmp_path)
    rows = lines(tmp_path / "mtsamples_all.jsonl")
    assert len(rows) == 55 and all(row["label"] == ["Surgery"] for row in rows)


def test_ner_mtl(tmp_path):
    for name in ("NCBI-disease", "BC5CDR"):
        folder = tmp_path / f"{name}-IOB"
        folder.mkdir()
        (folder / "test.tsv").write_text("A\tO\ntumour\tB-X\n\nB\tO\n\n")
    run("open_tasks.py", "ner_mtl", tmp_path, tmp_path)
    for name in ("ncbi_disease", "bc5cdr"):
        rows = lines(tmp_path / f"ner_mtl_{name}_test.jsonl")
        assert rows == [{"text": "A tumour"}, {"text": "B"}]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "open_sets.sh CORPORA FOLDER"),
        (["{}"], "open_sets.sh CORPORA FOLDER"),
        (["{}/nothing", "{}"], "is no folder"),
        (["{}", "{}", "everything"], "no stage everything"),
    ],
)
def test_open_sets_says_what_it_needs(tmp_path, arguments, problem):
    command = ["bash", SCRIPTS / "open_sets.sh", *(own.format(tmp_path) for own in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and problem in done.stderr


@pytest.mark.parametrize("packed", [False, True])
def test_medquad(tmp_path, packed):
    pair = "<QAPair><Question>Q?</Question><Answer>A.</Answer></QAPair>"
    content = f"<Document><QAPairs>{pair}{pair.replace('A.', '')}</QAPairs></Document>"
    if packed:
        archive(tmp_path / "source.tar.gz", {"1_GARD/0000001.xml": content})
    else:
        (tmp_path / "source.tar.gz" / "1_GARD").mkdir(parents=True)
        (tmp_path / "source.tar.gz" / "1_GARD" / "0000001.xml").write_text(content)
    run("open_notes.py", "medquad", tmp_path / "source.tar.gz", tmp_path / "out.jsonl")
    (row,) = lines(tmp_path / "out.jsonl")
    assert "Q?" in row["text"] and "A." in row["text"]


def test_untrained(tmp_path):
    """Other weights of the same shapes, and a history without any text."""
    tokenizer = small_tokenizer("wordpiece", ["a note of fever and cough"] * 20, 40)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    model = build_model(config)
    save_pretrained(
        tmp_path / "model", model, model.init(jax.random.key(1)), tokenizer=tmp_path / "tokenizer"
    )
    run("untrained.py", tmp_path / "model", tmp_path / "untrained")
    assert read_lineage(tmp_path / "untrained") == []
    (_, trained), (_, other) = map(load_pretrained, (tmp_path / "model", tmp_path / "untrained"))
    assert jax.tree.map(jax.numpy.shape, trained) == jax.tree.map(jax.numpy.shape, other)
    words = [params["embeddings"]["word"] for params in (trained, other)]
    assert not jax.numpy.array_equal(*words)
