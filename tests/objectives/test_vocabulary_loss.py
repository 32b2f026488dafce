"""The chunked loss against the plain one: values, gradients, memory, and devices."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from medjax.models.model import Head
from medjax.objectives.vocabulary_loss import vocabulary_loss

ROWS, TARGETS, WIDTH, VOCAB, PADDED, Z_LOSS = 16, 30, 16, 250, 256, 1e-2


def arrays(dtype=jnp.float32, with_bias=True):
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(ROWS, TARGETS, WIDTH)), dtype)
    table = jnp.asarray(rng.normal(size=(PADDED, WIDTH)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=PADDED), jnp.float32) if with_bias else None
    labels = jnp.asarray(rng.integers(0, VOCAB, (ROWS, TARGETS)), jnp.int32)
    weights = jnp.asarray(rng.random((ROWS, TARGETS)) < 0.8, jnp.float32)
    return features, table, bias, labels, weights


def chunked(features, table, bias, labels, weights, chunk, z_loss=Z_LOSS):
    head = Head(features, table, bias)
    sums = vocabulary_loss(head, labels, weights, vocab_size=VOCAB, chunk=chunk, z_loss=z_loss)
    return sums.loss + sums.z_loss, sums


def plain(features, table, bias, labels, weights, z_loss=Z_LOSS):
    """The same by the book, from all logits of the real vocabulary."""
    table = table[:VOCAB].astype(features.dtype)
    logits = jnp.einsum("btd,vd->btv", features, table, preferred_element_type=jnp.float32)
    logits = logits if bias is None else logits + bias[:VOCAB]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    of_label = jnp.take_along_axis(logits, labels[:, :, None], axis=-1)[:, :, 0]
    losses = jnp.sum(weights * (log_z - of_label)), z_loss * jnp.sum(weights * log_z**2)
    hits = jnp.sum(weights * (jnp.argmax(logits, axis=-1) == labels))
    return sum(losses), (*losses, hits, jnp.sum(weights))


def gradients(function):
    return jax.jit(jax.value_and_grad(function, (0, 1, 2), has_aux=True))


def assert_close(found, expected, tolerance):
    """Relative to the largest entry of each array."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = np.abs(b).max() or 1.0
        np.testing.assert_allclose(np.asarray(a) / scale, np.asarray(b) / scale, atol=tolerance)


@pytest.mark.parametrize(
    "chunk, with_bias", [(1, True), (7, False), (15, True), (30, True), (128, False)]
)
def test_chunked_equals_plain(chunk, with_bias):
    given = arrays(with_bias=with_bias)
    assert_close(gradients(partial(chunked, chunk=chunk))(*given), gradients(plain)(*given), 1e-6)
    value = jax.jit(partial(chunked, chunk=chunk))(*given)[1]  # the path without gradients
    assert_close(value, plain(*given)[1], 1e-6)


def test_bfloat16_products_with_float32_sums():
    given = arrays(jnp.bfloat16)
    (value, _), found = gradients(partial(chunked, chunk=8))(*given)
    (expected, _), gradient = gradients(plain)(given[0].astype(jnp.float32), *given[1:])
    assert float(value) == pytest.approx(float(expected), rel=2e-3)
    assert [g.dtype for g in found] == [jnp.bfloat16, jnp.float32, jnp.float32]
    assert_close([g.astype(jnp.float32) for g in found], gradient, 1e-2)


def test_the_gradient_scales_and_the_padding_has_none():
    given = arrays()
    once = jax.jit(jax.grad(lambda *a: chunked(*a, chunk=8)[0], (0, 1, 2)))(*given)
    thrice = jax.jit(jax.grad(lambda *a: 3 * chunked(*a, chunk=8)[0], (0, 1, 2)))(*given)
    assert_close(thrice, jax.tree.map(lambda g: 3 * g, once), 1e-6)
    np.testing.assert_array_equal(once[1][VOCAB:], 0.0)
    np.testing.assert_array_equal(once[2][VOCAB:], 0.0)
    np.testing.assert_array_equal(once[0][given[4] == 0], 0.0)


