"""Batches of raw token blocks: batch `s` is a pure function of (manifest, seed, global batch, s).

Blocks are cut from a split's token stream at multiples of their length. Their order is a
pseudo-random permutation made by our own Feistel network, so that no library version changes it;
each source has its own permutation, fresh each epoch, and its own counter. Nothing is iterated:
hosts and devices may change between restarts and the order stays. Every process reads only its
own rows. The objectives (`medjax/objectives`) corrupt the blocks on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from medjax.config import UserError
from medjax.data.shards import Split

ROUNDS = 6  # 4 make a pseudo-random permutation (Luby and Rackoff 1988); 6 for small domains
PATTERN = 10_000  # rows after which the mixture pattern repeats: weights are exact to 1e-4


class Batches:
    """Training batches of one or several splits with weights; `batches[step]`.

    Raises:
      UserError: when processes do not divide the batch, or a split is shorter than one batch.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Split, float]],
        block_length: int,
        global_batch: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self.splits = [split for split, _ in sources]
        self.block_length, self.global_batch, self.seed = block_length, global_batch, seed
        self.rows = _process_rows(global_batch, process_index, process_count)
        self.blocks = np.array([split.info.tokens // block_length for split in self.splits])
        self.pattern = mixture_pattern([weight for _, weight in sources])
        per_batch = [global_batch * weight / sum(w for _, w in sources) for _, weight in sources]
        for split, blocks, needed in zip(self.splits, self.blocks, per_batch, strict=True):
            if blocks < max(needed, 1):
                raise UserError(
                    f"{split.folder}: split {split.name} has {split.info.tokens:,} tokens, "
                    f"{blocks:,} blocks of {block_length:,}, but a batch takes "
                    f"{needed:,.0f} of them; use more notes, shorter blocks or a smaller batch"
                )

    def __getitem__(self, step: int) -> dict[str, Int32[np.ndarray, "B L"]]:
        """{"blocks": this process's rows of batch `step`}."""
        rows = step * self.global_batch + self.rows
        source, counter = self.pattern.locate(rows)
        blocks = np.empty((len(rows), self.block_length), np.int32)
        for i, split in enumerate(self.splits):
            chosen = np.flatnonzero(source == i)
            if len(chosen):
                index = self._block_index(i, counter[chosen])
                blocks[chosen] = split.read(index * self.block_length, self.block_length)
        return {"blocks": blocks}

    def epochs(self, step: int) -> list[float]:
        """How often each source has been seen after `step` batches."""
        counts = self.pattern.counts_before(step * self.global_batch)
        return (counts / self.blocks).tolist()

    def _block_index(self, source: int, counter: Int64[np.ndarray, " B"]) -> np.ndarray:
        """Which block of a source its `counter`-th row is: one permutation per epoch."""
        blocks = int(self.blocks[source])
        epoch, position = np.divmod(counter, blocks)
        index = np.empty_like(position)
        for e in np.unique(epoch):
            chosen = epoch == e
            keys = permutation_keys(self.seed, source, int(e))
            index[chosen] = permute(position[chosen], blocks, keys)
        return index


class Validation:
    """A validation split's blocks in order; the last batch is filled up with rows of weight 0.

    Tokens behind the last whole block are left out.

    Raises:
      UserError: when the split is shorter than one block, or has no masked words.
    """

    def __init__(
        self,
        split: Split,
        block_length: int,
        global_batch: int,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self.split, self.block_length, self.global_batch = split, block_length, global_batch
        self.rows = _process_rows(global_batch, process_index, process_count)
        self.blocks = split.info.tokens // block_length
        if not self.blocks:
            raise UserError(
                f"{split.folder}: split {split.name} has {split.info.tokens:,} tokens, less than "
                f"one block of {block_length:,}; hold out more notes or use shorter blocks"
            )
        if "words" not in split.arrays:
            raise UserError(
                f"{split.folder}: split {split.name} has no masked words; only a validation "
                "split can be evaluated"
            )

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.blocks // self.global_batch)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """{"blocks": int32 [B, L], "words": uint16 [B, L], "valid": int32 [B], 0 for filling}."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = index * self.global_batch + self.rows
        starts = (rows % self.blocks) * self.block_length
        return {
            "blocks": self.split.read(starts, self.block_length),
            "words": self.split.read(starts, self.block_length, "words").astype(np.uint16),
            "valid": (rows < self.blocks).astype(np.int32),
        }


class MixturePattern(NamedTuple):
    """Which source each row comes from: a pattern of PATTERN rows, repeated."""

    order: Int64[np.ndarray, " P"]
    """Source of each row of the pattern."""
    before: Int64[np.ndarray, "P+1 K"]
    """Rows of each source before each row of the pattern; the last line is the whole."""

    def locate(self, rows: Int64[np.ndarray, " B"]) -> tuple[np.ndarray, np.ndarray]:
        """Source of each row, and how many rows of that source came before it."""
        repeats, position = np.divmod(rows, len(self.order))
        source = self.order[position]
        return source, repeats * self.before[-1, source] + self.before[position, source]

    def counts_before(self, row: int) -> Int64[np.ndarray, " K"]:
        """Rows of each source before `row`."""
        repeats, position = divmod(row, len(self.order))
        return repeats * self.before[-1] + self.before[position]


def mixture_pattern(weights: Sequence[float]) -> MixturePattern:
    """The source furthest behind its share goes next, so that every stretch has the mixture.

    Raises:
      UserError: for weights that are not positive or below 1/PATTERN of their sum.
    """
    shares = np.array(weights, np.float64)
    if not len(shares) or not np.all(np.isfinite(shares)) or shares.min() <= 0:
        raise UserError(f"mixture weights {list(weights)} must all be positive numbers")
    shares = shares / shares.sum()
    if shares.min() < 1 / PATTERN:
        raise UserError(
            f"mixture weights {list(weights)}: the smallest is {shares.min():.1e} of their sum, "
            f"but must be at least {1 / PATTERN:.0e}; raise it or leave the source out"
        )
    length = PATTERN if len(shares) > 1 else 1
    order = np.empty(length, np.int64)
    before = np.zeros((length + 1, len(shares)), np.int64)
    for row in range(length):
        # rounded, so that sources that are equally far behind go in their own order
        order[row] = np.argmax(np.round(shares * (row + 1) - before[row], 9))
        before[row + 1] = before[row]
        before[row + 1, order[row]] += 1
    return MixturePattern(order, before)


def permutation_keys(seed: int, source: int, epoch: int) -> UInt64[np.ndarray, " R"]:
    """One 64-bit key a round for the permutation of a source's epoch."""
    digest = hashlib.sha512(f"{seed}/{source}/{epoch}".encode()).digest()
    return np.frombuffer(digest, "<u8")[:ROUNDS].astype(np.uint64)


def permute(
    index: Int64[np.ndarray, " B"], size: int, keys: UInt64[np.ndarray, " R"]
) -> Int64[np.ndarray, " B"]:
    """Image of `index` under a pseudo-random permutation of range(size).

    A balanced Feistel network permutes the next power of four; walking its cycle until it falls
    below `size` restricts that to range(size) (Black and Rogaway 2002); under 4 steps on average.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    value = _feistel(index.astype(np.uint64), half, keys)
    outside = np.flatnonzero(value >= size)
    while len(outside):
        value[outside] = _feistel(value[outside], half, keys)
        outside = outside[value[outside] >= size]
    return value.astype(np.int64)


def _feistel(value: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea and Flood 2014); unsigned arithmetic wraps."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _process_rows(global_batch: int, index: int, count: int) -> Int64[np.ndarray, " B"]:
    """Rows of the global batch that a process reads: a contiguous slice."""
    if global_batch % count:
        raise UserError(
            f"global batch {global_batch} does not divide over {count} processes; "
            f"use a multiple of {count}"
        )
    local = global_batch // count
    return np.arange(index * local, (index + 1) * local, dtype=np.int64)
