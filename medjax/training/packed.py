"""Prompts and their answers to train on, several in a row with attention kept apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from medjax.data.length_batches import (
    MULTIPLE,
    SHAPES,
    LengthBatches,
    length_batches,
    target_lengths,
)
from medjax.data.packing import pack
from medjax.objectives.labels import IGNORED
from medjax.tasks.encode import Rows, subset

MORE_A_STEP = 1.5  # examples a step relative to the batch size, above which nothing is packed


class Packing(NamedTuple):
    """How rows are made."""

    batch_size: int
    """Examples a step, on average."""
    unit: int
    """Rows a step are a multiple of it: devices times microbatches."""
    packed: bool
    """Several examples to a row; else each has a row of its own, as long as those of its batch."""


class PackedFeed(NamedTuple):
    """Prompts with their answers, how they are packed and batched, and what makes arrays of them;
    the counterpart of `labelled.Feed`."""

    rows: Rows
    """The prompts."""
    targets: list[np.ndarray]
    """The answers."""
    packs: list[list[int]]
    """The prompts that stand in each row."""
    plan: LengthBatches
    """Of the packs."""
    answer_lengths: dict[int, int]
    """Length of a row -> tokens of answers that there is place for."""
    pad_id: int
    packing: Packing

    def batch(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of some packs, as `build_answer_loss` takes them; -1 is a row of nothing."""
        length = self.plan.padded_length(chosen)
        shape, of_answers = (len(chosen), length), (len(chosen), self.answer_lengths[length])
        batch = {
            "input_ids": np.full(shape, self.pad_id, np.int32),
            "segment_ids": np.zeros(shape, np.int32),
            "position_ids": np.zeros(shape, np.int32),
            "places": np.zeros(of_answers, np.int32),
            "labels": np.full(of_answers, IGNORED, np.int32),
        }
        for place, number in enumerate(chosen):
            batch["segment_ids"][place, 0] = 1  # attention over nothing is not a number
            start = written = 0
            for segment, row in enumerate(self.packs[number] if number >= 0 else (), 1):
                prompt, answer = self.rows.input_ids[row], self.targets[row]
                size, count = len(prompt) + len(answer), len(answer)
                own, answers = slice(start, start + size), slice(written, written + count)
                batch["input_ids"][place, own] = np.concatenate([prompt, answer])
                batch["segment_ids"][place, own] = segment
                batch["position_ids"][place, own] = np.arange(size)
                batch["places"][place, answers] = start + len(prompt) - 1 + np.arange(count)
                batch["labels"][place, answers] = answer
                start, written = start + size, written + count
        return batch

    def subset(self, kept: np.ndarray) -> PackedFeed:
        """The feed of some of the examples."""
        own = kept[self.rows.example]
        targets = [target for target, mine in zip(self.targets, own, strict=True) if mine]
        return pack_feed(subset(self.rows, kept), targets, self.pad_id, self.packing)

    def work(self, row_flops: Callable[[int, int], float]) -> tuple[np.ndarray, np.ndarray]:
        """Of each pack its tokens and forward FLOPs."""
        pairs = zip(self.rows.lengths, self.targets, strict=True)
        flops = np.array([row_flops(int(length), own.size) for length, own in pairs])
        return self.plan.lengths, np.array([flops[own].sum() for own in self.packs])

    @property
    def padding(self) -> float:
        """Share of the tokens of an epoch that is padding."""
        return self.plan.padding(self.plan.epoch(0))


def pack_feed(rows: Rows, targets: list[np.ndarray], pad_id: int, packing: Packing) -> PackedFeed:
    """The feed of prompts and answers.

    A row is as long as the longest of them. Steps have as many rows as hold `batch_size` examples;
    where that cannot be had nearly, since there are many devices, nothing is packed.
    """
    lengths = rows.lengths + np.array([len(target) for target in targets], np.int64)
    capacity = -(-int(lengths.max(initial=1)) // MULTIPLE) * MULTIPLE
    packs = pack(lengths, capacity)
    per_row = len(lengths) / max(len(packs), 1)
    size = max(round(packing.batch_size / per_row / packing.unit), 1) * packing.unit
    is_packed = packing.packed and size * per_row <= MORE_A_STEP * packing.batch_size
    if not is_packed:
        packs, size = [[row] for row in range(len(lengths))], packing.batch_size
    totals = np.array([lengths[own].sum() for own in packs], np.int64)
    answers = np.array([sum(len(targets[row]) for row in own) for own in packs], np.int64)
    plan = length_batches(totals, size, 0, 1 if is_packed else SHAPES)
    places = target_lengths(plan.edges, totals, answers)
    return PackedFeed(rows, targets, packs, plan, places, pad_id, packing)
