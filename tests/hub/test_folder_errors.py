"""What can be wrong with a folder, and what an export that fails leaves behind."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medjax.config import UserError
from medjax.hub import folder as folder_module
from medjax.hub import tensors
from medjax.hub.folder import load_pretrained, save_pretrained

from .models import tiny_model


@pytest.fixture
def saved(tmp_path):
    save_pretrained(tmp_path / "m", *tiny_model())
    return tmp_path / "m"


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_no_folder_and_no_configuration(tmp_path):
    with pytest.raises(UserError, match="bert-base: no such folder; .*has to be downloaded"):
        load_pretrained(tmp_path / "bert-base")
    with pytest.raises(UserError, match="config.json: no such file; is .* a Hugging Face folder"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"model_type": "mamba"}, "m: config.json: model_type = 'mamba' is not .*known: t5, mod"),
        ({"model_type": None}, "model_type = None is not supported"),
        ({"position_embedding_type": "relative_key"}, "m: config.json: position_embedding_type"),
        ({"hidden_size": 17}, "m: config.json: .*hidden_size 17"),
        ({"num_hidden_layers": 3}, "m: tensor encoder.layer.2.* is not stored, but .*other layers"),
        ({"num_hidden_layers": 1}, r"m: the weights hold .*layer.1.* beyond the layers"),
        ({"intermediate_size": 25}, r"m: tensor .*shape \(16, 24\), but config.json asks .*16, 25"),
        ({"vocab_size": 151}, r"m: tensor .*word_embeddings.* has shape \(150, 16\)"),
        ({"model_type": "modernbert"}, "m: the weights lack .*every modernbert model has"),
    ],
)
def test_a_configuration_that_does_not_fit(saved, values, match):
    change_config(saved, **values)
    with pytest.raises(UserError, match=match):
        load_pretrained(saved)


def test_a_backbone_tensor_that_is_missing(saved):
    change_weights(saved, lambda weights: weights.pop("bert.embeddings.LayerNorm.weight"))
    with pytest.raises(UserError, match="m: the weights lack embeddings.LayerNorm.weight, which"):
        load_pretrained(saved)


def test_an_encoder_is_no_encoder_decoder(tmp_path):
    save_pretrained(tmp_path / "m", *tiny_model("t5", ()))
    change_config(tmp_path / "m", model_type="bert")
    with pytest.raises(UserError, match="lack .*architectures T5EncoderModel"):
        load_pretrained(tmp_path / "m")


def write_tokenizer(folder, ids):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [f"word{i}" for i in range(ids - len(tokens))]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return folder


def test_a_tokenizer_with_more_ids_than_the_model(saved, tmp_path):
    write_tokenizer(saved, 151)
    with pytest.raises(UserError, match="ids up to 150, but .*vocab_size is 150; .*vocab_size=151"):
        load_pretrained(saved)
    assert load_pretrained(saved, vocab_size=151)[0].config.vocab_size == 151
    model, params = tiny_model()
    with pytest.raises(UserError, match="ids up to 199"):
        save_pretrained(
            tmp_path / "n", model, params, tokenizer=write_tokenizer(tmp_path / "t", 200)
        )
    assert not (tmp_path / "n").exists()
    with pytest.raises(UserError, match="vocab_size 0 must be at least 1"):
        load_pretrained(saved, vocab_size=0)


def test_arguments_of_save_that_do_not_fit(tmp_path):
    model, params = tiny_model()
    with pytest.raises(UserError, match="'float16' cannot be exported; choose float32 or bfloat16"):
        save_pretrained(tmp_path / "m", model, params, dtype="float16")
    other = tiny_model("megatron")[0]
    with pytest.raises(UserError, match="not this model's: .* should have shape"):
        save_pretrained(tmp_path / "m", other, params)
    with pytest.raises(UserError, match="holds no tokenizer; expected tokenizer.json"):
        save_pretrained(tmp_path / "m", model, params, tokenizer=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_place_where_something_else_is(saved):
    model, params = tiny_model()
    (saved / "notes.csv").touch()
    with pytest.raises(UserError, match="holds notes.csv, no part of an exported model"):
        save_pretrained(saved, model, params)
    with pytest.raises(UserError, match="notes.csv: is a file"):
        save_pretrained(saved / "notes.csv", model, params)
    assert (saved / "notes.csv").exists() and (saved / "model.safetensors").exists()


def test_an_earlier_export_is_replaced_and_keeps_its_tokenizer(saved):
    write_tokenizer(saved, 150)
    (saved / "README.md").write_text("old")
    model, params = tiny_model("roberta", seed=1)
    save_pretrained(saved, model, params, max_shard_bytes=10_000)
    names = {path.name for path in saved.iterdir()}
    assert "vocab.txt" in names and not names & {"README.md", "model.safetensors"}
    assert load_pretrained(saved)[0].config.model_type == "roberta"


@pytest.mark.parametrize(
    ("code", "match"), [(28, "disk is full"), (30, "read-only"), (13, "permi")]
)
def test_a_disk_that_cannot_be_written(saved, monkeypatch, code, match):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*_, **__):
        raise tensors.SafetensorError(f"I/O error: something (os error {code}) at path x")

    monkeypatch.setattr(tensors, "save_file", fail)
    with pytest.raises(UserError, match=f"model.safetensors: .*{match}"):
        save_pretrained(saved, *tiny_model(seed=1))
    with pytest.raises(UserError, match=match):
        save_pretrained(saved.parent / "other", *tiny_model())
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["m"]


def test_an_interrupted_export_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "write_tensors", stop)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(tmp_path / "m", *tiny_model())
    assert not list(tmp_path.iterdir())


def test_not_a_number_survives(tmp_path):
    """An export writes what it is given; whether that is a good model is not its question."""
    model, params = tiny_model()
    params["embeddings"]["position"][0, 0] = np.nan
    save_pretrained(tmp_path, model, params)
    assert np.isnan(load_pretrained(tmp_path)[1]["embeddings"]["position"][0, 0])
