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
from medjax.data.streamed import StreamedArray, streamed_from


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The smallest stored type that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


COUNTS = ("documents", "tokens", "bytes", "characters", "masked_words")


class SplitWriter:
    """Appends notes to the shards of one split; `finish` gives the split's part of the manifest.

    `state()` says, as JSON, what has been written; a writer made with it goes on from there,
    whatever was written after it.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        dtype: str,
        *,
        words: bool,
        shard_tokens: int,
        source: int | None = None,
        state: dict | None = None,
    ):
        self.folder = Path(folder) / split
        self.folder.mkdir(exist_ok=True)
        self.dtype = dtype
        self.shard_tokens = shard_tokens
        self.source = source
        self.endings = ("tokens", "offsets", "words") if words else ("tokens", "offsets")
        if state is None:
            state = {"shards": [[0, 0]], "counts": dict.fromkeys(COUNTS, 0)}
        self._sizes = [list(sizes) for sizes in state["shards"]]  # documents and tokens of each
        self.counts = dict(state["counts"])
        self._cut_back()

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
            room = self.shard_tokens - self._sizes[-1][1]
            fitting = int(np.searchsorted(np.cumsum(lengths[start:]), room, side="right"))
            empty = self._sizes[-1][1] == 0
            stop = start + max(fitting, int(empty))  # a note longer than a shard gets its own
            if stop > start:
                self._append(ids[start:stop], words[start:stop] if words else None)
            if stop < len(ids):
                self._sizes.append([0, 0])
            start = stop
        added = (
            len(ids),
            int(lengths.sum()),
            sum(len(t.encode()) for t in texts),
            sum(map(len, texts)),
            masked_words,
        )
        for name, number in zip(COUNTS, added, strict=True):
            self.counts[name] += number

    def state(self) -> dict:
        """What has been written, as JSON."""
        return {"shards": self._sizes, "counts": self.counts}

    def finish(self) -> list[Shard]:
        """The shards, with their checksums; nothing can be added any more."""
        shards = []
        for number, (documents, tokens) in enumerate(self._sizes):
            self._write(number, "offsets", np.array([tokens]).astype("<u8"))
            sums = {}
            for ending in self.endings:
                with open(self._path(number, ending), "rb") as file:
                    sums[ending] = hashlib.file_digest(file, "sha256").hexdigest()
            shards.append(
                Shard(
                    name=self._name(number),
                    tokens=tokens,
                    documents=documents,
                    source=self.source,
                    sha256=sums,
                )
            )
        return shards

    def _append(self, ids: Sequence[np.ndarray], words: Sequence[np.ndarray] | None) -> None:
        number, size = len(self._sizes) - 1, self._sizes[-1]
        ends = size[1] + np.cumsum([len(i) for i in ids])
        tokens = np.concatenate(ids).astype(f"<u{np.dtype(self.dtype).itemsize}")
        self._write(number, "tokens", tokens)
        self._write(number, "offsets", np.concatenate([[size[1]], ends[:-1]]).astype("<u8"))
        if words is not None:
            self._write(number, "words", np.concatenate(words).astype("<u2"))
        size[0] += len(ids)
        size[1] = int(ends[-1])

    def _write(self, number: int, ending: str, values: np.ndarray) -> None:
        with open(self._path(number, ending), "ab") as file:
            file.write(values.tobytes())

    def _cut_back(self) -> None:
        """Makes the files what the state says; later ones go."""
        sizes = {"tokens": np.dtype(self.dtype).itemsize, "offsets": 8, "words": 2}
        known = set()
        for number, (documents, tokens) in enumerate(self._sizes):
            for ending in self.endings:
                path = self._path(number, ending)
                known.add(path)
                with open(path, "ab") as file:
                    length = documents if ending == "offsets" else tokens
                    file.truncate(length * sizes[ending])
        own = "[0-9]" * 5 if self.source is None else f"{self.source:02d}-*"
        for path in set(self.folder.glob(f"{own}.*")) - known:
            path.unlink()

    def _name(self, number: int) -> str:
        return f"{number:05d}" if self.source is None else f"{self.source:02d}-{number:05d}"

    def _path(self, number: int, ending: str) -> Path:
        return self.folder / f"{self._name(number)}.{ending}"


def split_info(writers: Sequence[SplitWriter], patients: int) -> SplitInfo:
    """What a split holds, from the writers of its sources."""
    totals = {name: sum(writer.counts[name] for writer in writers) for name in COUNTS}
    shards = [shard for writer in writers for shard in writer.finish()]
    return SplitInfo(patients=patients, dtype=writers[0].dtype, shards=shards, **totals)


class Split(NamedTuple):
    """A memory-mapped split: one stream of tokens over its shards."""

    folder: Path
    name: str
    info: SplitInfo
    starts: Int64[np.ndarray, " S+1"]
    """Where each shard begins in the stream, and the end."""
    arrays: dict[str, list[np.ndarray | StreamedArray]]
    """Mapped shards by ending: tokens, offsets, words."""

    def read(
        self, starts: Int64[np.ndarray, " B"], length: int, ending: str = "tokens"
    ) -> Int32[np.ndarray, "B L"]:
        """Rows of `length` values of the stream from each of `starts`, across shard files."""
        out = np.empty((len(starts), length), np.int32)
        shards = np.searchsorted(self.starts, starts, side="right") - 1
        within = starts - self.starts[shards]
        pieces = []  # those that stay in a bucket come while the others are asked for
        for row, shard, start in zip(out, shards.tolist(), within.tolist(), strict=True):
            piece = self.arrays[ending][shard][start : start + length]
            filled = len(piece)
            pieces.append((row[:filled], piece))
            while filled < length:
                shard += 1
                piece = self.arrays[ending][shard][: length - filled]
                pieces.append((row[filled : filled + len(piece)], piece))
                filled += len(piece)
        for place, piece in pieces:
            place[:] = piece
        return out

    def document(self, index: int) -> Int32[np.ndarray, " T"]:
        """The ids of one note."""
        for shard, offsets, tokens in zip(
            self.info.shards, self.arrays["offsets"], self.arrays["tokens"], strict=True
        ):
            if index < shard.documents:
                ids = tokens[int(offsets[index]) : int(offsets[index + 1])]
                return np.asarray(ids).astype(np.int32)
            index -= shard.documents
        raise IndexError(index)


def open_split(folder: str | Path, split: str, source: int | None = None) -> Split:
    """Maps a split's shards, or one source's of them, and checks their sizes with the manifest.

    Raises:
      UserError: naming the split, or the file that is missing or of another size.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if split not in manifest.splits:
        known = ", ".join(manifest.splits)
        raise UserError(f"{folder}: has no split {split!r}; there are {known}")
    info = manifest.splits[split]
    if source is not None:
        shards = [shard for shard in info.shards if shard.source == source]
        counts = {n: sum(getattr(s, n) for s in shards) for n in ("tokens", "documents")}
        info = info.model_copy(update={"shards": shards, **counts})
    arrays: dict[str, list[np.ndarray | StreamedArray]] = {}
    address = streamed_from(folder) if split == "train" else None
    for shard in info.shards:
        for ending in shard.sha256:
            dtype, length = _layout(ending, shard, info)
            name = f"{shard.name}.{ending}"
            if address and ending == "tokens":
                array = StreamedArray(address, name, dtype, length)
            else:
                array = _map(folder / split / name, dtype, length)
            arrays.setdefault(ending, []).append(array)
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
