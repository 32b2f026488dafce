"""Another vocabulary size, made as transformers' `resize_token_embeddings` makes it.

Old ids keep their rows; new ids get rows drawn around the mean of the old ones, so that adding
tokens hardly moves the probabilities of the old ones; shrinking cuts from the end. `hub/folder.py`
applies it while it reads a checkpoint. Follows transformers 5.23, modeling_utils.py,
`_init_added_embeddings_weights_with_mean` and `_init_added_lm_head_bias_with_mean`; the argument is
at https://nlp.stanford.edu/~johnhew/vocab-expansion.html.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from medjax.models.spec import Spec

SCALE = 1e-9  # of the covariance (of the standard deviation for a bias), as in transformers


def resize_parameter(value: np.ndarray, spec: Spec, stored_size: int, seed: int) -> np.ndarray:
    """A parameter stored with `stored_size` ids, as `spec` wants it: resized, and padded anew."""
    if "vocab" not in spec.axes or spec.vocab_size == stored_size:
        return value
    axis = spec.axes.index("vocab")
    rows = np.moveaxis(value, axis, 0)[:stored_size]
    resized = np.zeros(spec.shape, np.float32)
    rows = resize_rows(rows, spec.vocab_size, np.random.default_rng(seed))
    np.moveaxis(resized, axis, 0)[: spec.vocab_size] = rows
    return resized


def resize_rows(
    rows: Float[np.ndarray, " V *D"], size: int, rng: np.random.Generator
) -> Float[np.ndarray, " size *D"]:
    """The rows of a table [V, D] or a bias [V] over the vocabulary, cut or extended; float32."""
    rows = np.asarray(rows, np.float32)
    added = size - len(rows)
    if added <= 0:
        return rows[:size]
    draw = _draw_bias if rows.ndim == 1 else _draw_rows
    return np.concatenate([rows, draw(rows, added, rng)])


def _draw_rows(
    rows: Float[np.ndarray, " V D"], added: int, rng: np.random.Generator
) -> Float[np.ndarray, " added D"]:
    """Rows from N(mean, 1e-9 * covariance); the mean alone where the covariance is singular."""
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean
    try:
        factor = np.linalg.cholesky(SCALE * (centred.T @ centred) / len(rows))
    except np.linalg.LinAlgError:
        return np.tile(mean.astype(np.float32), (added, 1))
    noise = rng.standard_normal((added, len(mean)))
    return (mean + noise @ factor.T).astype(np.float32)


def _draw_bias(
    bias: Float[np.ndarray, " V"], added: int, rng: np.random.Generator
) -> Float[np.ndarray, " added"]:
    """Values from N(mean, 1e-9 * standard deviation)."""
    return rng.normal(bias.mean(), SCALE * bias.std(ddof=1), added).astype(np.float32)
