"""`python -m medjax.convert`: checkpoints and model folders to model folders."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub import ModelCard

from medjax.config import UserError
from medjax.convert import ConvertConfig, run
from medjax.data.tokenize import load_tokenizer, tokenizer_hash
from medjax.hub.folder import load_pretrained, save_pretrained
from medjax.training.checkpoint import Checkpoints
from medjax.training.config import CheckpointConfig
from tests.tokenizers import small_tokenizer

from .models import FLOAT32, assert_same, tiny_model

NOTES = ["Pt is a 67 y/o M with HTN.", "No chest pain; BP 142/91."]


def convert(source, output, **options):
    run(ConvertConfig(input=str(source), output=str(output), **options))
    return load_pretrained(output, FLOAT32)


def test_a_model_folder_is_written_anew(tmp_path):
    model, params = tiny_model("t5_v1_1")
    save_pretrained(tmp_path / "a", model, params, card="# Mine\n")
    same, loaded = convert(tmp_path / "a", tmp_path / "b", max_shard_gigabytes=1e-5)
    assert same.config == model.config and len(list((tmp_path / "b").glob("model-*"))) > 2
    assert_same(loaded, params)
    assert (tmp_path / "b" / "README.md").read_text() == "# Mine\n"
    _, halved = convert(tmp_path / "b", tmp_path / "c", dtype="bfloat16")
    assert_same(halved, jax.tree.map(lambda a: np.asarray(a, jnp.bfloat16).astype("f4"), params))
    convert(tmp_path / "c", tmp_path / "c")  # in place


@pytest.fixture
def run_dir(tmp_path):
    """A run of two checkpoints as pretrain leaves it, with its prepared notes."""
    model, params = tiny_model()
    tokenizer = tmp_path / "prepared" / "tokenizer"
    small_tokenizer("wordpiece", NOTES, 80).save_pretrained(tokenizer)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps({"data": [{"path": str(tokenizer.parent)}]}))
    notes = {
        "model": model.config.model_dump(mode="json"),
        "objective": {"kind": "masked_lm"},
        "init_from": None,
        "tokenizer": tokenizer_hash(load_tokenizer(tokenizer)),
        "sources": [{"name": "MIMIC-III", "licence": "PhysioNet 1.5.0", "access": "credentialed"}],
    }
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig(keep_last=2))
    for step in (1, 2):
        state = {"params": jax.tree.map(lambda a, s=step: jnp.asarray(a * s), params)}
        checkpoints.save(step, state | {"opt_state": {"mu": jnp.zeros(3)}}, notes)
    checkpoints.wait()
    return folder


def test_a_checkpoint_becomes_a_model_folder(tmp_path, run_dir):
    _, params = tiny_model()
    _, newest = convert(run_dir, tmp_path / "newest")
    assert_same(newest, jax.tree.map(lambda a: a * 2, params))
    _, first = convert(run_dir / "checkpoints" / "00000001", tmp_path / "first")
    assert_same(first, params)
    assert (tmp_path / "first" / "tokenizer.json").is_file()
    card = ModelCard((tmp_path / "first" / "README.md").read_text())
    assert card.data.license == "other" and "MIMIC-III (PhysioNet 1.5.0)" in card.text


def test_only_the_tokenizer_of_the_run_goes_with_it(tmp_path, run_dir):
    small_tokenizer("wordpiece", NOTES[1:], 80).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="other: not the tokenizer that .*run was trained with"):
        convert(run_dir, tmp_path / "out", tokenizer=str(tmp_path / "other"))
    (tmp_path / "prepared").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="neither in .*prepared/tokenizer nor in .*run/export"):
        convert(run_dir, tmp_path / "out")
    convert(run_dir, tmp_path / "out", tokenizer=str(tmp_path / "moved" / "tokenizer"))
