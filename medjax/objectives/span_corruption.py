"""T5's span corruption (Raffel et al. 2020, section 3.1.4) on the device, with static shapes.

A block of raw tokens loses random spans. The input holds a sentinel in place of each; the target
holds each sentinel and the tokens that it stands for; both end with the end token. The distribution
is that of the T5 reference (`random_spans_noise_mask` in t5/data/preprocessors.py): noise and other
tokens are each cut into the same number of parts, all cuts equally likely, and the parts alternate,
beginning with what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from medjax.data.tokenize import Vocabulary
from medjax.objectives.blocks import (
    note_segments,
    place,
    run_starts,
    shift_right,
    whole_runs,
    words_cap,
)

Batch = dict[str, Array]


class SpanPlan(NamedTuple):
    """The lengths of an example; the same for every row."""

    raw_length: int
    num_noise: int
    num_spans: int

    @property
    def inputs_length(self) -> int:
        """What is kept, the sentinels and the end."""
        return self.raw_length - self.num_noise + self.num_spans + 1

    @property
    def targets_length(self) -> int:
        """What is cut out, the sentinels and the end."""
        return self.num_noise + self.num_spans + 1


def plan_spans(inputs_length: int, noise_density: float, mean_span_length: float) -> SpanPlan:
    """The longest raw block whose input fits: 512, 0.15 and 3 give 568 raw tokens, 114 targets.

    As `random_spans_helper` of the T5 reference, also where that one contradicts itself: there is
    always at least one span, and no more spans than tokens to cut out or to keep.
    """

    def plan(raw_length: int) -> SpanPlan:
        noise = min(max(round(raw_length * noise_density), 1), raw_length - 1)
        spans = max(1, round(min(noise, raw_length - noise) / mean_span_length))
        return SpanPlan(raw_length, noise, spans)

    raw_length = 2
    while plan(raw_length + 1).inputs_length <= inputs_length:
        raw_length += 1
    found = plan(raw_length)
    if noise_density == 0.5 and found.targets_length > inputs_length:  # as the reference
        found = plan(raw_length - 1)
    return found


def noise_mask(key: Array, plan: SpanPlan) -> Bool[Array, " L"]:
    """True for the tokens of one row that are cut out."""
    of_noise, of_kept = jax.random.split(key)
    noise_ends = _cut(of_noise, plan.num_noise, plan.num_spans)
    kept_ends = _cut(of_kept, plan.raw_length - plan.num_noise, plan.num_spans)
    starts = kept_ends + shift_right(noise_ends, 0)
    change = jnp.zeros(plan.raw_length, jnp.int32).at[starts].add(1)
    change = change.at[kept_ends + noise_ends].add(-1, mode="drop")
    return jnp.cumsum(change) > 0


def _cut(key: Array, items: int, parts: int) -> Int[Array, " parts"]:
    """Where each of `parts` non-empty parts of `items` ends; all ways to cut equally likely."""
    cuts = jax.random.permutation(key, items - 1)[: parts - 1]
    return jnp.append(jnp.sort(cuts) + 1, items).astype(jnp.int32)


def corrupt(
    keys: Array,
    blocks: Int[Array, "B L"],
    plan: SpanPlan,
    vocabulary: Vocabulary,
    keep_notes_apart: bool,
) -> Batch:
    """Training examples: each row's spans from its own key; every target counts."""
    lengths = plan.inputs_length, plan.targets_length

    def row(key, block):
        example, _ = cut_out(block, noise_mask(key, plan), vocabulary, lengths, keep_notes_apart)
        return example | {"weights": jnp.ones(plan.targets_length, jnp.float32)}

    return jax.vmap(row)(keys, blocks)


def words(
    blocks: Int[Array, "B L"],
    marks: Int[Array, "B L"],
    vocabulary: Vocabulary,
    keep_notes_apart: bool,
) -> Batch:
    """Examples in which exactly the tokens with marks > 0 are cut out, run by run.

    From the first run on that would exceed `words_cap` tokens or the number of sentinels, a row is
    left as it is. Only tokens of the text count, sentinels and end do not.
    """
    length = blocks.shape[1]
    cap = words_cap(length)
    max_runs = min(cap, len(vocabulary.sentinel_ids))
    lengths = length + 1, cap + max_runs + 1

    def row(block, marks):
        noise = whole_runs(marks > 0, cap, max_runs)
        example, targets = cut_out(block, noise, vocabulary, lengths, keep_notes_apart)
        num_inputs = length - jnp.sum(noise) + jnp.sum(run_starts(noise)) + 1
        return example | {
            "attention_mask": (jnp.arange(length + 1) < num_inputs).astype(jnp.int32),
            "weights": targets(0, noise, 0, 0).astype(jnp.float32),
            "bytes": targets(0, marks - 1, 0, 0),
        }

    return jax.vmap(row)(blocks, marks.astype(jnp.int32))


def cut_out(
    block: Int[Array, " L"],
    noise: Bool[Array, " L"],
    vocabulary: Vocabulary,
    lengths: tuple[int, int],
    keep_notes_apart: bool,
) -> tuple[Batch, Callable[..., Int[Array, " T"]]]:
    """The runs of `noise` cut out of `block`: an example of `lengths` (inputs I, targets T).

    Returns input_ids [I], decoder_input_ids and labels [T]; where notes are kept apart also
    segment_ids and decoder_segment_ids: in the decoder, a sentinel and its tokens belong to the
    note of the span's first token, the end to the last note. Then a function that lays values of
    (spans, tokens of the block, end, padding) out as the targets are.
    """
    starts = run_starts(noise)
    span = jnp.cumsum(starts, dtype=jnp.int32)  # counted from 1
    sentinel = jnp.asarray(vocabulary.sentinel_ids, jnp.int32)[jnp.maximum(span - 1, 0)]
    is_input = ~noise | starts
    input_place = jnp.cumsum(is_input, dtype=jnp.int32) - 1
    target_place = jnp.cumsum(noise, dtype=jnp.int32) + span - 1

    def inputs(of_tokens, of_end, of_padding):
        found = jnp.full(lengths[0], of_padding, jnp.int32)
        return place(is_input, input_place, of_tokens, found).at[input_place[-1] + 1].set(of_end)

    def targets(of_spans, of_tokens, of_end, of_padding):
        found = jnp.full(lengths[1], of_padding, jnp.int32)
        found = place(starts, target_place - 1, of_spans, found)
        found = place(noise, target_place, of_tokens, found)
        return found.at[target_place[-1] + 1].set(of_end)

    pad, end = vocabulary.pad_id, vocabulary.separator_id
    labels = targets(sentinel, block, end, pad)
    example = {
        "input_ids": inputs(jnp.where(starts, sentinel, block), end, pad),
        "decoder_input_ids": shift_right(labels, pad),
        "labels": labels,
    }
    if keep_notes_apart:
        note = note_segments(block, end)
        of_span = jax.lax.cummax(jnp.where(starts, note, 0))
        segment = targets(of_span, of_span, note[-1], 0)
        begins = segment != shift_right(segment, 0)  # no note sees the last token of another
        example |= {
            "segment_ids": inputs(note, note[-1], 0),
            "decoder_segment_ids": segment,
            "decoder_input_ids": jnp.where(begins, pad, example["decoder_input_ids"]),
        }
    return example, targets
