"""Reference values from transformers' torch models, for the parity tests of every family.

    python scripts/make_fixtures.py       # needs torch; rewrites tests/fixtures/*.safetensors

Each case is a tiny model with random weights, exact in float16, that turns some options of its
family away from the defaults. A file holds the weights under transformers' names, the inputs, final
states, logits, loss, all gradients, and the logits after one step of AdamW. With torch installed
the tests also call `reference` on `random_case`s of their own.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
BATCH, LENGTH, TARGET_LENGTH = 2, 20, 9
ADAMW = {
    "lr": 0.01,
    "eps": 1e-3,
    "weight_decay": 0.1,
}  # a large eps: the step does not amplify noise

T5 = {
    "model_type": "t5",
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 3,
    "dropout_rate": 0.1,
}
BERT = {
    "model_type": "bert",
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
ROBERTA = {**BERT, "model_type": "roberta", "type_vocab_size": 1, "pad_token_id": 1}
MEGATRON = {**BERT, "model_type": "megatron-bert"}
MODERNBERT = {
    "model_type": "modernbert",
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "local_attention": 6,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
CAUSAL = ("ForCausalLM", "LMHeadModel")
LLAMA = {
    "model_type": "llama",
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MISTRAL = {**LLAMA, "model_type": "mistral", "head_dim": 6, "sliding_window": 5}
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 6}
GEMMA3 = {
    **LLAMA,
    "model_type": "gemma3_text",
    "head_dim": 6,
    "num_hidden_layers": 5,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "query_pre_attn_scalar": 20,
    "tie_word_embeddings": True,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 99,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA3["layer_types"] = GEMMA3["layer_types"][:5]
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
BUCKETS = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
ROPE = {
    "full_attention": {"rope_type": "default", "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
# name: (transformers' class, whether a T5's head is its own table, configuration)
CASES: dict[str, tuple[str, bool, dict]] = {
    "t5_v1_0": ("T5ForConditionalGeneration", False, T5),
    "t5_v1_1": (
        "T5ForConditionalGeneration",
        True,
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "t5_tied_unscaled": (
        "T5ForConditionalGeneration",
        False,
        {
            **T5,
            **BUCKETS,
            "feed_forward_proj": "gated-silu",
            "tie_word_embeddings": False,
            "num_decoder_layers": 3,
        },
    ),
    "t5_encoder": ("T5EncoderModel", False, {**T5, "feed_forward_proj": "gelu"}),
    "bert": ("BertForMaskedLM", False, BERT),
    "bert_untied": (
        "BertForMaskedLM",
        False,
        {**BERT, "tie_word_embeddings": False, "hidden_act": "gelu_new", "type_vocab_size": 3},
    ),
    "bert_pooler": ("BertModel", False, {**BERT, "hidden_act": "relu", "layer_norm_eps": 1e-3}),
    "roberta": ("RobertaForMaskedLM", False, {**ROBERTA, "hidden_act": "silu"}),
    "roberta_untied": (
        "RobertaForMaskedLM",
        False,
        {**ROBERTA, "tie_word_embeddings": False, "type_vocab_size": 2, "pad_token_id": 3},
    ),
    "megatron": ("MegatronBertForMaskedLM", False, MEGATRON),
    "megatron_model": ("MegatronBertModel", False, {**MEGATRON, "hidden_act": "relu"}),
    "modernbert": ("ModernBertForMaskedLM", False, MODERNBERT),
    "modernbert_options": (
        "ModernBertForMaskedLM",
        False,
        {
            **MODERNBERT,
            **BIASES,
            "rope_parameters": ROPE,
            "global_attn_every_n_layers": 2,
            "num_hidden_layers": 4,
            "hidden_activation": "silu",
            "classifier_activation": "relu",
            "tie_word_embeddings": False,
            "local_attention": 10,
        },
    ),
    "modernbert_model": (
        "ModernBertModel",
        False,
        {**MODERNBERT, "global_attn_every_n_layers": 4, "norm_eps": 1e-3},
    ),
    "llama": ("LlamaForCausalLM", False, {**LLAMA, "rope_parameters": LLAMA3}),
    "llama_options": (
        "LlamaForCausalLM",
        False,
        {
            **LLAMA,
            "num_key_value_heads": 4,
            "head_dim": 10,
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_act": "gelu",
            "tie_word_embeddings": True,
        },
    ),
    "llama_model": ("LlamaModel", False, {**LLAMA, "num_key_value_heads": 1}),
    "mistral": ("MistralForCausalLM", False, MISTRAL),
    "qwen3": ("Qwen3ForCausalLM", False, {**QWEN3, "tie_word_embeddings": True}),
    "qwen3_bias": ("Qwen3ForCausalLM", False, {**QWEN3, "attention_bias": True}),
    "gemma3": ("Gemma3ForCausalLM", False, GEMMA3),
    "gemma3_options": (
        "Gemma3ForCausalLM",
        False,
        {**GEMMA3, "rope_parameters": GEMMA_ROPE, "attention_bias": True, "sliding_window": 3},
    ),
    "gpt2": ("GPT2LMHeadModel", False, GPT2),
    "gpt2_options": (
        "GPT2LMHeadModel",
        False,
        {
            **GPT2,
            "n_inner": 40,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-3,
            "scale_attn_by_inverse_layer_idx": True,
            "tie_word_embeddings": False,
        },
    ),
}


def random_case(seed: int) -> tuple[str, bool, dict]:
    """A case that draws every option of one family at random."""
    draw = random.Random(seed)
    flag = lambda: draw.random() < 0.5  # noqa: E731
    heads = draw.choice([1, 2, 4])
    family = draw.choice(["t5", "bert", "roberta", "megatron-bert", "modernbert"])
    activation = draw.choice(["relu", "gelu", "gelu_new", "silu", "gelu_pytorch_tanh"])
    if family == "t5":
        config = {
            **T5,
            "num_layers": draw.randint(1, 3),
            "num_decoder_layers": draw.randint(1, 3),
            "num_heads": heads,
            "d_kv": draw.choice([4, 8, 12]),
            "feed_forward_proj": draw.choice(
                ["relu", "gelu", "gelu_new", "silu", "gated-gelu", "gated-relu", "gated-silu"]
            ),
            "relative_attention_num_buckets": draw.choice([8, 16, 32]),
            "relative_attention_max_distance": draw.choice([17, 20, 128]),
            "tie_word_embeddings": flag(),
        }
        own_head = not config["tie_word_embeddings"] and flag()
        return draw.choice(["T5ForConditionalGeneration", "T5EncoderModel"]), own_head, config
    common = {"num_attention_heads": heads, "tie_word_embeddings": flag()}
    if family == "modernbert":
        config = {
            **MODERNBERT,
            **common,
            **{name: flag() for name in (*BIASES, "decoder_bias")},
            "num_hidden_layers": draw.randint(2, 7),
            "global_attn_every_n_layers": draw.randint(1, 4),
            "local_attention": draw.choice([2, 4, 8, 16]),
            "hidden_activation": activation,
            "rope_parameters": ROPE if flag() else None,
        }
        return draw.choice(["ModernBertForMaskedLM", "ModernBertModel"]), False, config
    base = {"bert": BERT, "roberta": ROBERTA, "megatron-bert": MEGATRON}[family]
    name = {"bert": "Bert", "roberta": "Roberta", "megatron-bert": "MegatronBert"}[family]
    config = {
        **base,
        **common,
        "hidden_act": activation,
        "type_vocab_size": draw.randint(1, 3),
        "layer_norm_eps": draw.choice([1e-12, 1e-5, 1e-3]),
        "pad_token_id": draw.choice([0, 1, 3]),
    }
    return f"{name}{draw.choice(['ForMaskedLM', 'Model'])}", False, config


def reference(architecture: str, own_head: bool, config: dict, seed: int) -> tuple[dict, dict]:
    """Runs a case in torch: (arrays by name, facts to keep beside them)."""
    import torch

    torch.manual_seed(seed)
    model = _random_model(architecture, own_head, config)
    inputs, labels = _inputs(config, architecture, seed)
    arrays: dict[str, Any] = {f"input.{name}": value for name, value in inputs.items()}
    arrays |= {f"weight.{k}": v.to(torch.float16) for k, v in _stored(model).items()}
    output = model(**inputs, **({} if labels is None else {"labels": labels}), **_WANTED)
    arrays["hidden"] = _final_states(output)
    if "T5For" in architecture:
        arrays["encoded"] = output.encoder_last_hidden_state
    if getattr(output, "pooler_output", None) is not None:
        arrays["pooled"] = output.pooler_output
    if labels is not None:
        arrays |= {"labels": labels, "logits": output.logits, "loss": output.loss}
        optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
        output.loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        arrays |= {f"gradient.{name}": value for name, value in gradients.items()}
        optimizer.step()
        arrays["logits_after_step"] = model(**inputs).logits
    arrays = {k: v.detach().clone().contiguous().numpy() for k, v in arrays.items()}
    facts = {"config": model.config.to_dict(), "architecture": architecture}
    return arrays, facts


_WANTED = {"output_hidden_states": True, "return_dict": True}


def _random_model(architecture: str, own_head: bool, config: dict):
    """A model whose weights, norms and biases too, are random, and exact in float16."""
    import torch
    import transformers

    values = dict(config)
    configuration = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    configuration._attn_implementation = "eager"
    model = getattr(transformers, architecture)(configuration).eval()
    if own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "norm" in name.lower() or ".ln" in name
            noise = torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else 0.15)
            base = float(is_norm and name.endswith("weight"))
            parameter.copy_((base + noise).to(torch.float16).float())
    return model


def _inputs(config: dict, architecture: str, seed: int) -> tuple[dict, Any]:
    """Two rows, the second one padded on the right; labels at about half of the tokens."""
    import torch

    numbers = np.random.default_rng(seed)
    pad = config.get("pad_token_id", 0)

    def ids(length, real):
        tokens = numbers.integers(4, config["vocab_size"], (BATCH, length))
        mask = np.arange(length)[None] < np.array([[length], [real]])
        return np.where(mask, tokens, pad), mask.astype(np.int64)

    tokens, mask = ids(LENGTH, LENGTH - 6)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if "bert" in config["model_type"] and config["model_type"] != "modernbert":
        types = numbers.integers(0, config.get("type_vocab_size", 2), tokens.shape)
        inputs["token_type_ids"] = types
    if "T5For" in architecture:
        decoder, mask = ids(TARGET_LENGTH, TARGET_LENGTH - 3)
        inputs |= {"decoder_input_ids": decoder, "decoder_attention_mask": mask}
        tokens = decoder
    labels = numbers.integers(4, config["vocab_size"], tokens.shape)
    labels = np.where((mask == 1) & (numbers.random(tokens.shape) < 0.5), labels, -100)
    has_head = "LM" in architecture or "T5For" in architecture
    if architecture.endswith(CAUSAL):  # transformers moves labels by one place itself
        labels[:, 0] = -100
    inputs = {name: torch.from_numpy(value) for name, value in inputs.items()}
    return inputs, torch.from_numpy(labels) if has_head else None


def _stored(model) -> dict:
    """The tensors that `save_pretrained` would store."""
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    return remove_tied_weights_from_state_dict(model.state_dict(), model)


def _final_states(output):
    if getattr(output, "decoder_hidden_states", None) is not None:
        return output.decoder_hidden_states[-1]
    if getattr(output, "last_hidden_state", None) is not None:
        return output.last_hidden_state
    return output.hidden_states[-1]


def main() -> None:
    """Rewrites all fixtures."""
    from safetensors.numpy import save_file

    FIXTURES.mkdir(parents=True, exist_ok=True)
    for seed, (name, case) in enumerate(CASES.items()):
        arrays, facts = reference(*case, seed)
        path = FIXTURES / f"{name}.safetensors"
        save_file(arrays, path, metadata={k: json.dumps(v) for k, v in facts.items()})
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
