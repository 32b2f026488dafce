"""Batches of rows of similar length, in few shapes: little padding, and nothing compiles anew.

Which rows batch `s` holds is a pure function of (lengths, batch size, seed, s), as for pretraining
(`batches.py`): rows are shuffled each epoch, sorted by length within large pools, cut into batches,
and the batches shuffled. Lengths are rounded up to a few edges, chosen for this data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

POOL = 50  # batches sorted by length together: less padding with more, but less random an order
MULTIPLE = 8  # lengths are multiples of it
SHAPES = 8


class LengthBatches(NamedTuple):
    """The batches of all epochs; `rows(step)` and `length(step)` say what batch `step` is."""

    lengths: Int64[np.ndarray, " R"]
    """Tokens of each row."""
    edges: Int64[np.ndarray, " E"]
    """Padded lengths, ascending."""
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every row once; the last one is filled up."""
        return -(-len(self.lengths) // self.batch_size)

    def epoch(self, number: int) -> Int64[np.ndarray, "S B"]:
        """Rows of every batch of an epoch; -1 fills up."""
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(len(self.lengths))
        pool = POOL * self.batch_size
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(-self.lengths[part], kind="stable")]
        return rng.permutation(_fill(order, self.batch_size))

    def in_order_of_length(self) -> Int64[np.ndarray, "S B"]:
        """Batches of one pass without chance, the longest rows first: for prediction."""
        return _fill(np.argsort(-self.lengths, kind="stable"), self.batch_size)

    def padded_length(self, rows: Int64[np.ndarray, " B"]) -> int:
        """The edge that holds all of these rows."""
        longest = self.lengths[rows[rows >= 0]].max()
        return int(self.edges[np.searchsorted(self.edges, longest)])

    def padding(self, batches: Int64[np.ndarray, "S B"]) -> float:
        """Share of the tokens of these batches that is padding."""
        computed = sum(self.padded_length(rows) for rows in batches) * self.batch_size
        return 1.0 - float(self.lengths[batches[batches >= 0]].sum()) / max(computed, 1)


def length_batches(
    lengths: Sequence[int], batch_size: int, seed: int, shapes: int = SHAPES
) -> LengthBatches:
    """Batches for rows of these lengths, in at most `shapes` different padded lengths."""
    rounded = -(-np.maximum(np.asarray(lengths, np.int64), 1) // MULTIPLE) * MULTIPLE
    return LengthBatches(np.asarray(lengths, np.int64), _edges(rounded, shapes), batch_size, seed)


def target_lengths(
    edges: Int64[np.ndarray, " E"],
    lengths: Int64[np.ndarray, " R"],
    targets: Int64[np.ndarray, " R"],
) -> dict[int, int]:
    """Padded length of rows -> the longest target of rows up to it, a multiple of 8.

    Args:
      lengths: of the rows.
      targets: the lengths of what is to be learnt of each.
    """
    longest = [targets[lengths <= edge].max(initial=1) for edge in edges]
    return {
        int(edge): int(-(-n // MULTIPLE) * MULTIPLE) for edge, n in zip(edges, longest, strict=True)
    }


def _edges(rounded: Int64[np.ndarray, " R"], shapes: int) -> Int64[np.ndarray, " E"]:
    """The edges with the least padding: exact, by dynamic programming over the distinct lengths."""
    values, counts = np.unique(rounded, return_counts=True)
    until = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: tokens computed for the j shortest values with k edges, the last of them values[j-1]
    cost = np.concatenate([[0.0], until[1:] * values])
    best = [np.zeros(len(values) + 1, np.int64)]
    for _ in range(min(shapes, len(values)) - 1):
        options = cost[None, :] + np.where(
            np.tri(len(values) + 1, k=-1, dtype=bool),
            (until[:, None] - until[None, :]) * np.concatenate([[0], values])[:, None],
            np.inf,
        )
        options[0, 0] = 0.0
        best.append(np.argmin(options, axis=1))
        cost = np.min(options, axis=1)
    edges, end = [], len(values)
    for previous in reversed(best):
        if end == 0:
            break
        edges.append(values[end - 1])
        end = int(previous[end])
    return np.array(edges[::-1], np.int64)


def _fill(order: Int64[np.ndarray, " R"], batch_size: int) -> Int64[np.ndarray, "S B"]:
    missing = -len(order) % batch_size
    return np.concatenate([order, np.full(missing, -1, order.dtype)]).reshape(-1, batch_size)
