"""Names and layouts in both directions, beyond what the parity tests already load."""

import jax
import numpy as np
import pytest

from medjax.config import UserError
from medjax.hub.names import (
    architecture,
    from_hf_tensors,
    stored_parts,
    stored_tying,
    table,
    to_hf_tensors,
)
from medjax.models import build_model
from tests.models.tiny import CONFIGS, make_params

families = pytest.mark.parametrize("name", CONFIGS)
PARTS = ("lm_head",)


def export(name, parts=PARTS):
    config = CONFIGS[name]
    params = make_params(build_model(config, parts=parts).specs)
    return config, params, to_hf_tensors(params, config, parts)


@families
@pytest.mark.parametrize("parts", [PARTS, ()])
def test_round_trip(name, parts):
    config, params, tensors = export(name, parts)
    assert stored_parts(config, tensors) == parts
    assert stored_tying(config, tensors.get, tensors) == config
    back, missing, unused = from_hf_tensors(tensors.get, tensors, config, parts)
    assert not missing and not unused
    jax.tree.map(np.testing.assert_array_equal, back, params)


@families
def test_every_leaf_has_its_own_name(name):
    entries = table(CONFIGS[name], PARTS)
    first = [entry.names[0] for entry in entries.values()]
    assert len(set(first)) == len(first)


def test_vocabulary_padding_is_stripped_and_tied_tables_are_stored_once():
    _, _, tensors = export("bert")
    assert tensors["bert.embeddings.word_embeddings.weight"].shape == (99, 32)
    assert tensors["cls.predictions.bias"].shape == (99,)
    assert "cls.predictions.decoder.weight" not in tensors
    _, _, tensors = export("t5_v1_1")
    assert {"shared.weight", "lm_head.weight"} <= set(tensors)


def test_base_model_in_a_file_with_and_without_prefix():
    """A masked-LM file gives a bare encoder, and a bare encoder's file lacks only the head."""
    config, params, tensors = export("roberta")
    bare, missing, unused = from_hf_tensors(tensors.get, tensors, config, ())
    assert not missing and "lm_head.dense.weight" in unused
    tensors = to_hf_tensors(bare, config, ())
    assert all(not name.startswith("roberta.") for name in tensors)
    again, missing, unused = from_hf_tensors(tensors.get, tensors, config, PARTS)
    assert missing and all(path.startswith("lm_head/") for path in missing) and not unused
    assert again["lm_head"]["bias"] is None
    np.testing.assert_array_equal(again["embeddings"]["word"], params["embeddings"]["word"])


def test_old_names_buffers_and_duplicates():
    config, _, tensors = export("bert")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in tensors.items()
    }
    old["bert.embeddings.position_ids"] = np.arange(40)[None]
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    old["cls.seq_relationship.weight"] = np.zeros((2, 32))
    assert stored_tying(config, old.get, old).tie_word_embeddings
    _, missing, unused = from_hf_tensors(old.get, old, config, PARTS)
    assert not missing and unused == ["cls.seq_relationship.weight"]


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_tying_is_read_off_the_tensors(name):
    config, _, tensors = export(name)
    head = {"t5": "lm_head.weight", "bert": "cls.predictions.decoder.weight"}[name]
    table_name = {"t5": "shared.weight", "bert": "bert.embeddings.word_embeddings.weight"}[name]
    twice = {**tensors, head: tensors[table_name].copy()}
    assert stored_tying(config, twice.get, twice).tie_word_embeddings
    two = {**tensors, head: tensors[table_name] + 1}
    untied = stored_tying(config, two.get, two)
    assert not untied.tie_word_embeddings
    assert getattr(untied, "scaled_head", True)  # a T5's scaling stays what config.json says


def test_an_input_table_under_an_alias():
    config, params, tensors = export("t5")
    tensors["decoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    back, missing, unused = from_hf_tensors(tensors.get, tensors, config, PARTS)
    assert not missing and not unused
    np.testing.assert_array_equal(back["shared"], params["shared"])


def test_wrong_shapes_and_lost_layers_are_named():
    config, _, tensors = export("modernbert")
    wrong = {**tensors, "model.layers.1.mlp.Wi.weight": np.zeros((3, 3))}
    with pytest.raises(UserError, match=r"model.layers.1.mlp.Wi.weight has shape \(3, 3\)"):
        from_hf_tensors(wrong.get, wrong, config, PARTS)
    del tensors["model.layers.2.attn_norm.weight"]
    with pytest.raises(UserError, match="layers.2.attn_norm.weight is not stored"):
        from_hf_tensors(tensors.get, tensors, config, PARTS)


def test_half_precision_becomes_float32():
    config, _, tensors = export("bert")
    half = {name: value.astype(np.float16) for name, value in tensors.items()}
    params, _, _ = from_hf_tensors(half.get, half, config, PARTS)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_architectures():
    assert architecture(CONFIGS["t5"], ()) == "T5EncoderModel"
    assert architecture(CONFIGS["t5"], ("decoder",)) == "T5Model"
    assert architecture(CONFIGS["t5"], PARTS) == "T5ForConditionalGeneration"
    assert architecture(CONFIGS["megatron"], PARTS) == "MegatronBertForMaskedLM"
    assert architecture(CONFIGS["modernbert"], ()) == "ModernBertModel"
