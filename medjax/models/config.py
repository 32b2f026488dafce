"""Model configurations under their Hugging Face names, and how a model is computed.

A schema holds the fields that change the computation, with transformers' names and defaults;
`medjax/hub/config.py` maps them to and from a `config.json`. Nothing here imports JAX.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt

from medjax.config import Schema

Activation = Literal["relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish", "tanh"]
FeedForward = Literal[
    "relu", "gelu", "gelu_new", "silu", "gated-relu", "gated-gelu", "gated-gelu_new", "gated-silu"
]
Rate = Annotated[float, Field(ge=0, lt=1)]


class T5Config(Schema):
    """T5 v1.0 (the defaults), v1.1 and Flan (gated-gelu and an untied, unscaled head)."""

    model_type: Literal["t5"] = "t5"
    """Family of the model."""
    vocab_size: PositiveInt = 32128
    """Rows of the embedding; more than the tokenizer's ids is allowed."""
    d_model: PositiveInt = 512
    """Width of the hidden states."""
    d_kv: PositiveInt = 64
    """Width of one attention head."""
    d_ff: PositiveInt = 2048
    """Width of the feed-forward layers."""
    num_layers: PositiveInt = 6
    """Encoder layers."""
    num_decoder_layers: PositiveInt | None = None
    """Decoder layers; none: as many as in the encoder."""
    num_heads: PositiveInt = 8
    """Attention heads."""
    relative_attention_num_buckets: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    """Buckets of the relative position bias."""
    relative_attention_max_distance: PositiveInt = 128
    """Distance in tokens from which on all positions share a bucket."""
    dropout_rate: Rate = 0.1
    """Dropout everywhere: embeddings, attention weights, feed-forward layers, residuals."""
    layer_norm_epsilon: PositiveFloat = 1e-6
    """Added to the mean square in RMS norm."""
    initializer_factor: PositiveFloat = 1.0
    """Multiplies the standard deviation of every initial weight."""
    feed_forward_proj: FeedForward = "relu"
    """Activation, with `gated-` for a gated linear unit; gated-gelu is T5's tanh form."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding table."""
    scale_decoder_outputs: bool | None = None
    """Whether decoder states are multiplied by d_model**-0.5 before the head; none: if tied."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> T5Config:
        least = self.relative_attention_num_buckets // 2
        if self.relative_attention_max_distance <= least:
            raise ValueError(
                f"relative_attention_max_distance {self.relative_attention_max_distance} must be "
                f"above half of the relative_attention_num_buckets, {least}; raise it"
            )
        return self

    @property
    def decoder_layers(self) -> int:
        """Number of decoder layers."""
        return self.num_decoder_layers or self.num_layers

    @property
    def scaled_head(self) -> bool:
        """Whether decoder states are scaled before the head."""
        scale = self.scale_decoder_outputs
        return self.tie_word_embeddings if scale is None else scale

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers are gated linear units."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> Activation:
        """The feed-forward activation; `gated-gelu` means the tanh form, `gelu` the exact one."""
        if self.feed_forward_proj == "gated-gelu":
            return "gelu_new"
        return self.feed_forward_proj.removeprefix("gated-")

    @property
    def max_length(self) -> None:
        """Longest input in tokens: T5's positions are relative, so there is no limit."""
        return None


