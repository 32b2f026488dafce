"""A matrix product and a bias whose gradients are as fast on CPU as what they come from.

XLA's CPU backend multiplies row-major bfloat16 matrices about six times faster than transposed ones
(JAX 0.12, AMX: about 1,100 against 200 GFLOP/s), and both products of a backward pass have a
transposed operand. So on CPU that operand is laid out anew first. A bias's gradient, a sum over
rows, is made there as a product with ones: as a reduction it takes longer than the matrix product
beside it. Elsewhere transposition and sums are cheap, and the gradients are the plain ones.

Where single tokens are written, reading the weights is all the work. As the first factor of a
product they are read as they lie, as the second they are first packed: nearly twice the time.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float


@jax.custom_vjp
def matmul(x: Float[Array, "M K"], w: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """x @ w, in the type of both."""
    return x @ w


def _forward(x, w):
    return x @ w, (x, w)


def _backward(saved, gradient):
    x, w = saved
    return gradient @ _transposed(w), _transposed(x) @ gradient


matmul.defvjp(_forward, _backward)


def _transposed(x: Float[Array, "M N"]) -> Float[Array, "N M"]:
    # Chosen when the program is lowered, so that a program compiled for TPU on a CPU is right too.
    return jax.lax.platform_dependent(x, cpu=row_major_transpose, default=lambda x: x.T)


def by_outputs(
    x: Float[Array, "M K"], w: Float[Array, "N K"], dtype: jnp.dtype | None = None
) -> Float[Array, "M N"]:
    """x @ w.T, in the type of both or in `dtype`; for inference, fastest where rows are few.

    On CPU either the result is laid out anew, or, where that is larger, the weights are.
    """

    def few(x, w):
        return row_major_transpose(jnp.einsum("nk,mk->nm", w, x, preferred_element_type=dtype))

    def many(x, w):
        return jnp.dot(x, row_major_transpose(w), preferred_element_type=dtype)

    def plain(x, w):
        return jnp.einsum("mk,nk->mn", x, w, preferred_element_type=dtype)

    on_cpu = few if len(x) <= w.shape[1] else many
    return jax.lax.platform_dependent(x, w, cpu=on_cpu, default=plain)


def row_major_transpose(x: Float[Array, "*B M N"]) -> Float[Array, "*B N M"]:
    """The transpose of the last two axes, laid out anew row by row: what products on CPU want.

    The barrier keeps XLA from moving the transposition into the products before and after, which
    would then read one factor across its rows.
    """
    turned = jax.lax.optimization_barrier(x).swapaxes(-1, -2)
    return with_layout_constraint(turned, Layout(tuple(range(x.ndim))))


@jax.custom_vjp
def add_bias(y: Float[Array, "M N"], bias: Float[Array, " N"]) -> Float[Array, "M N"]:
    """y + bias in the type of y; the gradient of the bias is summed in float32."""
    return y + bias.astype(y.dtype)


def _bias_forward(y, bias):
    return add_bias(y, bias), None


def _bias_backward(_, gradient):
    def product(g):
        ones = jnp.ones((1, g.shape[0]), g.dtype)
        return jnp.dot(ones, g, preferred_element_type=jnp.float32)[0]

    def plain(g):
        return jnp.sum(g, axis=0, dtype=jnp.float32)

    return gradient, jax.lax.platform_dependent(gradient, cpu=product, default=plain)


add_bias.defvjp(_bias_forward, _bias_backward)
