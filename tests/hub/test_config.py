"""config.json in transformers 4's and 5's spellings, and what is refused."""

import pytest
import transformers

from medjax.config import UserError
from medjax.hub.config import from_hf, to_hf, with_tying
from medjax.models.config import BertConfig, ModernBertConfig, T5Config
from tests.models.tiny import CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_and_transformers_reads_it(name):
    """transformers 5 keeps every value, and what it writes is read as the same model."""
    config = CONFIGS[name]
    written = to_hf(config)
    assert from_hf(written) == config
    theirs = transformers.AutoConfig.for_model(**written).to_dict()
    back = from_hf(theirs)
    # transformers 5 says `tie_word_embeddings: true` of every T5; the tensors decide.
    assert with_tying(back, config.tie_word_embeddings) == config


def test_class_defaults_are_those_of_transformers():
    ours = {"t5": T5Config(), "modernbert": ModernBertConfig()}
    for name in ("bert", "roberta", "megatron-bert"):
        ours[name] = BertConfig(model_type=name)
    for name, config in ours.items():
        assert from_hf(transformers.AutoConfig.for_model(name).to_dict()) == config
        assert from_hf({"model_type": name}) == config


def test_flan_as_transformers_4_wrote_it():
    values = {"model_type": "t5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = from_hf(values | {"dense_act_fn": "gelu_new", "n_positions": 512})
    assert not config.scaled_head and not config.tie_word_embeddings
    assert config.gated and config.activation == "gelu_new"
    # transformers 5 says the same in other words
    values |= {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    assert with_tying(from_hf(values), False) == config


def test_modernbert_as_transformers_4_wrote_it():
    flat = {"global_rope_theta": 7.0, "local_rope_theta": None, "global_attn_every_n_layers": 4}
    config = from_hf({"model_type": "modernbert", **flat})
    assert (config.global_rope_theta, config.local_rope_theta) == (7.0, 7.0)
    assert config.global_attn_every_n_layers == 4


LAYERS = ["full_attention", "sliding_attention", "sliding_attention"]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"model_type": "xlnet"}, "model_type = 'xlnet' is not supported; known: t5, modernbert"),
        ({"model_type": "gpt2", "embd_pdrop": 0.3}, "embd_pdrop = 0.3 is not supported; here it"),
        ({"model_type": "gpt2", "scale_attn_weights": False}, "scale_attn_weights = False is not"),
        ({"model_type": "gemma3"}, "a gemma3 without text_config"),
        ({"model_type": "bert", "hidden_act": "mish"}, "hidden_act = 'mish': Input should be"),
        ({"model_type": "bert", "hidden_size": 30}, "hidden_size 30 does not divide by"),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder = True is not supported"),
        (
            {"model_type": "bert", "position_embedding_type": "relative_key"},
            "position_embedding_type = 'relative_key' is not supported",
        ),
        ({"model_type": "t5", "feed_forward_proj": "gated-mish"}, "feed_forward_proj"),
        (
            {
                "model_type": "modernbert",
                "layer_types": [*LAYERS, "sliding_attention", *LAYERS[:1]],
            },
            None,
        ),
        ({"model_type": "modernbert", "layer_types": LAYERS[::-1]}, "layer_types is no regular"),
        (
            {"model_type": "modernbert", "rope_scaling": {"factor": 2}},
            "rope_scaling = {'factor': 2} is not supported",
        ),
        (
            {
                "model_type": "modernbert",
                "rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2}},
            },
            "rope_parameters.full_attention = {'rope_type': 'yarn'",
        ),
    ],
)
def test_what_cannot_be_represented_is_refused(values, message):
    if message is None:
        assert from_hf(values).global_attn_every_n_layers == 4
        return
    with pytest.raises(UserError, match=message.replace("{", r"\{")):
        from_hf(values)
