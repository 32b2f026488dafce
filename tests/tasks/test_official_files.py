"""MedNLI, RadQA and CLIP in the layout that PhysioNet hands them out in, with invented text."""

import csv
import json
from pathlib import Path

import pytest

from medjax.config import UserError, load
from medjax.finetune import FinetuneConfig
from medjax.tasks.read import read_task

CONFIGS = Path("configs/finetune")
CLIP_LABELS = (
    "I-Imaging-related followup",
    "I-Appointment-related followup",
    "I-Medication-related followups",
    "I-Procedure-related followup",
    "I-Lab-related followup",
    "I-Case-specific instructions for patient",
    "I-Other helpful contextual information",
)


def task_of(name, folder):
    """The task of a shipped configuration, with its files under `folder`."""
    config = load(FinetuneConfig, [CONFIGS / name], [])
    paths = {}
    for split in ("train", "validation", "test"):
        path = Path(getattr(config.task, split))
        paths[split] = str(folder / path.name)
    return config.task.model_copy(update=paths)


def write_mednli(folder):
    names = {"train": "mli_train_v1.jsonl", "dev": "mli_dev_v1.jsonl", "test": "mli_test_v1.jsonl"}
    for split, name in names.items():
        lines = []
        for i in range(6):
            label = ("entailment", "neutral", "contradiction")[i % 3]
            row = {
                "sentence1": f"Pt {split}{i // 3} has a history of HTN",
                "pairID": f"{split}-{i}",
                "sentence1_parse": "(ROOT)",
                "sentence1_binary_parse": "( )",
                "sentence2": f" patient {split}{i}" + (f" is {label}." if i % 2 else ""),
                "sentence2_parse": "(ROOT)",
                "sentence2_binary_parse": "( )",
                "gold_label": label,
            }
            lines.append(json.dumps(row))
        (folder / name).write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", ["mednli_encoder.yaml", "mednli_t5.yaml"])
def test_mednli(tmp_path, name):
    write_mednli(tmp_path)
    data = read_task(task_of(name, tmp_path))
    assert data.labels == ("entailment", "neutral", "contradiction")
    first, second = data.splits["train"][:2]
    assert first.text == (
        "mednli premise: Pt train0 has a history of HTN hypothesis: patient train0."
    )
    assert second.text.endswith("hypothesis: patient train1 is neutral.")
    assert first.text_pair is None and first.id == "train-0" and first.gold == 0
    assert first.group == second.group != data.splits["train"][3].group  # the premise
    assert [len(own) for own in data.splits.values()] == [6, 6, 6]


def write_radqa(folder):
    for number, split in enumerate(("train", "dev", "test")):
        context = f"FINDINGS: [**Name {number}**]\nLungs are clear {split}.\nNo effusion."
        questions = [
            {
                "id": f"{number}_1_O",
                "question": "Is there an effusion?",
                "is_impossible": False,
                "answers": [
                    {"text": "No effusion", "answer_start": context.index("No effusion")},
                    {"text": "effusion.", "answer_start": context.index("effusion.")},
                ],
            },
            {
                "id": f"{number}_2_O",
                "question": "Any fracture?",
                "is_impossible": True,
                "answers": [],
            },
        ]
        data = [
            {"title": str(900 + number), "paragraphs": [{"context": context, "qas": questions}]}
        ]
        (folder / f"{split}.json").write_text(json.dumps({"version": "1.0.0", "data": data}))


@pytest.mark.parametrize("name", ["radqa_encoder.yaml", "radqa_t5.yaml"])
def test_radqa(tmp_path, name):
    write_radqa(tmp_path)
    data = read_task(task_of(name, tmp_path))
    answered, unanswerable = data.splits["train"]
    assert [answer.text for answer in answered.gold] == ["No effusion", "effusion."]
    assert unanswerable.gold == () and answered.group == "900"
    assert answered.text.splitlines()[0] == "FINDINGS: [**Name 0**]"


def write_clip(folder, *, labels="list"):
    with (folder / "sentence_level.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "doc_id", "sent_index", "sentence", "labels"])
        number = 0
        for document in ("100", "101", "102"):
            for index in (2, 0, 1):
                words = [f"doc{document}", "sentence's", str(index), "\n", "[**Date", "**]"]
                own = [CLIP_LABELS[i] for i in range(7) if (int(document) + index + i) % 5 == 0]
                table.writerow([number, document, index, words, own if labels == "list" else "?"])
                number += 1
    for name, document in (("train", "100"), ("val", "101"), ("test", "102")):
        (folder / f"{name}_ids.csv").write_text(f"{document}\n")


@pytest.mark.parametrize("name", ["clip_encoder.yaml", "clip_t5.yaml"])
def test_clip(tmp_path, name):
    write_clip(tmp_path)
    data = read_task(task_of(name, tmp_path))
    assert set(data.labels) == {label.removeprefix("I-") for label in CLIP_LABELS}
    assert list(data.labels) == sorted(data.labels)
    first, second, third = data.splits["train"]
    assert [e.id for e in (first, second, third)] == ["100:0", "100:1", "100:2"]
    assert first.text.startswith("doc100 sentence's 0") and first.document[2] == third.text
    assert second.place == 1 and first.group == "100" and first.document is second.document
    assert [data.labels[i] for i in first.gold] == sorted(
        label.removeprefix("I-") for i, label in enumerate(CLIP_LABELS) if (100 + i) % 5 == 0
    )
    wanted = [
        (100 + d + index + i) % 5 == 0 for d in range(3) for index in range(3) for i in range(7)
    ]
    found = [i in e.gold for own in data.splits.values() for e in own for i in range(7)]
    assert sum(found) == sum(wanted) > 0


def test_clip_files_that_do_not_belong_together(tmp_path):
    write_clip(tmp_path)
    (tmp_path / "test_ids.csv").write_text("102\n999\n")
    task = task_of("clip_encoder.yaml", tmp_path)
    with pytest.raises(UserError, match="1 of its 2 documents have no sentences"):
        read_task(task)
    write_clip(tmp_path, labels="none")
    with pytest.raises(UserError, match=r"row 2: sent_index must be a number.*lists"):
        read_task(task)
    (tmp_path / "sentence_level.csv").unlink()
    with pytest.raises(UserError, match="beside the lists of ids"):
        read_task(task)
