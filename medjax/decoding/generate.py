"""Rows of token ids in, generated token ids out: `build_generate` and `generate`.

Rows are batched by length and padded to few lengths (`data/length_batches.py`), so that a whole
test set compiles a handful of programs; results come in the order of the rows. Over a mesh the rows
of a batch are divided, as for training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int32

from medjax.config import UserError
from medjax.data.length_batches import length_batches
from medjax.decoding.automaton import Automaton
from medjax.decoding.beam import beam_search
from medjax.decoding.config import DecodingConfig
from medjax.decoding.constrain import Tables
from medjax.decoding.loop import Search, Start, decode
from medjax.decoding.passages import Passages
from medjax.decoding.sample import drawn, greedy
from medjax.models.model import Model, Params
from medjax.training.mesh import BATCH

WHOLE = PartitionSpec()
PREFIX_MULTIPLE = 64  # tokens that a shared beginning is filled up to, so that programs are few
Rows = Sequence[Int32[np.ndarray, " T"]]


class Prepared(NamedTuple):
    """Weights as the steps read them, where a model is asked many times and trained no more."""

    weights: Params


def prepared_params(model: Model, params: Params) -> Prepared:
    """Stands for `params` in whatever generates; they themselves are then of no more use."""
    return Prepared(jax.jit(model.steps.prepare)(params))


def build_generate(
    model: Model,
    config: DecodingConfig,
    end_ids: Sequence[int],
    start_id: int | None = None,
    mesh: Mesh | None = None,
    automaton: Automaton | None = None,
) -> Callable[..., list[Int32[np.ndarray, " T"]]]:
    """`generate(params, rows, ...) -> ids of each row`, which keeps what it compiled between calls.

    `params` may be what `prepared_params` made of them. `generate` takes `prefix`, token ids that
    all rows begin with, which are computed once (decoders alone); `passages`, of each row what an
    automaton with holes lets it quote; and `numbers` of the rows, from 0, on which what is drawn
    for them depends (by default their places).

    Args:
      end_ids: tokens that end an output, and are left out of it; none: all are as long as can be.
      start_id: what a T5's decoder begins with (its padding token); none: rows are prompts, which
        are gone on with.
      mesh: divides the rows of a batch; none: one device.
      automaton: what outputs are held to; none: they are free.

    Raises:
      UserError: the model cannot generate, or the automaton's outputs do not fit.
    """
    length = config.max_new_tokens
    if automaton is not None and automaton.shortest > length:
        raise UserError(
            f"what the constraint allows takes {automaton.shortest} tokens or more, but "
            f"max_new_tokens is {length}; raise it"
        )
    search, run_batches = build_search(config, end_ids), Batches(model, config, start_id, mesh)

    def decode_batch(prepared, start, automaton):
        if automaton is not None:
            start = start._replace(constraint=Tables(automaton, start.constraint))
        return decode(model, search, prepared, start, length)

    run = jax.jit(decode_batch, out_shardings=run_batches.whole)
    automaton = None if automaton is None else jax.device_put(automaton, run_batches.whole)

    def generate(
        params: Params | Prepared,
        rows: Rows,
        prefix: Int32[np.ndarray, " P"] | None = None,
        passages: Callable[[np.ndarray], Passages] | None = None,
        numbers: Int32[np.ndarray, " N"] | None = None,
    ) -> list[Int32[np.ndarray, " T"]]:
        results: list = [None] * len(rows)
        for prepared, places, start in run_batches(params, rows, prefix, length, passages, numbers):
            tokens = run(prepared, start, automaton)
            for place, ids in zip(places, np.asarray(tokens), strict=True):
                if place >= 0:
                    results[place] = until_end(ids, end_ids)
        return results

    return generate


class Batches:
    """Rows as batches that decoding starts from: of similar length, few shapes, divided."""

    def __init__(
        self, model: Model, config: DecodingConfig, start_id: int | None, mesh: Mesh | None
    ):
        if model.steps is None:
            raise UserError(
                f"a {model.config.model_type} model without decoder and LM head cannot generate; "
                f"load a T5 with its decoder, or a decoder"
            )
        self.model, self.start_id = model, start_id
        shards = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
        self.batch_size = -(-config.batch_size // shards) * shards
        places = (None if mesh is None else NamedSharding(mesh, spec) for spec in (BATCH, WHOLE))
        self.divided, self.whole = places
        self.prepare = jax.jit(model.steps.prepare)
        self.share = jax.jit(model.steps.share) if model.steps.share else None

    def __call__(
        self,
        params: Params | Prepared,
        rows: Rows,
        prefix: Int32[np.ndarray, " P"] | None,
        length: int,
        passages: Callable[[np.ndarray], Passages] | None = None,
        numbers: Int32[np.ndarray, " N"] | None = None,
    ) -> Iterator[tuple[Params, np.ndarray, Start]]:
        """(prepared weights, numbers of the rows, what they begin with), batch by batch.

        Args:
          length: tokens that are written.
          passages, numbers: as in `build_generate`.
        """
        if not rows:
            return
        is_prompt = self.start_id is None
        if is_prompt:
            _check_length(self.model, rows, prefix, length)
        shared = None
        prepared = params.weights if isinstance(params, Prepared) else self.prepare(params)
        if prefix is not None and len(prefix):
            size = -(-len(prefix) // PREFIX_MULTIPLE) * PREFIX_MULTIPLE
            ids = np.zeros(size, np.int32)
            ids[size - len(prefix) :] = prefix
            shared = self.share(prepared, ids, np.arange(size) >= size - len(prefix))
        given = [row[:-1] for row in rows] if is_prompt else rows
        plan = length_batches([max(len(row), 1) for row in given], self.batch_size, seed=0)
        for places in plan.in_order_of_length():
            first = [rows[i][-1] if i >= 0 else 0 for i in places] if is_prompt else self.start_id
            start = Start(
                padded_batch(given, places, plan.padded_length(places)),
                np.broadcast_to(np.asarray(first, np.int32), len(places)),
                places.astype(np.int32)
                if numbers is None
                else np.where(places >= 0, numbers[places], -1).astype(np.int32),
                passages(places) if passages is not None else None,
            )
            start = jax.tree.map(lambda x: jax.device_put(x, self.divided), start)
            yield prepared, places, start._replace(shared=shared)


def _check_length(model: Model, rows: Rows, prefix: np.ndarray | None, length: int) -> None:
    """Refuses prompts that leave no room for an answer."""
    longest = max(map(len, rows)) + (0 if prefix is None else len(prefix))
    if not min(map(len, rows)):
        raise UserError("a prompt has no tokens; a decoder needs one to go on from")
    if longest + length > model.config.max_length:
        raise UserError(
            f"a prompt of {longest} tokens and {length} new ones are more than "
            f"max_position_embeddings, {model.config.max_length}; shorten the prompt or "
            "max_new_tokens"
        )


def generate(
    model: Model,
    params: Params,
    rows: Rows,
    config: DecodingConfig,
    end_ids: Sequence[int],
    **options,
) -> list[Int32[np.ndarray, " T"]]:
    """`build_generate(...)(params, rows)`, for one use."""
    return build_generate(model, config, end_ids, **options)(params, rows)


def build_search(config: DecodingConfig, end_ids: Sequence[int]) -> Search:
    """The search that a config asks for."""
    length = config.max_new_tokens
    if config.temperature is not None:
        return drawn(length, end_ids, config.temperature, config.top_k, config.top_p, config.seed)
    if config.num_beams == 1:
        return greedy(length, end_ids)
    return beam_search(
        config.num_beams, length, end_ids, config.length_penalty, config.early_stopping
    )


def padded_batch(rows: Rows, places: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask` [B, length] of the rows at `places`; -1: an empty row."""
    batch = {n: np.zeros((len(places), length), np.int32) for n in ("input_ids", "attention_mask")}
    for i, place in enumerate(places):
        if place >= 0:
            batch["input_ids"][i, : len(rows[place])] = rows[place]
            batch["attention_mask"][i, : len(rows[place])] = 1
    return batch


def until_end(ids: Int32[np.ndarray, " T"], end_ids: Sequence[int]) -> Int32[np.ndarray, " T"]:
    """What stands before the first end token."""
    ends = np.flatnonzero(np.isin(ids, end_ids))
    return ids[: ends[0]] if ends.size else ids
