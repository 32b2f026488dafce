"""Prompts and answers in shared rows: the same loss and gradients as each alone, at less cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models import build_model
from medjax.models.config import Compute
from medjax.objectives.labels import build_answer_loss
from medjax.tasks.encode import Rows
from medjax.training.packed import Packing, pack_feed
from tests.models.tiny import CONFIGS, make_params

COUNT = 37


def feed_of(packed, batch_size=8, unit=1):
    key = np.random.default_rng(0)
    sizes = [20, *key.geometric(0.2, COUNT - 1).clip(2, 20)]
    prompts = [key.integers(1, 60, n).astype(np.int32) for n in sizes]
    answers = [key.integers(1, 60, n).astype(np.int32) for n in key.integers(1, 6, COUNT)]
    nowhere = [np.zeros((0, 2), np.int32)] * COUNT
    rows = Rows(prompts, None, np.arange(COUNT), nowhere, np.zeros(COUNT, bool))
    return pack_feed(rows, answers, 0, Packing(batch_size, unit, packed))


def total(feed, model, params):
    """Loss, its weight and gradients of an epoch, and the shapes that it took."""
    run, shapes = jax.jit(jax.value_and_grad(loss_of(model), has_aux=True)), set()
    found = None
    for chosen in feed.plan.epoch(0):
        batch = feed.batch(chosen)
        shapes.add(batch["input_ids"].shape)
        (_, sums), gradients = run(params, jax.tree.map(jnp.asarray, batch))
        own = sums, gradients
        found = own if found is None else jax.tree.map(jnp.add, found, own)
    return *found, shapes


def loss_of(model):
    loss = build_answer_loss(model)

    def of(params, batch):
        sums = loss(params, batch, None)
        return sums["loss"], sums

    return of


def test_the_loss_is_that_of_the_answers_after_their_prompts():
    """Equal to the log probabilities of each whole text."""
    model = build_model(CONFIGS["gemma3"], Compute(dtype="float32"))
    params, feed, run = make_params(model.specs), feed_of(True), jax.jit(model.apply)
    batch = feed.batch(np.array([len(feed.packs) - 2, -1, 3]))
    rows = [*feed.packs[-2], *feed.packs[3]]
    assert len(rows) > 5
    expected, correct, count = 0.0, 0, 0
    for row in rows:
        prompt, answer = feed.rows.input_ids[row], feed.targets[row]
        ids = np.concatenate([prompt, answer, np.zeros(30, np.int32)])[None, :30]
        own = jax.nn.log_softmax(run(params, {"input_ids": jnp.asarray(ids)}).logits[0])
        own = own[len(prompt) - 1 :][: len(answer)]
        expected -= float(own[np.arange(len(answer)), answer].sum())
        correct += int((own.argmax(-1) == answer).sum())
        count += len(answer)
    sums = jax.jit(build_answer_loss(model))(params, jax.tree.map(jnp.asarray, batch), None)
    assert float(sums["weight"]) == count and float(sums["correct"]) == correct
    assert float(sums["loss"]) == pytest.approx(expected, rel=1e-5)


def test_packed_and_alone_are_the_same():
    """Under full attention and under a sliding window."""
    model = build_model(CONFIGS["gemma3"], Compute(dtype="float32"))
    params = make_params(model.specs)
    sums, gradients, shapes = total(feed_of(True), model, params)
    alone, own, all_shapes = total(feed_of(False), model, params)
    assert len(shapes) == 1 < len(all_shapes) <= 8
    for name, value in alone.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-5, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), gradients, own
    )


def test_a_step_has_about_as_many_examples():
    packed, alone = feed_of(True), feed_of(False)
    assert packed.plan.batch_size < 8 == alone.plan.batch_size
    steps = packed.plan.steps_per_epoch, alone.plan.steps_per_epoch
    assert abs(steps[0] - steps[1]) <= 1
    assert packed.padding < 0.1
    devices = feed_of(True, unit=8)  # 8 rows would be some 20 examples rather than 8
    assert devices.plan.batch_size == 8 and len(devices.packs) == COUNT


def test_work_is_that_of_the_examples():
    def row_flops(length, answer):
        return 3.0 * length + answer

    sums = [[x.sum() for x in feed_of(packed).work(row_flops)] for packed in (True, False)]
    assert sums[0] == sums[1] and sums[0][0] == feed_of(True).plan.lengths.sum()


def test_some_of_the_examples_are_packed_anew():
    kept = np.arange(COUNT) % 3 == 0
    part, whole = feed_of(True).subset(kept), feed_of(True)
    assert sorted(row for own in part.packs for row in own) == list(range(kept.sum()))
    assert part.plan.batch_size < 8 and len(part.packs) < len(whole.packs)
    first = [ids for ids, own in zip(whole.rows.input_ids, kept, strict=True) if own]
    assert all(map(np.array_equal, part.rows.input_ids, first))
