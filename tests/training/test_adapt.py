"""Parts of a model: together they are the model, and what is trained has the whole's gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from medjax.config import UserError
from medjax.models import build_model
from medjax.models.config import Compute, LoraConfig
from medjax.models.heads import attach, build_head
from medjax.objectives.labels import build_label_loss, build_text_loss
from medjax.training.adapt import adapt
from medjax.training.config import MeshConfig
from medjax.training.learner import Learner
from medjax.training.mesh import make_mesh
from tests.models.tiny import CONFIGS, make_batch, make_params

ENCODERS = ("bert", "modernbert")
LORA = LoraConfig(rank=3, alpha=6.0, targets=["o", "down"])


def learner_of(name):
    """A learner with random parameters; what the data decide is left out."""
    model = build_model(
        CONFIGS[name], Compute(dtype="float32"), () if name in ENCODERS else ("lm_head",)
    )
    empty = Learner(*[None] * len(Learner._fields))
    empty = empty._replace(whole=lambda params: params, backward=2.0)
    if name not in ENCODERS:
        params = make_params(model.specs)
        loss = build_text_loss(model, 0)
        return empty._replace(
            specs=model.specs, start=lambda seed: params, loss=lambda *_: loss, use="text"
        )
    labeller = attach(model, build_head("sequence", CONFIGS[name], 3))
    params = make_params(labeller.specs)
    loss = build_label_loss(labeller, "classification")
    return empty._replace(
        specs=labeller.specs, start=lambda seed: params, loss=lambda *_: loss, labeller=labeller
    )


def batch_of(name):
    batch = make_batch(CONFIGS[name])
    labels = batch.get("decoder_input_ids", jnp.array([0, 2]))
    batch = {n: batch[n] for n in ("input_ids", "attention_mask")}
    return batch | {"labels": labels, "weight": jnp.ones(2)}


PARTS = [
    ("bert", 1),
    pytest.param("modernbert", 1, marks=pytest.mark.long),
    ("modernbert", 3),
    ("bert", "backbone"),
    ("t5_v1_1", 1),
]


@pytest.mark.parametrize(("name", "freeze"), PARTS)
def test_what_is_frozen_and_what_is_trained_make_the_model(name, freeze):
    learner, mesh = learner_of(name), make_mesh(MeshConfig(), 0)
    part, batch = adapt(learner, freeze, None, mesh), batch_of(name)
    if name == "bert":  # FLOPs: gradients of the layers from above down to the frozen ones
        share = 0 if freeze == "backbone" else 1 - freeze / CONFIGS[name].num_hidden_layers
        assert part.backward == pytest.approx(2.0 * share)
    own, whole = part.start(0), learner.start(0)
    jax.tree.map(np.testing.assert_array_equal, part.whole(own), whole)
    shapes = jax.tree.map(lambda spec: spec.shape, part.specs)
    assert shapes == jax.tree.map(jnp.shape, own)

    def of_part(params):
        return part.loss(0.0, None)(params, batch, None, frozen=part.frozen)["loss"]

    def of_whole(params):
        return learner.loss(0.0, None)(params, batch, None)["loss"]

    ours, theirs = (
        flatten_dict(jax.jit(jax.grad(f))(p), sep="/")
        for f, p in ((of_part, own), (of_whole, whole))
    )
    assert 0 < len(ours) < len(theirs) or freeze != "backbone"
    for path, gradient in ours.items():
        expected = theirs[path][-gradient.shape[0] :] if gradient.ndim else theirs[path]
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6, err_msg=path)
    assert not any(path.startswith("backbone/embeddings") or path == "shared" for path in ours)
    stack = (
        "backbone/layers/attention/o/kernel" if name in ENCODERS else "encoder/layers/mlp/up/kernel"
    )
    layers = theirs[stack].shape[0]
    left = 0 if freeze == "backbone" else layers - freeze
    assert (stack in ours) == bool(left) and (not left or ours[stack].shape[0] == left)


@pytest.mark.parametrize("name", ["bert", pytest.param("t5_v1_1", marks=pytest.mark.long)])
def test_pairs_are_trained_in_the_place_of_the_backbone(name):
    learner, mesh, batch = learner_of(name), make_mesh(MeshConfig(), 0), batch_of(name)
    part = adapt(learner, None, LORA, mesh)
    assert part.backward == 1.0
    own = part.start(1)
    jax.tree.map(np.testing.assert_array_equal, part.whole(own), learner.start(1))
    moved = jax.tree.map(lambda x: x + 0.05, own)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return part.loss(0.0, None)(params, batch, None, frozen=part.frozen)["loss"]

    merged = jax.jit(learner.loss(0.0, None))(part.whole(moved), batch, None)["loss"]
    beside, gradients = loss(moved)
    np.testing.assert_allclose(beside, merged, rtol=1e-4)
    assert all(g.any() for g in jax.tree.leaves(gradients))
    assert set(part.specs) == ({"lora", "head"} if name in ENCODERS else {"lora"})


def test_what_cannot_be_frozen():
    mesh = make_mesh(MeshConfig(), 0)
    with pytest.raises(UserError, match="there are 2 layers; take 1 to 2"):
        adapt(learner_of("bert"), 3, None, mesh)
    with pytest.raises(UserError, match="leaves nothing to train without a head"):
        adapt(learner_of("t5_v1_1"), "backbone", None, mesh)
    plain = learner_of("bert")
    assert adapt(plain, None, None, mesh) is plain
