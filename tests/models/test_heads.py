"""Heads against transformers' torch models, their export, and heads of a user's own."""

import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from medjax.config import UserError
from medjax.hub.folder import load_pretrained
from medjax.hub.heads import load_head_params, save_finetuned
from medjax.models import build_model
from medjax.models.config import Compute
from medjax.models.heads import attach, build_head, load_head, with_pretrained
from medjax.models.spec import init_params
from tests.models.tiny import CONFIGS, make_batch, make_params

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures" / "heads").glob("*.safetensors"))
FLOAT32 = Compute(dtype="float32")
LABELS = ["a", "b", "c"]


def headed(config, use, count=3):
    """An encoder of a configuration with the head for a use."""
    kind = "sequence" if use == "sequence" else "token"
    head = build_head(kind, config, count, dropout=use != "answer")
    return attach(build_model(config, FLOAT32, ()), head)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_logits_and_export_are_those_of_transformers(path, tmp_path):
    with safe_open(path, "np") as file:
        facts = {name: json.loads(text) for name, text in file.metadata().items()}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights = {n.removeprefix("weights/"): a for n, a in arrays.items() if n.startswith("weights/")}
    weights = {n: a.astype(np.float32) for n, a in weights.items() if a.dtype == np.float16}
    folder, use = tmp_path / "theirs", facts["use"]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(facts["config"]))
    save_file(weights, folder / "model.safetensors")
    model, params = load_pretrained(folder, FLOAT32)
    labeller = headed(model.config, use, 2 if use == "answer" else 3)
    body = {name: part for name, part in params.items() if name not in ("pooler", "lm_head")}
    params = {"backbone": body, "head": load_head_params(folder, model.config, use)}
    assert jax.tree.structure(params) == jax.tree.structure(labeller.specs)
    batch = {name: jnp.asarray(arrays[name]) for name in ("input_ids", "attention_mask")}
    logits, expected = np.asarray(jax.jit(labeller.logits)(params, batch)), arrays["logits"]
    if use != "sequence":  # padding that sees nothing but padding is nobody's
        logits, expected = (x[arrays["attention_mask"] > 0] for x in (logits, expected))
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)

    labels = LABELS if use != "answer" else []
    save_finetuned(tmp_path / "ours", labeller, params, use, labels, {"a": 1}, None, "# Mine\n", 1)
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert set(written) == {n for n in weights if "position_ids" not in n}
    for name, array in written.items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    values = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert values["architectures"] == facts["config"]["architectures"]
    if use != "answer":
        assert values["id2label"] == {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize(
    "name", ["bert", "roberta", pytest.param("modernbert", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("use", ["sequence", "token"])
def test_dropout_of_a_row_does_not_depend_on_the_others(name, use):
    labeller = headed(CONFIGS[name], use)
    params = make_params(labeller.specs)
    batch = make_batch(CONFIGS[name])
    keys = jax.random.split(jax.random.key(0), 2)
    both = labeller.logits(params, batch, key=keys)
    one = labeller.logits(params, jax.tree.map(lambda x: x[1:], batch), key=keys[1:])
    np.testing.assert_allclose(both[1:], one, atol=1e-5)
    if name != "modernbert":  # has no dropout by default
        assert np.abs(both - labeller.logits(params, batch)).max() > 1e-3


def test_a_head_begins_from_what_was_pretrained():
    labeller = headed(CONFIGS["bert"], "sequence")
    fresh = init_params(labeller.specs["head"], jax.random.key(0))
    pooler = {"kernel": jnp.ones((32, 32)), "bias": jnp.ones(32)}
    head = flatten_dict(with_pretrained(fresh, {"dense": pooler}), sep="/")
    assert (head["dense/kernel"] == 1).all()
    np.testing.assert_array_equal(head["classifier/kernel"], fresh["classifier"]["kernel"])
    other = with_pretrained(fresh, {"dense": {"kernel": jnp.ones((8, 8))}})
    np.testing.assert_array_equal(other["dense"]["kernel"], fresh["dense"]["kernel"])


class MeanHead(nn.Module):
    """A user's head: the mean over the tokens."""

    num_labels: int

    @nn.compact
    def __call__(self, hidden, batch, deterministic):
        mask = batch["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return nn.Dense(self.num_labels)(nn.Dropout(0.5)(mean, deterministic))


class NormHead(nn.Module):
    """A head with statistics of its own."""

    num_labels: int

    @nn.compact
    def __call__(self, hidden, batch, deterministic):
        return nn.BatchNorm(use_running_average=True)(hidden[:, 0])


def test_a_head_of_ones_own(tmp_path):
    head = load_head(f"{__name__}:MeanHead", 3)
    labeller = attach(build_model(CONFIGS["bert"], FLOAT32, ()), head)
    params = make_params(labeller.specs)
    logits = labeller.logits(params, make_batch(CONFIGS["bert"]))
    assert logits.shape == (2, 3)
    assert labeller.specs["head"]["Dense_0"]["kernel"].decay
    assert not labeller.specs["head"]["Dense_0"]["bias"].decay
    save_finetuned(tmp_path / "own", labeller, params, "own", LABELS, {}, None, "# Mine\n", 0)
    loaded, body = load_pretrained(tmp_path / "own", FLOAT32)
    again = {"backbone": body, "head": load_head_params(tmp_path / "own", loaded.config, "own")}
    np.testing.assert_allclose(
        labeller.logits(again, make_batch(CONFIGS["bert"])), logits, atol=1e-5
    )


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no.such.module:Head", "cannot be imported"),
        ("json:Head", "cannot be imported"),
        ("json", "cannot be imported"),
        ("json:loads", "no flax.linen Module"),
    ],
)
def test_heads_that_are_none(path, problem):
    with pytest.raises(UserError, match=problem):
        load_head(path, 2)


def test_a_head_with_other_collections_is_refused():
    with pytest.raises(UserError, match="has the collections batch_stats"):
        attach(build_model(CONFIGS["bert"], FLOAT32, ()), load_head(f"{__name__}:NormHead", 2))
