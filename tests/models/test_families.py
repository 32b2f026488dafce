"""What holds for every family: schedules, types, masks, segments, dropout, initial values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.config import UserError
from medjax.models import build_model
from medjax.models.config import Compute
from medjax.models.spec import abstract_params, init_params, path_name
from tests.models.tiny import CONFIGS, LENGTH, TARGET_LENGTH, make_batch, make_params

SCANNED = Compute(dtype="float32", unroll=1)
families = pytest.mark.parametrize("name", CONFIGS)
structures = pytest.mark.parametrize("name", ["t5_v1_1", "bert", "modernbert"])


@functools.cache
def make(name, compute=SCANNED):
    """Model, random parameters and the jitted forward pass."""
    config = CONFIGS[name]
    if name == "modernbert":  # whose rates are 0
        rates = ("attention_dropout", "embedding_dropout", "mlp_dropout")
        config = config.model_copy(update=dict.fromkeys(rates, 0.2))
    model = build_model(config, compute)
    return model, make_params(model.specs), jax.jit(model.apply)


def loss_and_gradients(name, compute, key):
    model, params, _ = make(name, compute)

    def loss(params):
        output = model.apply(params, make_batch(model.config), key=key)
        return jnp.mean(jax.nn.log_softmax(output.logits)[..., 7])

    return jax.jit(jax.value_and_grad(loss))(params)


UNROLLED = {"remat": "dots"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("t5_v1_1", [UNROLLED]),
        pytest.param("modernbert", [UNROLLED, {"unroll": 1}], marks=pytest.mark.long),
    ],
)
def test_schedules_agree(name, changes):
    """Scanned, unrolled, rematerialised: the same loss and gradients, dropout included."""
    key = jax.random.key(3, impl="rbg")  # compiles faster than threefry
    expected = loss_and_gradients(name, Compute(dtype="float32", unroll=1, remat="full"), key)
    for change in changes:
        ours = loss_and_gradients(name, Compute(dtype="float32", **change), key)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6), ours, expected)


@structures
def test_attention_in_blocks(name):
    model, params, run = make(name)
    batch = make_batch(model.config)
    *_, blocks = make(name, Compute(dtype="float32", unroll=1, attention="blocks"))
    close_where_real(blocks(params, batch), run(params, batch), batch)


def test_long_inputs_leave_no_square_in_memory():
    """At 4,096 tokens the weights of one layer would take 128 MiB; gradients need less in all."""
    config = CONFIGS["modernbert"].model_copy(update={"max_position_embeddings": 4096})
    model = build_model(config, Compute(unroll=1))
    batch = {"input_ids": jax.ShapeDtypeStruct((1, 4096), jnp.int32)}
    loss = jax.grad(lambda params, batch: jnp.mean(model.hidden(params, batch) ** 2))
    compiled = jax.jit(loss).lower(abstract_params(model.specs), batch).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**27


@families
def test_bfloat16(name):
    """Types as promised, gradients too, and numbers near those of float32."""
    (model, params, run), (*_, exact) = make(name, Compute(unroll=1)), make(name)
    batch = make_batch(model.config)
    output, expected = run(params, batch), exact(params, batch).logits
    assert output.hidden.dtype == jnp.bfloat16 and output.logits.dtype == jnp.float32
    assert jnp.linalg.norm(output.logits - expected) / jnp.linalg.norm(expected) < 0.03
    grads = jax.eval_shape(jax.grad(lambda p: model.apply(p, batch).logits.sum()), params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(grads))


@families
def test_padding_changes_nothing(name):
    model, params, run = make(name)
    batch = make_batch(model.config)
    other = dict(batch)
    for field in ("input_ids", "decoder_input_ids"):
        if field in batch:
            mask = batch[field.replace("input_ids", "attention_mask")]
            other[field] = jnp.where(mask, batch[field], 1 if name == "roberta" else 50)
    close_where_real(run(params, other), run(params, batch), batch)


@families
def test_packed_notes_equal_notes_alone(name):
    """Two notes and padding in one block, by segment_ids, against each note by itself."""
    model, params, run = make(name)
    sizes = (14, 10)
    notes = make_batch(model.config, sizes)
    packed = {}
    for field in [f for f in notes if f.endswith("input_ids")]:
        prefix, length = field.removesuffix("input_ids"), notes[field].shape[1]
        lengths = [int(n) for n in notes[prefix + "attention_mask"].sum(1)]
        rest = length - sum(lengths)
        ids = [notes[field][i, :n] for i, n in enumerate(lengths)]
        packed[field] = jnp.concatenate([*ids, jnp.ones(rest, jnp.int32)])[None]
        segments = np.repeat([1, 2, 0], [*lengths, rest])[None]
        packed[prefix + "segment_ids"] = jnp.int32(segments)
        packed[prefix + "position_ids"] = jnp.int32(
            np.concatenate([np.arange(n) for n in (*lengths, rest)])[None]
        )
    together, alone = run(params, packed).logits[0], run(params, notes).logits
    np.testing.assert_allclose(together[: lengths[0]], alone[0, : lengths[0]], atol=1e-5)
    second = together[lengths[0] : sum(lengths)]
    np.testing.assert_allclose(second, alone[1, : lengths[1]], atol=1e-5)


@pytest.mark.parametrize("name", ["t5_v1_1", "bert"])
def test_dropout_follows_its_key(name):
    """One key for the batch, or one for each row, whose dropout then ignores its neighbours."""
    model, params, _ = make(name)
    batch = make_batch(model.config, (LENGTH, LENGTH))
    run = jax.jit(lambda batch, key: model.hidden(params, batch, key=key))
    keys = jax.random.split(jax.random.key(0), 2)
    first, swapped = run(batch, keys), run(jax.tree.map(lambda x: x[::-1], batch), keys[::-1])
    np.testing.assert_allclose(first, swapped[::-1], atol=1e-5)
    assert jnp.abs(first - run(batch, keys[::-1])).max() > 0.01


def test_initial_values():
    """The loss starts near that of a uniform guess, for heads scaled, unscaled and projected."""
    for name in ("t5", "t5_v1_1", "modernbert"):
        model, _, run = make(name)
        params = jax.jit(model.init)(jax.random.key(0, impl="rbg"))
        table = params["shared"] if "shared" in params else params["embeddings"]["word"]
        assert table.shape[0] == 128 and not table[99:].any() and table[98].all()
        logits = run(params, make_batch(model.config)).logits
        assert logits.shape[-1] == 99
        loss = -jax.nn.log_softmax(logits).mean()
        assert loss == pytest.approx(np.log(99), abs=1.0)


def test_a_leafs_initial_value_does_not_depend_on_others():
    key, config = jax.random.key(0), CONFIGS["bert"]
    full = init_params(build_model(config, parts=("lm_head", "pooler")).specs, key)
    bare = init_params(build_model(config, parts=()).specs, key)
    ours = dict(jax.tree.leaves_with_path(full))
    for path, value in jax.tree.leaves_with_path(bare):
        np.testing.assert_array_equal(value, ours[path], err_msg=path_name(path))
    kernels = [ours[p] for p in ours if path_name(p).endswith(("q/kernel", "k/kernel"))]
    assert not jnp.array_equal(*kernels)


def test_parts():
    encoder = build_model(CONFIGS["t5"], parts=())
    assert encoder.head is None and encoder.decode is None and "decoder" not in encoder.specs
    assert build_model(CONFIGS["t5"], parts=("decoder",)).decode is not None
    with pytest.raises(ValueError, match="no part 'pooler'"):
        build_model(CONFIGS["t5"], parts=("pooler",))


@pytest.mark.parametrize("name, limit", [("bert", 40), ("roberta", 38), ("modernbert", 40)])
def test_too_long_an_input_is_refused(name, limit):
    model = build_model(CONFIGS[name])
    assert model.config.max_length == limit
    params = jax.eval_shape(model.init, jax.random.key(0))

    def try_length(length):
        batch = {"input_ids": jax.ShapeDtypeStruct((1, length), jnp.int32)}
        return jax.eval_shape(model.hidden, params, batch)

    try_length(limit)
    with pytest.raises(UserError, match=f"an input of {limit + 1} tokens .* {limit}"):
        try_length(limit + 1)


def close_where_real(ours, theirs, batch):
    decoder = ours.logits.shape[1] == TARGET_LENGTH
    real = batch["decoder_attention_mask" if decoder else "attention_mask"] == 1
    np.testing.assert_allclose(ours.logits[real], theirs.logits[real], atol=1e-5)
