"""Token shards of a prepared folder: flat, memory-mapped, with document offsets.

    train/00000.tokens      little-endian uint16 (uint32 above 65,536 ids): every note's ids with
                            the tokenizer's own special tokens, one note after the other
    train/00000.offsets     uint64: where each of the shard's notes begins, in tokens, and the end
    validation/00000.words  uint16 per token: 0 not masked, n >= 1 masked and covering n - 1 bytes

`prepare.py` writes them through `SplitWriter` into a folder of `output.py`, `manifest.py` lists
them, and `batches.py` reads blocks of tokens through `open_split`.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt16

from medjax.config import UserError
from medjax.data.manifest import Shard, SplitInfo, read_manifest


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The smallest stored type that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


class SplitWriter:
    """Appends notes to the shards of one split; `finish` gives the split's part of the manifest."""

    def __init__(self, folder: Path, split: str, dtype: str, *, words: bool, shard_tokens: int):
        self.folder = Path(folder) / split
        self.folder.mkdir()
        self.dtype = dtype
        self.shard_tokens = shard_tokens
        self.endings = ("tokens", "offsets", "words") if words else ("tokens", "offsets")
        self.shards: list[Shard] = []
        self.documents = self.tokens = self.bytes = self.characters = self.masked_words = 0
        self._open()

    def add(
        self,
        ids: Sequence[Int32[np.ndarray, " T"]],
        texts: Sequence[str],
        words: Sequence[UInt16[np.ndarray, " T"]] | None = None,
        masked_words: int = 0,
    ) -> None:
        """Appends notes: their ids, their texts (only measured), and masked words if stored."""
        start = 0
        lengths = np.array([len(i) for i in ids], np.int64)
        while start < len(ids):
            room = self.shard_tokens - self._ends[-1]
            fitting = int(np.searchsorted(np.cumsum(lengths[start:]), room, side="right"))
            empty = self._ends[-1] == 0
            stop = start + max(fitting, int(empty))  # a note longer than a shard gets its own
            if stop > start:
                self._append(ids[start:stop], words[start:stop] if words else None)
            if stop < len(ids):
                self._close()
                self._open()
            start = stop
        self.documents += len(ids)
        self.tokens += int(lengths.sum())
        self.bytes += sum(len(t.encode()) for t in texts)
        self.characters += sum(map(len, texts))
        self.masked_words += masked_words

    def finish(self, patients: int) -> SplitInfo:
        """Closes the last shard."""
        self._close()
        return SplitInfo(
            documents=self.documents,
            patients=patients,
            tokens=self.tokens,
            bytes=self.bytes,
            characters=self.characters,
            dtype=self.dtype,
            masked_words=self.masked_words,
            shards=self.shards,
        )

    def _append(self, ids: Sequence[np.ndarray], words: Sequence[np.ndarray] | None) -> None:
        ends = self._ends[-1] + np.cumsum([len(i) for i in ids])
        self._write("tokens", np.concatenate(ids).astype(f"<u{np.dtype(self.dtype).itemsize}"))
        self._write("offsets", np.concatenate([self._ends[-1:], ends[:-1]]).astype("<u8"))
        if words is not None:
            self._write("words", np.concatenate(words).astype("<u2"))
        self._ends = ends
        self._count += len(ids)

    def _write(self, ending: str, values: np.ndarray) -> None:
        data = values.tobytes()
        with open(self.folder / f"{self._name}.{ending}", "ab") as file:
            file.write(data)
        self._hashes[ending].update(data)

    def _open(self) -> None:
        self._name = f"{len(self.shards):05d}"
        self._hashes = {e: hashlib.sha256() for e in self.endings}
        self._ends = np.zeros(1, np.int64)
        self._count = 0
        for ending in self.endings:
            self._write(ending, np.empty(0))

    def _close(self) -> None:
        self._write("offsets", self._ends[-1:].astype("<u8"))
        shard = Shard(
            name=self._name,
            tokens=int(self._ends[-1]),
            documents=self._count,
            sha256={e: h.hexdigest() for e, h in self._hashes.items()},
        )
        self.shards.append(shard)