_BERT_DEFAULTS = {  # where transformers' class defaults differ from those of BERT
    "roberta": {"vocab_size": 50265, "pad_token_id": 1},
    "megatron-bert": {
        "vocab_size": 29056,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}


class BertConfig(Schema):
    """BERT, RoBERTa and Megatron-BERT (GatorTron); defaults are those of each in transformers."""

    model_type: Literal["bert", "roberta", "megatron-bert"] = "bert"
    """Family: post-norm BERT; RoBERTa (positions from pad_token_id + 1 on); pre-norm Megatron."""
    vocab_size: PositiveInt = 30522
    """Rows of the embedding; more than the tokenizer's ids is allowed."""
    hidden_size: PositiveInt = 768
    """Width of the hidden states."""
    num_hidden_layers: PositiveInt = 12
    """Layers."""
    num_attention_heads: PositiveInt = 12
    """Attention heads; must divide hidden_size."""
    intermediate_size: PositiveInt = 3072
    """Width of the feed-forward layers."""
    hidden_act: Activation = "gelu"
    """Activation of the feed-forward layers (and of the masked-LM head, but in RoBERTa)."""
    hidden_dropout_prob: Rate = 0.1
    """Dropout of embeddings and residuals."""
    attention_probs_dropout_prob: Rate = 0.1
    """Dropout of attention weights."""
    max_position_embeddings: PositiveInt = 512
    """Rows of the position table; RoBERTa uses all but the first pad_token_id + 1."""
    type_vocab_size: PositiveInt = 2
    """Token types (segments A and B)."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial weights."""
    layer_norm_eps: PositiveFloat = 1e-12
    """Added to the variance in layer norm."""
    pad_token_id: Annotated[int, Field(ge=0)] = 0
    """Id of padding; RoBERTa derives positions from it."""
    tie_word_embeddings: bool = True
    """Whether the masked-LM head's table is the embedding table."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _family_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {**_BERT_DEFAULTS.get(str(values.get("model_type")), {}), **values}
        return values

    @pydantic.model_validator(mode="after")
    def _check(self) -> BertConfig:
        _check_heads(self.hidden_size, self.num_attention_heads)
        if self.max_length < 1:
            raise ValueError(
                f"max_position_embeddings {self.max_position_embeddings} leaves no position after "
                f"the {self.pad_token_id + 1} that RoBERTa reserves; raise it"
            )
        return self

    @property
    def position_offset(self) -> int:
        """Row of the position table that belongs to the first token."""
        return self.pad_token_id + 1 if self.model_type == "roberta" else 0

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.max_position_embeddings - self.position_offset


class ModernBertConfig(Schema):
    """ModernBERT: rotary positions, alternating local and global attention, gated GELU."""

    model_type: Literal["modernbert"] = "modernbert"
    """Family of the model."""
    vocab_size: PositiveInt = 50368
    """Rows of the embedding; more than the tokenizer's ids is allowed."""
    hidden_size: PositiveInt = 768
    """Width of the hidden states."""
    intermediate_size: PositiveInt = 1152
    """Width of the gated feed-forward layers (of each half)."""
    num_hidden_layers: Annotated[int, Field(ge=2)] = 22
    """Layers."""
    num_attention_heads: PositiveInt = 12
    """Attention heads; must divide hidden_size."""
    hidden_activation: Activation = "gelu"
    """Activation inside the gated feed-forward layers."""
    max_position_embeddings: PositiveInt = 8192
    """Longest input in tokens."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial weights; of output projections / sqrt(2 layers)."""
    initializer_cutoff_factor: PositiveFloat = 2.0
    """Initial weights are cut off at this many standard deviations."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the variance in layer norm."""
    norm_bias: bool = False
    """Biases in the norms."""
    attention_bias: bool = False
    """Biases in the attention projections."""
    attention_dropout: Rate = 0.0
    """Dropout of attention weights and of the attention's output."""
    embedding_dropout: Rate = 0.0
    """Dropout of the embeddings."""
    mlp_bias: bool = False
    """Biases in the feed-forward layers."""
    mlp_dropout: Rate = 0.0
    """Dropout inside the feed-forward layers."""
    decoder_bias: bool = True
    """A bias for each vocabulary entry in the masked-LM head."""
    classifier_bias: bool = False
    """A bias in the dense layer of the masked-LM head."""
    classifier_activation: Activation = "gelu"
    """Activation in the masked-LM head."""
    local_attention: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    """Window of local layers: a token sees half of it to either side."""
    global_attn_every_n_layers: PositiveInt = 3
    """Layers 0, n, 2n, ... attend to the whole input, the others to the window."""
    global_rope_theta: PositiveFloat = 160_000.0
    """Base of the rotary frequencies in global layers."""
    local_rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary frequencies in local layers."""
    tie_word_embeddings: bool = True
    """Whether the masked-LM head's table is the embedding table."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> ModernBertConfig:
        _check_heads(self.hidden_size, self.num_attention_heads)
        if self.hidden_size // self.num_attention_heads % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} / num_attention_heads {self.num_attention_heads} "
                "is odd, but rotary positions need pairs; change one of the two"
            )
        return self

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.max_position_embeddings


