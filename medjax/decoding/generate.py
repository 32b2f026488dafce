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
from medjax.decoding.beam import beam_search
from medjax.decoding.config import DecodingConfig
from medjax.decoding.loop import Search, decode
from medjax.decoding.sample import greedy
from medjax.models.model import Model, Params
from medjax.training.mesh import BATCH

WHOLE = PartitionSpec()
Rows = Sequence[Int32[np.ndarray, " T"]]


def build_generate(
    model: Model,
    config: DecodingConfig,
    end_id: int | None,
    start_id: int = 0,
    mesh: Mesh | None = None,
) -> Callable[[Params, Rows], list[Int32[np.ndarray, " T"]]]:
    """`generate(params, rows) -> ids of each row`, which keeps what it compiled between calls.

    Args:
      end_id: the token that ends an output, and is left out of it; none: all outputs are as long
        as can be.
      start_id: what the decoder begins with: T5's padding token.
      mesh: divides the rows of a batch; none: one device.

    Raises:
      UserError: the model cannot generate.
    """
    if model.steps is None:
        raise UserError(
            f"a {model.config.model_type} model without decoder and LM head cannot generate; "
            f"load a T5 with its decoder"
        )
    search, length = build_search(config, end_id), config.max_new_tokens
    shards = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size = -(-config.batch_size // shards) * shards
    divided, whole = (None if mesh is None else NamedSharding(mesh, p) for p in (BATCH, WHOLE))
    prepare = jax.jit(model.steps.prepare)

    def decode_batch(prepared, batch):
        return decode(model, search, prepared, batch, length, start_id)

    run = jax.jit(decode_batch, out_shardings=whole)

    def generate(params: Params, rows: Rows) -> list[Int32[np.ndarray, " T"]]:
        if not rows:
            return []
        prepared = prepare(params)
        plan = length_batches([len(row) for row in rows], batch_size, seed=0)
        results: list = [None] * len(rows)
        for places in plan.in_order_of_length():
            batch = padded_batch(rows, places, plan.padded_length(places))
            tokens = run(prepared, jax.device_put(batch, divided))
            for place, ids in zip(places, np.asarray(tokens), strict=True):
                if place >= 0:
                    results[place] = until_end(ids, end_id)
        return results

    return generate


def generate(
    model: Model,
    params: Params,
    rows: Rows,
    config: DecodingConfig,
    end_id: int | None,
    **options,
) -> list[Int32[np.ndarray, " T"]]:
    """`build_generate(...)(params, rows)`, for one use."""
    return build_generate(model, config, end_id, **options)(params, rows)


def build_search(config: DecodingConfig, end_id: int | None) -> Search:
    """The search that a config asks for."""
    if config.num_beams == 1:
        return greedy(config.max_new_tokens, end_id)
    return beam_search(
        config.num_beams,
        config.max_new_tokens,
        end_id,
        config.length_penalty,
        config.early_stopping,
    )


def padded_batch(rows: Rows, places: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask` [B, length] of the rows at `places`; -1: an empty row."""
    batch = {n: np.zeros((len(places), length), np.int32) for n in ("input_ids", "attention_mask")}
    for i, place in enumerate(places):
        if place >= 0:
            batch["input_ids"][i, : len(rows[place])] = rows[place]
            batch["attention_mask"][i, : len(rows[place])] = 1
    return batch


def until_end(ids: Int32[np.ndarray, " T"], end_id: int | None) -> Int32[np.ndarray, " T"]:
    """What stands before the end token."""
    if end_id is None:
        return ids
    ends = np.flatnonzero(ids == end_id)
    return ids[: ends[0]] if ends.size else ids
