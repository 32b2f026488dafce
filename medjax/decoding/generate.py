"""Rows of token ids in, generated token ids out: `build_generate` and `generate`.

Rows are batched by length and padded to few lengths (`data/length_batches.py`), so that a whole
test set compiles a handful of programs; results come in the order of the rows. Over a mesh the rows
of a batch are divided, as for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def build_generate(
    model: Model,
    config: DecodingConfig,
    end_ids: Sequence[int],
    start_id: int | None = None,
    mesh: Mesh | None = None,
    automaton: Automaton | None = None,
) -> Callable[..., list[Int32[np.ndarray, " T"]]]:
    """`generate(params, rows, ...) -> ids of each row`, which keeps what it compiled between calls.

    `generate` takes `prefix`, token ids that all rows begin with, which are computed once (decoders
    alone); and `passages`, of each row what an automaton with holes lets it quote.

    Args:
      end_ids: tokens that end an output, and are left out of it; none: all are as long as can be.
      start_id: what a T5's decoder begins with (its padding token); none: rows are prompts, which
        are gone on with.
      mesh: divides the rows of a batch; none: one device.
      automaton: what outputs are held to; none: they are free.

    Raises:
      UserError: the model cannot generate, or the automaton's outputs do not fit.
    """
    if model.steps is None:
        raise UserError(
            f"a {model.config.model_type} model without decoder and LM head cannot generate; "
            f"load a T5 with its decoder, or a decoder"
        )
    length = config.max_new_tokens
    if automaton is not None and automaton.shortest > length:
        raise UserError(
            f"what the constraint allows takes {automaton.shortest} tokens or more, but "
            f"max_new_tokens is {length}; raise it"
        )
    search = build_search(config, end_ids)
    shards = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size = -(-config.batch_size // shards) * shards
    divided, whole = (None if mesh is None else NamedSharding(mesh, p) for p in (BATCH, WHOLE))
    prepare, share = jax.jit(model.steps.prepare), jax.jit(model.steps.share or (lambda: None))

    def decode_batch(prepared, start, automaton):
        if automaton is not None:
            start = start._replace(constraint=Tables(automaton, start.constraint))
        return decode(model, search, prepared, start, length)

    run = jax.jit(decode_batch, out_shardings=whole)
    automaton = None if automaton is None else jax.device_put(automaton, whole)

    def generate(
        params: Params,
        rows: Rows,
        prefix: Int32[np.ndarray, " P"] | None = None,
        passages: Callable[[np.ndarray], Passages] | None = None,
    ) -> list[Int32[np.ndarray, " T"]]:
        if not rows:
            return []
        if start_id is None:
            _check_length(model, rows, prefix, length)
        prepared = prepare(params)
        shared = None
        if prefix is not None and len(prefix):
            size = -(-len(prefix) // PREFIX_MULTIPLE) * PREFIX_MULTIPLE
            ids = np.zeros(size, np.int32)
            ids[size - len(prefix) :] = prefix
            shared = share(prepared, ids, np.arange(size) >= size - len(prefix))
        prompts = rows if start_id is not None else [row[:-1] for row in rows]
        plan = length_batches([max(len(row), 1) for row in prompts], batch_size, seed=0)
        results: list = [None] * len(rows)
        for places in plan.in_order_of_length():
            first = [
                start_id if start_id is not None else rows[place][-1] if place >= 0 else 0
                for place in places
            ]
            own = passages(places) if passages is not None else None
            start = Start(
                padded_batch(prompts, places, plan.padded_length(places)),
                np.array(first, np.int32),
                places.astype(np.int32),
                own,
            )
            start = jax.tree.map(lambda x: jax.device_put(x, divided), start)
            tokens = run(prepared, start._replace(shared=shared), automaton)
            for place, ids in zip(places, np.asarray(tokens), strict=True):
                if place >= 0:
                    results[place] = until_end(ids, end_ids)
        return results

    return generate


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
