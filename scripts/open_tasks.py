"""Open task sets as they are published, as files that `medjax.finetune` reads.

    python scripts/open_tasks.py hoc hoc.tar.gz FOLDER
    python scripts/open_tasks.py rqe RQE_Data FOLDER
    python scripts/open_tasks.py pubmedqa pubmedqa FOLDER
    python scripts/open_tasks.py mtsamples mtsamples.csv.gz FOLDER
    python scripts/open_tasks.py ner_mtl MTL-Bioinformatics-2016/data FOLDER

HoC (text/ and labels/), RQE (XML), PubMedQA (JSON, with the official list of test ids) and
MTSamples (one text stands under several specialties, so its rows are joined by text) become JSON
lines. NCBI-disease, BC5CDR, ChemProt, COVID-QA, MTS-Dialog and CasiMedicos are read as they are;
the test sentences of the first two (ner_mtl) become text to be looked for in notes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from open_notes import read_files


def main() -> None:
    """Writes the files of one set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=READERS)
    parser.add_argument("path", type=Path, help="file, folder or tar archive as published")
    parser.add_argument("output", type=Path, help="folder")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, rows in READERS[arguments.task](arguments.path).items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path = arguments.output / f"{arguments.task}_{name}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        print(f"{path}: {len(lines):,} examples")


def hoc(path: Path) -> dict[str, Iterable[dict]]:
    """Abstracts with the hallmarks (of the first level) of their sentences."""
    texts, labels = {}, {}
    for file, content in read_files(path):
        if file.parent.name == "text":
            texts[file.stem] = content.decode()
        elif file.parent.name == "labels":
            parts = re.split(r"<|AND(?=[\sA-Z])", content.decode())
            labels[file.stem] = sorted({p.split("--")[0].strip() for p in parts} - {"", "NULL"})
    return {"all": [{"id": i, "text": texts[i], "label": labels[i]} for i in sorted(texts)]}


def rqe(path: Path) -> dict[str, Iterable[dict]]:
    """Pairs of a consumer's question (chq) and a frequent one (faq); the former is the group."""
    found = {}
    for name in ("Train", "Test"):
        (file,) = path.glob(f"RQE_{name}*.xml")
        pairs = ElementTree.parse(file).getroot().iter("pair")
        found[name.lower()] = [
            {
                "id": f"{name}{pair.get('pid')}",
                "chq": pair.findtext("chq").strip(),
                "faq": pair.findtext("faq").strip(),
                "label": pair.get("value"),
            }
            for pair in pairs
        ]
    return found


def pubmedqa(path: Path) -> dict[str, Iterable[dict]]:
    """Question and abstract (without its conclusion); yes, no or maybe."""
    test = json.loads((path / "test_ground_truth.json").read_text())
    found: dict[str, list[dict]] = {"train": [], "test": []}
    for name, item in json.loads((path / "ori_pqal.json").read_text()).items():
        row = {"id": name, "question": item["QUESTION"], "context": " ".join(item["CONTEXTS"])}
        row["label"] = item["final_decision"]
        found["test" if name in test else "train"].append(row)
    return found


def mtsamples(path: Path) -> dict[str, Iterable[dict]]:
    """Texts with all specialties that they are filed under, of those with 50 texts or more."""
    specialties = defaultdict(set)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        csv.field_size_limit(10**9)
        for row in csv.DictReader(file):
            if row["transcription"].strip():
                specialties[row["transcription"]].add(row["medical_specialty"].strip())
    counts: dict[str, int] = defaultdict(int)
    for own in specialties.values():
        for label in own:
            counts[label] += 1
    rows = [
        {"id": f"m{i}", "text": text, "label": sorted(n for n in own if counts[n] >= 50)}
        for i, (text, own) in enumerate(specialties.items())
    ]
    return {"all": rows}


def ner_mtl(path: Path) -> dict[str, Iterable[dict]]:
    """Test sentences without their tags."""
    found = {}
    for name in ("NCBI-disease", "BC5CDR"):
        lines = (path / f"{name}-IOB" / "test.tsv").read_text(encoding="utf-8")
        blocks = [block for block in lines.split("\n\n") if block.strip()]
        texts = (" ".join(row.split("\t")[0] for row in block.splitlines()) for block in blocks)
        found[f"{name.lower().replace('-', '_')}_test"] = [{"text": text} for text in texts]
    return found


READERS = {
    "hoc": hoc,
    "rqe": rqe,
    "pubmedqa": pubmedqa,
    "mtsamples": mtsamples,
    "ner_mtl": ner_mtl,
}


if __name__ == "__main__":
    main()
