"""Open corpora as they are published, as JSON lines (`id`, `text`) for `prepare`.

    python scripts/open_notes.py e3c e3c_english.tar.gz OUT.jsonl [--layer 3]
    python scripts/open_notes.py medquad medquad.tar.gz OUT.jsonl

E3C (JSON documents in layers; layers 1 and 2 are its annotated test data) and MedQuAD (XML, a
question and its answer make a text), from the repository's folder or a tar archive of it. MTSamples
is a CSV, which `prepare` reads as it is.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from xml.etree import ElementTree


def main() -> None:
    """Writes one corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=("e3c", "medquad"))
    parser.add_argument("path", type=Path, help="folder or tar archive")
    parser.add_argument("output", type=Path)
    parser.add_argument("--layer", type=int, help="of E3C; all without it")
    arguments = parser.parse_args()
    files = read_files(arguments.path)
    notes = e3c(files, arguments.layer) if arguments.corpus == "e3c" else medquad(files)
    lines = [json.dumps(note, ensure_ascii=False) + "\n" for note in notes]
    arguments.output.write_text("".join(lines), encoding="utf-8")
    print(f"{arguments.output}: {len(lines):,} texts")


def read_files(path: Path) -> Iterator[tuple[PurePath, bytes]]:
    """(path, content) of every file, in order of their paths."""
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            yield file.relative_to(path), file.read_bytes()
        return
    with tarfile.open(path) as archive:
        members = sorted((m for m in archive if m.isfile()), key=lambda member: member.name)
        for member in members:
            yield PurePath(member.name), archive.extractfile(member).read()


def e3c(files: Iterator[tuple[PurePath, bytes]], layer: int | None) -> Iterator[dict[str, str]]:
    """The documents of a layer."""
    for path, content in files:
        if path.suffix == ".json" and layer in (None, int(path.parent.name.removeprefix("layer"))):
            yield {"id": path.stem, "text": json.loads(content)["text"]}


def medquad(files: Iterator[tuple[PurePath, bytes]]) -> Iterator[dict[str, str]]:
    """Questions that have answers, with them."""
    for path, content in files:
        pairs = ElementTree.fromstring(content).iter("QAPair") if path.suffix == ".xml" else ()
        for pair in pairs:
            parts = [(pair.findtext(name) or "").strip() for name in ("Question", "Answer")]
            if all(parts):
                yield {
                    "id": f"{path.parent.name}/{path.stem}-{pair.get('pid')}",
                    "text": "\n".join(parts),
                }


if __name__ == "__main__":
    main()
