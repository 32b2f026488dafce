"""How probable a masked LM holds each of a few answers: the cloze of Schick and Schuetze (2021).

An answer of n tokens takes n masks after the text; its score is the sum of its tokens' log
probabilities there, all masks being read at once. One pass serves all answers of a length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from medjax.config import UserError
from medjax.data.length_batches import length_batches
from medjax.decoding.generate import Rows, padded_batch
from medjax.models.model import Model, Params, logits
from medjax.training.mesh import BATCH


def build_cloze(
    model: Model,
    batch_size: int,
    answers: Sequence[Sequence[int]],
    mask_id: int,
    mesh: Mesh,
) -> Callable[[Params, Rows, Rows], Float[np.ndarray, "N K"]]:
    """`score(params, before, after)`: log probability of each answer between two parts of a row.

    Args:
      answers: token ids of each.

    Raises:
      UserError: the model has no LM head, or a row with its masks is beyond its positions.
    """
    if model.head is None:
        raise UserError(f"a {model.config.model_type} model without LM head cannot fill masks")
    lengths = sorted({len(ids) for ids in answers})
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size = -(-batch_size // shards) * shards

    @jax.jit
    def at_masks(params: Params, batch: dict, first: Array, wanted: Array) -> Float[Array, "B K"]:
        """`first` [B]: each row's first mask; `wanted` [K, n]: the answers of n tokens."""
        hidden = model.hidden(params, batch)
        places = first[:, None] + jnp.arange(wanted.shape[1])
        states = jnp.take_along_axis(hidden, places[..., None], axis=1)
        scores = logits(model.head(params, states), model.config.vocab_size)
        found = jax.nn.log_softmax(scores)  # [B, n, V]
        return found[:, jnp.arange(wanted.shape[1])[None], wanted].sum(-1)

    def score(params: Params, before: Rows, after: Rows) -> Float[np.ndarray, "N K"]:
        found = np.zeros((len(before), len(answers)))
        for length in lengths:
            masks = np.full(length, mask_id, np.int32)
            pairs = zip(before, after, strict=True)
            rows = [np.concatenate([start, masks, end]) for start, end in pairs]
            _check_length(model, rows)
            own = [k for k, ids in enumerate(answers) if len(ids) == length]
            wanted = np.array([answers[k] for k in own], np.int32)
            plan = length_batches([len(row) for row in rows], batch_size, seed=0)
            for places in plan.in_order_of_length():
                batch = padded_batch(rows, places, plan.padded_length(places))
                first = np.array([len(before[i]) if i >= 0 else 0 for i in places], np.int32)
                batch, first = jax.device_put((batch, first), NamedSharding(mesh, BATCH))
                scores = np.asarray(at_masks(params, batch, first, wanted))
                real = places >= 0
                found[np.ix_(places[real], own)] = scores[real]
        return found

    return score


def _check_length(model: Model, rows: Rows) -> None:
    longest, limit = max(map(len, rows)), model.config.max_length
    if limit is not None and longest > limit:
        raise UserError(
            f"a prompt with its masks has {longest} tokens, more than the {limit} positions of the "
            "model; lower task.max_length or show fewer shots"
        )
