"""How probable a model holds each of a few answers: log probabilities, the prompt computed once.

The answers of a row are its hypotheses: all read the row's cache, and the tokens of each are fed to
it one after the other. An answer ends with the end token, so that one may begin another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from medjax.decoding.cache import own_slots, visible
from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import Batches, Prepared, Rows
from medjax.decoding.loop import Start
from medjax.models.model import Model, Params, logits


def build_likelihood(
    model: Model,
    config: DecodingConfig,
    answers: Sequence[Sequence[int]],
    start_id: int | None = None,
    mesh: Mesh | None = None,
) -> Callable[..., Float[np.ndarray, "N K"]]:
    """`score(params, rows, prefix=None) -> log probability of each answer after each row`.

    Args:
      config: of which batch_size counts.
      answers: token ids of each, the end token included.
      start_id: as in `build_generate`.

    Raises:
      UserError: the model cannot generate.
    """
    batches = Batches(model, config, start_id, mesh)
    lengths = np.array([len(ids) for ids in answers])
    length = int(lengths.max())
    table = np.zeros((len(answers), length), np.int32)
    for row, ids in zip(table, answers, strict=True):
        row[: len(ids)] = ids

    def score_batch(prepared: Params, start: Start) -> Float[Array, "B K"]:
        rows, count = len(start.ids), len(answers)
        shared = () if start.shared is None else (start.shared,)
        cache = model.steps.start(prepared, start.batch, length, count, *shared)
        slots = own_slots(rows, count, length)
        first = jnp.broadcast_to(start.ids[:, None], (rows, count))

        def add(position, carried):
            cache, ids, total = carried
            seen = visible(slots, position)
            hidden, cache = model.steps.step(prepared, cache, ids, position, seen)
            scores = logits(model.head(prepared, hidden), model.config.vocab_size)
            wanted = jnp.broadcast_to(jnp.asarray(table)[:, position], (rows, count))
            own = jnp.take_along_axis(jax.nn.log_softmax(scores), wanted[..., None], -1)[..., 0]
            return cache, wanted, total + jnp.where(position < lengths, own, 0.0)

        total = jnp.zeros((rows, count))
        return jax.lax.fori_loop(0, length, add, (cache, first, total))[2]

    run = jax.jit(score_batch, out_shardings=batches.whole)

    def score(
        params: Params | Prepared, rows: Rows, prefix: Int32[np.ndarray, " P"] | None = None
    ) -> Float[np.ndarray, "N K"]:
        found = np.zeros((len(rows), len(answers)))
        for prepared, places, start in batches(params, rows, prefix, length):
            real = places >= 0
            found[places[real]] = np.asarray(run(prepared, start))[real]
        return found

    return score