_DECODER_DEFAULTS = {  # where transformers' class defaults differ from those of Llama
    "mistral": {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen3": {
        "vocab_size": 151_936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
    },
    "gemma3_text": {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window": 4096,
        "global_attn_every_n_layers": 6,
        "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "vocab_size": 50257,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "attention_bias": True,
        "mlp_bias": True,
        "attention_dropout": 0.1,
        "hidden_dropout": 0.1,
        "tie_word_embeddings": True,
    },
}


class RopeScaling(Schema):
    """Rotary frequencies for texts longer than those first trained on."""

    rope_type: Literal["llama3", "linear"]
    """llama3: low frequencies are divided, high ones stay; linear: all are divided."""
    factor: PositiveFloat
    """What they are divided by."""
    low_freq_factor: PositiveFloat = 1.0
    """llama3: fewer turns than this within the original length are divided whole."""
    high_freq_factor: PositiveFloat = 4.0
    """llama3: more turns than this stay."""
    original_max_position_embeddings: PositiveInt = 8192
    """llama3: tokens first trained on."""


DECODERS = ("llama", "mistral", "qwen3", "gemma3_text", "gpt2")


class DecoderConfig(Schema):
    """Llama 3, Mistral, Qwen3, Gemma 3 (text), GPT-2; defaults are those of transformers."""

    model_type: Literal["llama", "mistral", "qwen3", "gemma3_text", "gpt2"] = "llama"
    """Family."""
    vocab_size: PositiveInt = 32000
    """Rows of the embedding; more than the tokenizer's ids is allowed."""
    hidden_size: PositiveInt = 4096
    """Width of the hidden states."""
    intermediate_size: PositiveInt = 11008
    """Width of the feed-forward layers, which are gated but in GPT-2."""
    num_hidden_layers: PositiveInt = 32
    """Layers."""
    num_attention_heads: PositiveInt = 32
    """Attention heads."""
    num_key_value_heads: PositiveInt | None = None
    """Heads of keys and values, each shared by a group of queries; none: as many as queries."""
    head_dim: PositiveInt | None = None
    """Width of a head; none: hidden_size / num_attention_heads."""
    hidden_act: Activation = "silu"
    """Activation inside the gated feed-forward layers."""
    max_position_embeddings: PositiveInt = 2048
    """Longest input in tokens."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial weights."""
    rms_norm_eps: PositiveFloat = 1e-6
    """Added to the mean square in RMS norm, or the variance in GPT-2's layer norm."""
    attention_bias: bool = False
    """Biases in the attention projections."""
    attention_dropout: Rate = 0.0
    """Dropout of attention weights."""
    hidden_dropout: Rate = 0.0
    """Dropout of embeddings and of what sublayers give."""
    scale_attn_by_inverse_layer_idx: bool = False
    """Whether scores are divided by the layer's number, from 1 (BioMedLM)."""
    mlp_bias: bool = False
    """Biases in the feed-forward layers."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary frequencies (of global layers)."""
    rope_local_base_freq: PositiveFloat | None = None
    """Base of the rotary frequencies in sliding layers, where it is another."""
    rope_scaling: RopeScaling | None = None
    """Of the rotary frequencies (of global layers)."""
    sliding_window: Annotated[int, Field(ge=1)] | None = None
    """Tokens that a sliding layer sees, its own included; none: all layers see all before them."""
    global_attn_every_n_layers: PositiveInt | None = None
    """With a window: layers n-1, 2n-1, ... see all before them; none: all layers slide."""
    query_pre_attn_scalar: PositiveInt | None = None
    """Scores are divided by its root; none: by that of the head's width."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding table."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _family_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {**_DECODER_DEFAULTS.get(str(values.get("model_type")), {}), **values}
        return values

    @pydantic.model_validator(mode="after")
    def _check(self) -> DecoderConfig:
        if self.head_dim is None:
            _check_heads(self.hidden_size, self.num_attention_heads)
        if self.head_size % 2:
            raise ValueError(f"head_dim {self.head_size} is odd, but rotary positions need pairs")
        if self.num_attention_heads % self.key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} does not divide by "
                f"num_key_value_heads {self.key_value_heads}; change one"
            )
        return self

    @property
    def is_gemma(self) -> bool:
        """Norms counted from one, norms after sublayers, scaled embeddings."""
        return self.model_type == "gemma3_text"

    @property
    def is_gpt2(self) -> bool:
        """Layer norm, learnt positions, feed-forward layers without a gate, biases everywhere."""
        return self.model_type == "gpt2"

    @property
    def norms_heads(self) -> bool:
        """Whether queries and keys of each head are normed."""
        return self.model_type in ("qwen3", "gemma3_text")

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def attention_scale(self) -> float:
        """What scores are multiplied by, in the first layer."""
        return (self.query_pre_attn_scalar or self.head_size) ** -0.5

    @property
    def pattern(self) -> list[bool]:
        """Whether a layer sees all tokens before it, for the layers of one repetition."""
        if self.sliding_window is None:
            return [True]
        every = self.global_attn_every_n_layers
        return [False] if every is None else [False] * (every - 1) + [True]

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.max_position_embeddings


ModelConfig = Annotated[
    T5Config | BertConfig | ModernBertConfig | DecoderConfig, Field(discriminator="model_type")
]


class Compute(Schema):
    """How a model is run; nothing here changes what it computes beyond rounding."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of activations and matrix products; parameters, norms and softmax stay float32."""
    remat: Literal["none", "full", "dots"] = "none"
    """What the backward pass computes anew in each layer: only what is cheap (norms, activations),
    all of it (least memory), or all but the projections."""
    unroll: PositiveInt | None = None
    """Layers per step of the scan; none: all on CPU (where a scan costs 1.5 to 2 times), else 1."""
    attention: Literal["auto", "xla", "blocks"] = "auto"
    """Whole score matrices (xla) or one block of queries at a time; auto: above 1,024 tokens
    blocks, on TPU the splash kernel."""


class LoraConfig(Schema):
    """Low-rank adaptation: pairs of small matrices are trained in the place of the backbone."""

    rank: int | None = Field(None, ge=1)
    """Columns of the first, rows of the second matrix; by default 8, of decoders 32."""
    alpha: float | None = Field(None, gt=0)
    """Their product counts alpha / rank; by default twice the default rank."""
    targets: Literal["all"] | Annotated[list[str], Field(min_length=1)] | None = None
    """Projections of the layers: q, k, v, o, up, down (gated ones also gate; ModernBERT qkv, o,
    gate_up, down; GPT-2 qkv); by default q and v, of decoders all."""

    def for_family(self, model_type: str) -> Self:
        """With the family's values in the place of what is left open."""
        own = {"rank": 8, "alpha": 16.0, "targets": ["q", "v"]}
        if model_type in DECODERS:  # Ferrazzi et al. 2026
            own = {"rank": 32, "alpha": 64.0, "targets": "all"}
        return type(self)(**(own | {name: value for name, value in self if value is not None}))


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(
            f"hidden_size {width} does not divide by num_attention_heads {heads}; change one"
        )
