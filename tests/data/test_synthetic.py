"""Synthetic notes: the same bytes everywhere, consistent patients, duplicates to be found."""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict

from medjax.data.synthetic import patient_notes, write_notes


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    path = tmp_path / "notes.jsonl"
    command = [sys.executable, "-m", "medjax.data.synthetic", str(path), "--patients", "20"]
    done = subprocess.run([*command, "--seed", "3"], capture_output=True, text=True, check=True)
    assert "notes of 20 patients" in done.stdout
    assert hashlib.sha256(path.read_bytes()).hexdigest() == (
        "b23265b10959efb9e6edab39a8a6059314a92d6046c062ddf2286b4455edb028"
    )


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path):
    write_notes(tmp_path / "a.jsonl", 5, seed=1)
    write_notes(tmp_path / "b.jsonl", 8, seed=1)
    few, many = read(tmp_path / "a.jsonl"), read(tmp_path / "b.jsonl")
    assert many[: len(few)] == few
    assert len({n["id"] for n in many}) == len(many)
    assert list(patient_notes(0, seed=2)) != list(patient_notes(0, seed=1))


def test_notes_have_what_clinical_notes_have(tmp_path):
    path = tmp_path / "notes.jsonl"
    count = write_notes(path, 200, seed=0)
    notes = read(path)
    assert count == len(notes) > 2000
    by_category = defaultdict(list)
    for note in notes:
        by_category[note["category"]].append(note["text"])
    assert set(by_category) == {"Discharge summary", "Physician", "Nursing", "Radiology"}
    for text in by_category["Discharge summary"]:
        assert "Discharge Medications:\n1. " in text and "History of Present Illness:" in text
        assert "___" in text or "[**" in text
    everything = "\n".join(n["text"] for n in notes)
    for phrase in ("denies", "mg BID", "No evidence of", "SpO2", "HbA1c", "°F", "w/ h/o"):
        assert phrase in everything
    texts = [n["text"] for n in notes]
    assert 0.02 < 1 - len(set(texts)) / len(texts) < 0.10


def test_patients_are_consistent_and_findings_hang_together(tmp_path):
    write_notes(tmp_path / "notes.jsonl", 200, seed=0)
    medications = defaultdict(set)
    sugar = {True: [], False: []}
    for note in read(tmp_path / "notes.jsonl"):
        if note["category"] == "Discharge summary":
            text = note["text"]
            listed = text.partition("Discharge Medications:\n")[2].partition("\n\n")[0]
            medications[note["patient"]].add(listed.replace("once ", ""))
            diabetic = "T2DM" in text or "type 2 diabetes" in text
            sugar[diabetic].append(float(text.partition("glucose ")[2].split()[0].strip("*")))
    assert all(len(lists) == 1 for lists in medications.values())
    mean = {known: sum(v) / len(v) for known, v in sugar.items()}
    assert mean[True] > 1.5 * mean[False]
