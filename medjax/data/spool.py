"""Cleaned notes on the disk, between reading and tokenizing: what makes `prepare` resumable.

A chunk is a few files that begin with its number: `.text` (the notes, Arrow with zstd), `.notes`
(a record a note: keys, patient, source), `.bands` and `.signatures` (near-duplicates), `.hits`
(evaluation examples), and last `.json`, which makes it whole. A run that was killed goes on after
its last whole chunk. The folder holds note text and goes when the output is complete.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from medjax.data.output import explain_write_errors

if TYPE_CHECKING:
    import pyarrow as pa

NOTE = np.dtype(
    [
        ("key", "<u8", 2),  # of the text without white space: exact duplicates
        ("unit", "<u8", 2),  # what stays together in the split: the patient, else the text
        ("id", "<u8"),  # of the note's id within its source
        ("source", "<i2"),
        ("has_patient", "?"),
    ]
)


class Piece(NamedTuple):
    """Cleaned notes, as a worker hands them back or as a chunk holds them."""

    texts: list[str]
    arrays: dict[str, np.ndarray]
    """notes [N], bands [N, B], signatures [N, P], and hits [H, 2] with places in this piece."""
    drops: dict[int, Counter[str]]
    """Notes left out in cleaning, by source and reason."""
    notices: dict[int, Counter[str]]
    """Repairs, by source and kind."""
    read: int
    """Notes that came in."""


class Spool:
    """The chunks of a folder, in order; a note's place is its number over all of them."""

    def __init__(self, folder: Path):
        """Opens what is there; files of a chunk that was not finished are removed."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.infos: list[dict[str, Any]] = []
        while (path := folder / f"{len(self.infos):05d}.json").exists():
            self.infos.append(json.loads(path.read_text()))
        for path in folder.iterdir():
            if int(path.name[:5] if path.name[:5].isdigit() else 99999) >= len(self.infos):
                path.unlink()

    @property
    def notes(self) -> int:
        """Notes in all chunks."""
        return sum(info["notes"] for info in self.infos)

    @property
    def read(self) -> int:
        """Notes that were read from the sources to make them."""
        return sum(info["read"] for info in self.infos)

    @property
    def starts(self) -> Int64[np.ndarray, " C+1"]:
        """The first note of each chunk, and the end."""
        return np.cumsum([0] + [info["notes"] for info in self.infos])

    def append(self, pieces: Sequence[Piece]) -> None:
        """Writes a chunk; it counts once its last file is there."""
        name = f"{len(self.infos):05d}"
        texts = [text for piece in pieces for text in piece.texts]
        starts = np.cumsum([0] + [len(piece.texts) for piece in pieces])
        arrays = {key: [piece.arrays[key] for piece in pieces] for key in pieces[0].arrays}
        for hits, start in zip(arrays["hits"], starts, strict=False):
            hits[:, 0] += start
        info = {
            "notes": len(texts),
            "bytes": sum(len(text.encode()) for text in texts),
            "read": sum(piece.read for piece in pieces),
            "drops": _added(piece.drops for piece in pieces),
            "notices": _added(piece.notices for piece in pieces),
        }
        with explain_write_errors(self.folder):
            self._write_texts(name, texts)
            for key, parts in arrays.items():
                np.save(self.folder / f"{name}.{key}.npy", np.concatenate(parts))
            temporary = self.folder / f"{name}.tmp"
            temporary.write_text(json.dumps(info))
            temporary.rename(self.folder / f"{name}.json")
        self.infos.append(info)

    def texts(self, chunk: int) -> pa.ChunkedArray:
        """The notes of a chunk."""
        import pyarrow as pa

        with pa.OSFile(str(self.folder / f"{chunk:05d}.text")) as file:
            return pa.ipc.open_file(file).read_all()["text"]

    def array(self, chunk: int, key: str) -> np.ndarray:
        """One of a chunk's arrays, mapped."""
        return np.load(self.folder / f"{chunk:05d}.{key}.npy", mmap_mode="r")

    def pieces(self, key: str) -> Iterator[tuple[int, np.ndarray]]:
        """(first note, array) of every chunk."""
        for chunk, start in enumerate(self.starts[:-1].tolist()):
            yield start, self.array(chunk, key)

    def columns(self, key: str) -> int:
        """Width of an array with a row a note."""
        return self.array(0, key).shape[1] if self.infos else 0

    def gather(self, key: str, notes: Int64[np.ndarray, " M"]) -> np.ndarray:
        """The rows of some notes, in the order asked for."""
        order = np.argsort(notes, kind="stable")
        edges = np.searchsorted(notes[order], self.starts)
        parts = []
        for chunk, (start, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            if end > start:
                parts.append(self.array(chunk, key)[notes[order[start:end]] - self.starts[chunk]])
        rows = np.concatenate(parts) if parts else self.array(0, key)[:0]
        found = np.empty_like(rows)
        found[order] = rows
        return found

    def hits(self) -> Int64[np.ndarray, "H 2"]:
        """(note, evaluation example) of every match."""
        parts = [np.zeros((0, 2), np.int64)]
        for start, hits in self.pieces("hits"):
            parts.append(hits + np.array([start, 0]))
        return np.concatenate(parts)

    def _write_texts(self, name: str, texts: list[str]) -> None:
        import pyarrow as pa

        table = pa.table({"text": pa.array(texts, pa.large_string())})
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))
        with (
            pa.OSFile(str(self.folder / f"{name}.text"), "wb") as file,
            pa.ipc.new_file(file, table.schema, options=options) as writer,
        ):
            writer.write_table(table)


def _added(counts: Iterator[dict[int, Counter[str]]]) -> dict[int, Counter[str]]:
    total: dict[int, Counter[str]] = {}
    for by_source in counts:
        for source, counter in by_source.items():
            total.setdefault(source, Counter()).update(counter)
    return total