def test_padded_rows_change_nothing():
    features, table, bias, labels, weights = arrays()
    table = table.at[VOCAB:].set(1e3)
    given = features, table, bias, labels, weights
    assert_close(chunked(*given, chunk=8), chunked(*arrays(), chunk=8), 0.0)


def sizes_in(jaxpr):
    """Number of elements of every array that a program makes, those inside loops included."""
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from sizes_in(inner)


def test_all_logits_never_exist_at_once():
    """With ModernBERT's vocabulary: neither in the program nor in the compiled one's memory."""
    rows, targets, width, vocab, chunk = 2, 512, 32, 50_368, 64
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in [
            ((rows, targets, width), jnp.float32),
            ((vocab, width), jnp.float32),
            ((vocab,), jnp.float32),
            ((rows, targets), jnp.int32),
            ((rows, targets), jnp.float32),
        ]
    ]

    def loss(features, table, bias, labels, weights):
        head = Head(features, table, bias)
        return vocabulary_loss(head, labels, weights, vocab_size=vocab, chunk=chunk).loss

    one_chunk, table = rows * chunk * vocab, vocab * width
    gradient = jax.grad(loss, (0, 1, 2))
    assert max(sizes_in(jax.make_jaxpr(gradient)(*shapes).jaxpr)) == one_chunk
    memory = jax.jit(gradient).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * (3 * one_chunk + 4 * table) < 4 * rows * targets * vocab


@pytest.mark.parametrize("chunk, loops", [(TARGETS, 0), (TARGETS - 1, 1)])
def test_one_chunk_needs_no_loop(chunk, loops):
    text = str(jax.make_jaxpr(jax.grad(lambda *a: chunked(*a, chunk=chunk)[0]))(*arrays()))
    assert text.count("scan[") == loops


# --- several devices -----------------------------------------------------------------------------

MESHES = [(2, 4, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)]
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def place(mesh, given):
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    table, bias = NamedSharding(mesh, P("tensor", "fsdp")), NamedSharding(mesh, P("tensor"))
    return jax.device_put(given, (rows, table, bias, rows, rows))


def collectives(text):
    """(inside a loop?, result type) of every collective in a compiled program's text."""
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    computation, found = None, []
    for line in text.splitlines():
        if line and not line[0].isspace():
            computation = line.removeprefix("ENTRY ").split()[0].lstrip("%").split("(")[0]
        match = re.search(rf"= (.+?) (?:{COLLECTIVES})(?:-start)?\(", line)
        if match:
            found.append((computation in bodies, match[1]))
    return found


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_devices_meet_outside_the_loop(shape):
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "fsdp", "tensor"))
    assert mesh.axis_types == (AxisType.Auto,) * 3
    given = arrays()
    placed = place(mesh, given)
    shardings = (None, tuple(x.sharding for x in placed[:3]))
    step = jax.jit(
        jax.value_and_grad(partial(chunked, chunk=8), (0, 1, 2), has_aux=True),
        out_shardings=shardings,
    )
    compiled = step.lower(*placed).compile()
    assert_close(jax.device_get(compiled(*placed)), gradients(plain)(*given), 1e-6)
    found = collectives(compiled.as_text())
    inside = [result for in_loop, result in found if in_loop]
    assert found
    if shape[2] == 1:
        assert not inside
    for result in inside:  # with `tensor`: what a row's softmax needs, and its features' gradient
        sizes = [
            int(np.prod([*map(int, s.split(","))])) for s in re.findall(r"\[([\d,]+)\]", result)
        ]
        assert max(sizes) <= ROWS * 8 * WIDTH


def test_rows_that_do_not_divide():
    """Six rows on eight devices: left to the partitioner, the same sums."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4, 1), ("data", "fsdp", "tensor"))
    features, table, bias, labels, weights = arrays()
    given = features[:6], table, bias, labels[:6], weights[:6]
    placed = jax.device_put(given, NamedSharding(mesh, P()))
    assert_close(gradients(partial(chunked, chunk=8))(*placed), gradients(plain)(*given), 1e-6)
