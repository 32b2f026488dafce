"""Model FLOPs of a training step and the peak rates of devices: the two halves of MFU.

The rule, the same for every model: the matrix products of the forward pass, 2 FLOPs a multiply-add,
times 3 for forward and backward. Attention counts the pairs of query and key that the model can
see: all of them in encoders and cross-attention, the lower triangle in decoders' own attention, the
window in local and sliding layers. The vocabulary product counts at predicted positions only.
Not counted: embedding look-ups, norms, softmax, the optimizer, rematerialisation, padding of the
vocabulary, and what note boundaries hide. `cost_analysis()` would not do: it counts a scanned body
once.
"""

import functools
import logging
import time

import jax
import jax.numpy as jnp

from medjax.models.config import (
    BertConfig,
    DecoderConfig,
    ModelConfig,
    ModernBertConfig,
    T5Config,
)
from medjax.objectives.config import CausalLmConfig, ObjectiveConfig, SpanCorruptionConfig
from medjax.objectives.span_corruption import plan_spans

log = logging.getLogger(__name__)

BACKWARD_AND_FORWARD = 3


def train_flops(model: ModelConfig, objective: ObjectiveConfig) -> float:
    """FLOPs of forward and backward for one example (one row of the batch)."""
    if isinstance(objective, SpanCorruptionConfig):
        plan = plan_spans(
            objective.inputs_length, objective.noise_density, objective.mean_span_length
        )
        forward = t5_flops(model, plan.inputs_length, plan.targets_length)
    elif isinstance(objective, CausalLmConfig):
        forward = decoder_flops(model, objective.sequence_length)
    else:
        length = objective.sequence_length
        forward = encoder_flops(model, length, round(objective.mask_rate * length))
    return BACKWARD_AND_FORWARD * forward


def forward_flops(model: ModelConfig, tokens_in: int, tokens_out: int) -> float:
    """FLOPs of reading a text and writing (T5, decoders) or filling in (encoders) an answer."""
    if isinstance(model, T5Config):
        return t5_flops(model, tokens_in, tokens_out)
    if isinstance(model, DecoderConfig):
        return decoder_answer_flops(model, tokens_in, tokens_out)
    return encoder_flops(model, tokens_in, tokens_out)


def t5_flops(config: T5Config, inputs_length: int, targets_length: int) -> float:
    """Forward FLOPs of one example with a prediction at every target position."""
    s, t = inputs_length, targets_length
    attention = config.num_heads * config.d_kv
    square = 2 * config.d_model * attention  # one of the q, k, v, o projections, for a token
    feed_forward = 2 * config.d_model * config.d_ff * (3 if config.gated else 2)
    pair = 4 * attention  # score and weighted sum
    encoder_layer = s * (4 * square + feed_forward) + s * s * pair
    decoder_layer = t * (4 * square + feed_forward) + _triangle(t) * pair
    cross_attention = (2 * t + 2 * s) * square + t * s * pair
    return (
        config.num_layers * encoder_layer
        + config.decoder_layers * (decoder_layer + cross_attention)
        + t * 2 * config.d_model * config.vocab_size
    )


def encoder_flops(config: BertConfig | ModernBertConfig, length: int, predictions: int) -> float:
    """Forward FLOPs of one example of masked language modelling."""
    width, layers = config.hidden_size, config.num_hidden_layers
    modern = isinstance(config, ModernBertConfig)
    projections = 4 * 2 * width * width
    feed_forward = 2 * width * config.intermediate_size * (3 if modern else 2)
    pairs = layers * length * length
    if modern:
        every, half = config.global_attn_every_n_layers, config.local_attention // 2
        num_global = -(-layers // every)
        pairs = num_global * length * length + (layers - num_global) * _band(length, half)
    head = 2 * width * width + 2 * width * config.vocab_size
    return layers * length * (projections + feed_forward) + pairs * 4 * width + predictions * head


def decoder_flops(config: DecoderConfig, length: int) -> float:
    """Forward FLOPs of one example with a prediction at every position."""
    return decoder_answer_flops(config, 0, length)


def decoder_answer_flops(config: DecoderConfig, prompt: int, answer: int) -> float:
    """Forward FLOPs of a prompt and its answer, whose tokens alone are predicted."""
    length = prompt + answer
    width, size, layers = config.hidden_size, config.head_size, config.num_hidden_layers
    heads = 2 * config.num_attention_heads + 2 * config.key_value_heads  # q and o, k and v
    projections = 2 * width * size * heads
    feed_forward = (2 if config.is_gpt2 else 3) * 2 * width * config.intermediate_size
    pairs = 0
    for layer in range(layers):
        is_global = config.pattern[layer % len(config.pattern)]
        window = length if is_global else min(config.sliding_window, length)
        pairs += _triangle(window) + (length - window) * window
    pair = 4 * config.num_attention_heads * size
    head = 2 * width * config.vocab_size
    return layers * length * (projections + feed_forward) + pairs * pair + answer * head


def _triangle(length: int) -> int:
    """Pairs of a query and a key not after it."""
    return length * (length + 1) // 2


def _band(length: int, half: int) -> int:
    """Pairs of a query and a key at most `half` positions away."""
    half = min(half, length - 1)
    return length * (2 * half + 1) - half * (half + 1)


# Dense bfloat16 FLOP/s of one JAX device, by the beginning of its `device_kind`; the first match
# counts. TPU: "System architecture" pages of cloud.google.com/tpu/docs, whose figures are for a
# chip; v2, v3 and 7x show the two halves of a chip as two devices. NVIDIA: the data sheets' tensor
# core figures without sparsity.
DATA_SHEET = {
    "TPU v2": 45e12 / 2,
    "TPU v3": 123e12 / 2,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v6": 918e12,  # v6e
    "TPU7x": 2307e12 / 2,
    "NVIDIA A100": 312e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 149.7e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "NVIDIA RTX A6000": 154.8e12,
    "NVIDIA RTX 6000 Ada": 364.2e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 3090": 71e12,
}


def peak_flops(device: jax.Device, dtype: str = "bfloat16") -> float:
    """FLOP/s that `device` could do at most: what MFU is measured against.

    By the data sheet, in bfloat16 whatever the type of the computation. Where there is none (CPU),
    the rate of a large product in `dtype` on this machine, shared out over its devices: said in the
    log, and not comparable between machines.
    """
    for kind, rate in DATA_SHEET.items():
        if device.device_kind.startswith(kind):
            return rate
    rate = measured_peak(dtype)
    log.info(
        "mfu is relative to a product of %s matrices measured here: %.0f GFLOP/s", dtype, rate / 1e9
    )
    return rate / jax.local_device_count()


@functools.cache
def measured_peak(dtype: str, size: int = 1024, seconds: float = 0.25) -> float:
    """FLOP/s of the fastest of the products of two square matrices made within `seconds`."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
