"""Folders written and read back: every family, shards, precision, placement, parts, vocabulary."""

import json
import logging
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from medjax.hub.folder import load_pretrained, read_config, save_pretrained
from medjax.hub.tensors import open_tensors

from .models import CONFIGS, FLOAT32, assert_same, tiny_model

HEADS = ("cls.predictions.", "lm_head.")
NO_POOLER = ("modernbert", "llama", "gemma3", "gpt2")
FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("*.safetensors"))


def all_cases():
    for name, config in CONFIGS.items():
        more = ("decoder",) if config.model_type == "t5" else ("lm_head", "pooler")
        for parts in [(), ("lm_head",), more]:
            if "untied" not in name and (parts != more or name not in NO_POOLER):
                yield name, parts
    yield "bert_untied", ("lm_head",)


@pytest.mark.parametrize(("name", "parts"), list(all_cases()))
def test_what_is_saved_comes_back(tmp_path, name, parts):
    model, params = tiny_model(name, parts)
    save_pretrained(tmp_path / "m", model, params)
    again, loaded = load_pretrained(tmp_path / "m", FLOAT32)
    assert again.config == model.config == read_config(tmp_path / "m")
    assert (again.head is None) == (model.head is None)
    assert_same(loaded, params)


@pytest.mark.parametrize("layout", ["language_model.model.{}", "model.language_model.{}"])
def test_of_a_model_that_reads_images_the_text_model_is_taken(tmp_path, caplog, layout):
    """As MedGemma's: transformers' names before and since version 5."""
    model, params = tiny_model("gemma3")
    save_pretrained(tmp_path / "text", model, params)
    tensors = load_file(tmp_path / "text" / "model.safetensors")
    tensors = {layout.format(n.removeprefix("model.")): value for n, value in tensors.items()}
    seen = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight"
    for name in (seen, "multi_modal_projector.mm_input_projection_weight"):
        name = f"model.{name}" if layout.startswith("model.") else name
        tensors[name] = np.zeros((3, 3), np.float32)
    (tmp_path / "whole").mkdir()
    save_file(tensors, tmp_path / "whole" / "model.safetensors")
    text = json.loads((tmp_path / "text" / "config.json").read_text())
    values = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 3}}
    values["architectures"] = ["Gemma3ForConditionalGeneration"]
    (tmp_path / "whole" / "config.json").write_text(json.dumps(values))
    with caplog.at_level("INFO"):
        again, loaded = load_pretrained(tmp_path / "whole", FLOAT32)
    assert again.config == model.config and again.head is not None
    assert_same(loaded, params)
    assert "2 tensors for images are left out: the text model alone" in caplog.text


