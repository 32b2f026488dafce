"""Analytic FLOPs against XLA's own count, published figures, and counts by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from medjax.models.config import BertConfig, Compute, DecoderConfig, ModernBertConfig, T5Config
from medjax.models.model import build_model, logits
from medjax.models.spec import abstract_params
from medjax.objectives.config import MaskedLmConfig, SpanCorruptionConfig
from medjax.training import flops
from medjax.training.flops import (
    decoder_flops,
    encoder_flops,
    measured_peak,
    peak_flops,
    t5_flops,
    train_flops,
)

SOURCE, TARGET, PREDICTIONS = 160, 48, 24
SMALL = dict(vocab_size=2048, hidden_size=256, num_attention_heads=4, intermediate_size=512)
T5_SHAPE = dict(vocab_size=2048, d_model=256, d_kv=32, d_ff=512, num_heads=6, num_layers=3)


def _ids(length):
    return jax.ShapeDtypeStruct((1, length), jnp.int32)


def _xla_flops(config, batch, predictions):
    """XLA's count for the gradient of a loss, layers unrolled (a scan's body is counted once)."""
    model = build_model(config, Compute(dtype="float32", attention="xla", unroll=8))

    def loss(params, batch):
        hidden = model.hidden(params, batch)[:, :predictions]
        scores = logits(model.head(params, hidden), config.vocab_size)
        return jnp.sum(jax.nn.logsumexp(scores, -1) - scores[..., 0])

    lowered = jax.jit(jax.grad(loss)).lower(abstract_params(model.specs), batch)
    return lowered.cost_analysis()["flops"]


@pytest.mark.parametrize("activation", ["relu", "gated-gelu"])
def test_t5_equals_xla(activation):
    config = T5Config(
        **T5_SHAPE,
        num_decoder_layers=2,
        feed_forward_proj=activation,
        tie_word_embeddings=activation == "relu",
    )
    batch = {"input_ids": _ids(SOURCE), "decoder_input_ids": _ids(TARGET)}
    counted = _xla_flops(config, batch, TARGET)
    assert 3 * t5_flops(config, SOURCE, TARGET) == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SMALL, num_hidden_layers=3),
        # A window as wide as the input: XLA makes all scores of local layers and hides some.
        ModernBertConfig(**SMALL, num_hidden_layers=4, local_attention=2 * SOURCE),
    ],
    ids=lambda config: config.model_type,
)
def test_encoders_equal_xla(config):
    counted = _xla_flops(config, {"input_ids": _ids(SOURCE)}, PREDICTIONS)
    # XLA also counts what the rule leaves out, such as the products that sum up biases on CPU.
    assert 3 * encoder_flops(config, SOURCE, PREDICTIONS) == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig(**SMALL, num_hidden_layers=3, num_key_value_heads=2),
        DecoderConfig(
            **SMALL, num_hidden_layers=3, num_key_value_heads=4, head_dim=32, model_type="qwen3"
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_decoders_equal_xla(config):
    counted = _xla_flops(config, {"input_ids": _ids(SOURCE)}, SOURCE)
    hidden = SOURCE * (SOURCE - 1) // 2  # XLA makes all scores and hides those of later tokens
    pair = 4 * config.num_attention_heads * config.head_size
    ours = decoder_flops(config, SOURCE) + config.num_hidden_layers * hidden * pair
    assert 3 * ours == pytest.approx(counted, rel=0.05)


def test_sliding_layers_count_the_window():
    shape = {"num_hidden_layers": 6, "sliding_window": 64, "global_attn_every_n_layers": 3}
    config = DecoderConfig(**SMALL, **shape)
    pairs = sum(0 <= i - j < 64 for i in range(200) for j in range(200))
    whole = decoder_flops(DecoderConfig(**SMALL, num_hidden_layers=6), 200)
    missing = 4 * (200 * 201 // 2 - pairs) * 4 * SMALL["hidden_size"]
    assert whole - decoder_flops(config, 200) == missing


T5_V1_1 = {  # d_model, d_ff, layers, heads, TFLOP for 512 inputs and 128 targets (JAX-Toolbox)
    "small": (512, 1024, 8, 6, 0.110),
    "base": (768, 2048, 12, 12, 0.437),
    "large": (1024, 2816, 24, 16, 1.50),
    "xl": (2048, 5120, 24, 32, 5.47),
    "xxl": (4096, 10240, 24, 64, 21.4),
}


def _t5_v1_1(size):
    width, inner, layers, heads, _ = T5_V1_1[size]
    return T5Config(
        vocab_size=32128,
        d_model=width,
        d_ff=inner,
        num_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )


@pytest.mark.parametrize("size", T5_V1_1)
def test_t5_v1_1_equals_published_figures(size):
    tera = 3 * t5_flops(_t5_v1_1(size), 512, 128) / 1e12
    assert tera == pytest.approx(T5_V1_1[size][-1], rel=0.005)


def test_an_example_of_each_objective():
    example = train_flops(_t5_v1_1("base"), SpanCorruptionConfig())
    assert example / 1e12 == pytest.approx(0.425, rel=0.002)  # nanoT5: 512 inputs, 114 targets
    masked = MaskedLmConfig(sequence_length=128, mask_rate=0.3)
    assert train_flops(BertConfig(), masked) == 3 * encoder_flops(BertConfig(), 128, 38)


def test_bert_base_by_hand():
    layer = 512 * 2 * (4 * 768 * 768 + 2 * 768 * 3072) + 4 * 512 * 512 * 768
    head = 77 * 2 * (768 * 768 + 768 * 30522)
    assert encoder_flops(BertConfig(), 512, 77) == 12 * layer + head


@pytest.mark.parametrize("length", [5, 64, 65, 200])
def test_local_layers_count_the_window(length):
    config = ModernBertConfig(num_hidden_layers=6, local_attention=64)
    pairs = sum(abs(i - j) <= 32 for i in range(length) for j in range(length))
    whole = ModernBertConfig(num_hidden_layers=6, local_attention=2 * length)
    hidden = encoder_flops(whole, length, 0) - encoder_flops(config, length, 0)
    assert hidden == 4 * (length * length - pairs) * 4 * 768


def test_the_peak_of_accelerators_is_by_data_sheet():
    kinds = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA L4": 121e12,
        "TPU v5 lite": 197e12,
        "TPU v5": 459e12,
        "TPU v6 lite": 918e12,
        "TPU v3": 61.5e12,
        "TPU7x": 1153.5e12,
    }
    for kind, rate in kinds.items():
        assert peak_flops(SimpleNamespace(device_kind=kind)) == rate


def test_the_peak_of_a_cpu_is_measured_and_labelled(monkeypatch, caplog):
    assert 1e8 < measured_peak("float32", size=256, seconds=0.02) < 1e15
    monkeypatch.setattr(flops, "measured_peak", lambda dtype: 8e9)
    with caplog.at_level("INFO"):
        assert peak_flops(jax.devices()[0], "float32") == 8e9 / jax.local_device_count()
    assert "float32 matrices measured here: 8 GFLOP/s" in caplog.text