class Split(NamedTuple):
    """A memory-mapped split: one stream of tokens over its shards."""

    folder: Path
    name: str
    info: SplitInfo
    starts: Int64[np.ndarray, " S+1"]
    """Where each shard begins in the stream, and the end."""
    arrays: dict[str, list[np.ndarray]]
    """Mapped shards by ending: tokens, offsets, words."""

    def read(
        self, starts: Int64[np.ndarray, " B"], length: int, ending: str = "tokens"
    ) -> Int32[np.ndarray, "B L"]:
        """Rows of `length` values of the stream from each of `starts`, across shard files."""
        out = np.empty((len(starts), length), np.int32)
        shards = np.searchsorted(self.starts, starts, side="right") - 1
        within = starts - self.starts[shards]
        for row, shard, start in zip(out, shards.tolist(), within.tolist(), strict=True):
            piece = self.arrays[ending][shard][start : start + length]
            filled = len(piece)
            row[:filled] = piece
            while filled < length:
                shard += 1
                piece = self.arrays[ending][shard][: length - filled]
                row[filled : filled + len(piece)] = piece
                filled += len(piece)
        return out

    def document(self, index: int) -> Int32[np.ndarray, " T"]:
        """The ids of one note."""
        for shard, offsets, tokens in zip(
            self.info.shards, self.arrays["offsets"], self.arrays["tokens"], strict=True
        ):
            if index < shard.documents:
                return tokens[int(offsets[index]) : int(offsets[index + 1])].astype(np.int32)
            index -= shard.documents
        raise IndexError(index)


def open_split(folder: str | Path, split: str) -> Split:
    """Maps a split's shards and checks their sizes against the manifest.

    Raises:
      UserError: naming the split, or the file that is missing or of another size.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if split not in manifest.splits:
        known = ", ".join(manifest.splits)
        raise UserError(f"{folder}: has no split {split!r}; there are {known}")
    info = manifest.splits[split]
    arrays: dict[str, list[np.ndarray]] = {}
    for shard in info.shards:
        for ending in shard.sha256:
            dtype, length = _layout(ending, shard, info)
            path = folder / split / f"{shard.name}.{ending}"
            arrays.setdefault(ending, []).append(_map(path, dtype, length))
    starts = np.cumsum([0] + [s.tokens for s in info.shards], dtype=np.int64)
    return Split(folder, split, info, starts, arrays)


def verify_split(folder: str | Path, split: str) -> None:
    """Reads every file of a split and compares its SHA-256 with the manifest.

    Raises:
      UserError: naming the first file that differs.
    """
    for shard in open_split(folder, split).info.shards:
        for ending, expected in shard.sha256.items():
            path = Path(folder) / split / f"{shard.name}.{ending}"
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise UserError(
                    f"{path}: SHA-256 is {found}, but the manifest says {expected}; "
                    "copy it again or prepare the notes again"
                )


def _layout(ending: str, shard: Shard, info: SplitInfo) -> tuple[np.dtype, int]:
    if ending == "offsets":
        return np.dtype("<u8"), shard.documents + 1
    size = 2 if ending == "words" else np.dtype(info.dtype).itemsize
    return np.dtype(f"<u{size}"), shard.tokens


def _map(path: Path, dtype: np.dtype, length: int) -> np.ndarray:
    """A read-only view of a whole file; plain ndarray, as slices of np.memmap are slow."""
    expected = length * dtype.itemsize
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path}: is missing, but the manifest names it; restore it") from None
    if size != expected:
        raise UserError(
            f"{path}: has {size:,} bytes, but the manifest says {expected:,}; "
            "copy it again or prepare the notes again"
        )
    if not size:
        return np.empty(0, dtype)
    with open(path, "rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype)