def test_a_published_gpt2_is_stored_as_the_bare_model(tmp_path):
    """Without a prefix, with causal masks as tensors, and its class in config.json."""
    model, params = tiny_model("gpt2")
    save_pretrained(tmp_path / "ours", model, params)
    tensors = load_file(tmp_path / "ours" / "model.safetensors")
    tensors = {n.removeprefix("transformer."): value for n, value in tensors.items()}
    tensors["h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
    save_file(tensors, tmp_path / "ours" / "model.safetensors")
    again, loaded = load_pretrained(tmp_path / "ours", FLOAT32)
    assert again.head is not None
    assert_same(loaded, params)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_folder_of_torch_is_written_as_torch_wrote_it(tmp_path, path):
    """The fixtures hold the tensors and the configuration that transformers stored."""
    with safe_open(path, "np") as file:
        facts = {name: json.loads(text) for name, text in file.metadata().items()}
        weights = {
            name.removeprefix("weight."): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if name.startswith("weight.")
        }
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    save_file(weights, theirs / "model.safetensors")
    values = facts["config"] | {"architectures": [facts["architecture"]]}
    (theirs / "config.json").write_text(json.dumps(values))
    save_pretrained(ours, *load_pretrained(theirs, FLOAT32))
    stored = {name: tensor.read() for name, tensor in open_tensors(ours).items()}
    # Of a head's two biases transformers uses decoder.bias; where they are tied it stores one.
    biases = {f"{head}{name}" for head in HEADS for name in ("bias", "decoder.bias")}
    assert set(stored) ^ set(weights) <= biases
    for name in set(weights) - {
        f"{head}bias" for head in HEADS if f"{head}decoder.bias" in weights
    }:
        np.testing.assert_array_equal(stored[name], weights[name])
    read = json.loads((ours / "config.json").read_text())
    assert read["architectures"] == values["architectures"]
    assert AutoConfig.from_pretrained(ours).model_type == facts["config"]["model_type"]


def test_shards_precision_and_metadata(tmp_path):
    model, params = tiny_model("t5")
    save_pretrained(tmp_path, model, params, dtype="bfloat16", max_shard_bytes=10_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    _, loaded = load_pretrained(tmp_path)
    expected = jax.tree.map(lambda a: np.asarray(a, jnp.bfloat16).astype(np.float32), params)
    assert_same(loaded, expected)
    assert str(AutoConfig.from_pretrained(tmp_path).dtype).endswith("bfloat16")
    with safe_open(next(tmp_path.glob("model-*")), "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_vocabulary_is_stored_without_its_padding(tmp_path):
    model, params = tiny_model()
    assert params["embeddings"]["word"].shape == (256, 16)
    save_pretrained(tmp_path, model, params)
    assert open_tensors(tmp_path)["bert.embeddings.word_embeddings.weight"].shape == (150, 16)


def test_t5_tells_generate_where_to_begin(tmp_path):
    save_pretrained(tmp_path, *tiny_model("t5"))
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    assert AutoConfig.from_pretrained(tmp_path).decoder_start_token_id == 0


def divided(specs):
    """Shardings over eight devices along the model's width."""
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))

    def sharding(spec):
        axes = ["fsdp" if axis == "embed" else None for axis in spec.axes]
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree.map(sharding, specs)


@pytest.mark.parametrize("place", [divided, None])
def test_large_stacks_pass_through_the_host_layer_by_layer(tmp_path, monkeypatch, place):
    model, params = tiny_model("llama")
    save_pretrained(tmp_path / "m", model, params)
    alive, most = [], []

    def counted(folder):
        def reader(tensor):
            def read():
                value = tensor.read()
                alive.append(weakref.ref(value))
                most.append(sum(own() is not None for own in alive))
                return value

            return tensor._replace(read=read)

        return {name: reader(tensor) for name, tensor in open_tensors(folder).items()}

    monkeypatch.setattr("medjax.hub.folder.WHOLE", 0)
    monkeypatch.setattr("medjax.hub.folder.open_tensors", counted)
    _, placed = load_pretrained(tmp_path / "m", FLOAT32, shardings=place)
    assert_same(placed, params)
    assert len(most) > 10 and max(most) <= 2
    if place:
        assert jax.tree.map(lambda x: x.sharding, placed) == place(model.specs)


def test_parameters_are_placed_and_gathered(tmp_path):
    place = divided
    model, params = tiny_model("t5_v1_1")
    save_pretrained(tmp_path / "whole", model, params)
    _, placed = load_pretrained(tmp_path / "whole", FLOAT32, shardings=place)
    table = placed["shared"]
    assert table.sharding == place(model.specs)["shared"]
    assert table.addressable_shards[0].data.shape == (256, 2)
    assert_same(placed, params)
    save_pretrained(tmp_path / "again", model, placed)
    same = ("model.safetensors", "config.json")
    assert all(
        (tmp_path / "whole" / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in same
    )


def test_parts_that_are_not_stored_begin_as_in_init(tmp_path, caplog):
    model, params = tiny_model(parts=("pooler",))
    save_pretrained(tmp_path, model, params)
    whole, loaded = load_pretrained(tmp_path, FLOAT32, ("lm_head",), seed=3)
    new, unused = [record.getMessage() for record in caplog.records]
    assert "newly initialised" in new and "lm_head/dense/kernel" in new
    assert "not used" in unused and "pooler.dense.weight" in unused
    assert_same(loaded["lm_head"], jax.jit(whole.init)(jax.random.key(3))["lm_head"])
    assert_same(
        {k: loaded[k] for k in ("embeddings", "layers")},
        {k: params[k] for k in params if k != "pooler"},
    )


def test_what_the_folder_holds_is_taken_without_a_word(tmp_path, caplog):
    save_pretrained(tmp_path, *tiny_model(parts=("lm_head", "pooler")))
    path = tmp_path / "model.safetensors"
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["bert.embeddings.position_ids"] = np.arange(20)[None]  # stored by older versions
    save_file(tensors, path)
    model, params = load_pretrained(tmp_path, FLOAT32)
    assert model.head is not None and "pooler" in params and not caplog.records


@pytest.mark.parametrize("size", [140, 170, 300])
@pytest.mark.parametrize("name", ["bert_untied", "t5", "t5_v1_1", "modernbert"])
def test_another_vocabulary_size(tmp_path, caplog, name, size):
    caplog.set_level(logging.INFO)
    model, params = tiny_model(name)
    save_pretrained(tmp_path, model, params)
    resized, loaded = load_pretrained(tmp_path, FLOAT32, vocab_size=size)
    assert resized.config == model.config.model_copy(update={"vocab_size": size})
    assert len(caplog.records) == 1 and f"vocabulary 150 -> {size}" in caplog.text

    def check(spec, old, new):
        if "vocab" not in spec.axes:
            np.testing.assert_array_equal(old, new)
            return
        kept = min(size, 150)
        np.testing.assert_array_equal(new[:kept], old[:kept])
        mean = np.broadcast_to(old[:150].mean(0), new[kept:size].shape)
        np.testing.assert_allclose(new[kept:size], mean, atol=1e-3)
        assert new.shape == spec.shape and not new[size:].any()

    jax.tree.map(check, resized.specs, params, loaded)


def test_resizing_depends_on_the_seed_alone(tmp_path):
    save_pretrained(tmp_path, *tiny_model())
    tables = [
        load_pretrained(tmp_path, vocab_size=200, seed=seed)[1]["embeddings"]["word"]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])
