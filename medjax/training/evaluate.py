"""Validation on held-out patients: the same blocks, corrupted in the same way, in every run.

Two losses are measured. One uses the objective's own corruption with fixed keys: loss, accuracy and
perplexity a predicted token. The other hides word spans that `prepare` drew once on the raw text,
whatever the tokenizer: its nats a hidden byte compare models with different tokenizers (never
different objectives, and never a likelihood of the text, so it is not called bits per byte). Of a
causal model, which hides nothing, the first loss is a likelihood, given as bits per byte too. The
sums of every batch are kept beside, so that the chance of the held-out notes can be told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from medjax.data.batches import Validation
from medjax.objectives.objective import Objective
from medjax.training.mesh import place_batch
from medjax.training.step import CORRUPT, row_keys

EVALUATION_SEED = 0


def build_eval_step(objective: Objective) -> Callable[..., dict[str, jax.Array]]:
    """`evaluate(params, batch, first_row) -> sums` over one batch of held-out blocks.

    Two losses: `random/*`, with the objective's own corruption and fixed keys, and `words/*`, with
    the word spans that were drawn once on the raw text (sums of nats, and of the bytes hidden).
    Rows with valid = 0 fill up the last batch and count nothing.
    """

    def evaluate(params: Any, batch: dict[str, jax.Array], first_row: jax.Array):
        blocks, valid = batch["blocks"], batch["valid"]
        rows = first_row + jnp.arange(blocks.shape[0], dtype=jnp.uint32)
        keys = row_keys(EVALUATION_SEED, 0, rows, CORRUPT, "threefry2x32")
        sums = {}
        both = {"random": objective.corrupt(keys, blocks)}
        if objective.words is not None:
            both["words"] = objective.words(blocks, batch["words"])
        for name, examples in both.items():
            weights = examples["weights"] * valid[:, None].astype(examples["weights"].dtype)
            found = objective.loss(params, {**examples, "weights": weights})
            sums |= {f"{name}/{k}": v for k, v in found.items()}
        return sums

    return jax.jit(evaluate)


def build_evaluate(
    objective: Objective,
    validation: Validation,
    limit: int | None,
    mesh: Mesh,
    bytes_per_token: float,
    plateau: float,
) -> Callable[[Any], dict[str, Any]]:
    """`evaluate(params) -> figures` over the first `limit` batches of `validation` (None: all).

    Figures: `validation/loss` (nats a predicted token), `/accuracy`, `/perplexity`, and
    `/nats_per_masked_byte` or, of a causal model, `/bits_per_byte`; of that last one `/batches`,
    the two sums of each batch whose totals it is the quotient of; and `/unigram_plateau`.

    Args:
      bytes_per_token: of the validation split.
      plateau: `plateau.unigram_plateau`, beside which the loss is read.
    """
    step = build_eval_step(objective)
    count = len(validation) if limit is None else min(limit, len(validation))

    def evaluate(params: Any) -> dict[str, Any]:
        found = []
        for i in range(count):
            first_row = np.uint32(i * validation.global_batch)
            found.append(step(params, place_batch(validation[i], mesh), first_row))
        sums = {k: math.fsum(float(f[k]) for f in found) for k in found[0]}
        loss = sums["random/loss"] / max(sums["random/weight"], 1.0)
        figures = {
            "validation/loss": loss,
            "validation/accuracy": sums["random/correct"] / max(sums["random/weight"], 1.0),
            "validation/perplexity": math.exp(min(loss, 700.0)),
            "validation/unigram_plateau": plateau,
        }
        if objective.words is None:
            name, above, below = "bits_per_byte", "random/loss", "random/weight"
            scales = 1 / math.log(2), bytes_per_token
        else:
            name, above, below = "nats_per_masked_byte", "words/loss", "words/bytes"
            scales = 1.0, 1.0
        batches = [[float(f[above]) * scales[0], float(f[below]) * scales[1]] for f in found]
        totals = [math.fsum(column) for column in zip(*batches, strict=True)]
        figures[f"validation/{name}"] = totals[0] / max(totals[1], 1.0)
        return figures | {"validation/batches": batches}

    return evaluate
