"""Prepared folders of synthetic notes, and configurations small enough to train in seconds."""

from functools import partial
from pathlib import Path

import pytest
import yaml

from medjax.config import load
from medjax.data.config import PrepareConfig, TokenizerConfig
from medjax.data.synthetic import write_notes
from medjax.pretrain import PretrainConfig

VOCABULARY = 600
MODELS = {
    "t5": {
        "model": {
            "model_type": "t5",
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
        },
        "objective": {"kind": "span_corruption", "inputs_length": 32},
        "optimizer": {"name": "adafactor"},
    },
    "bert": {
        "model": {
            "model_type": "bert",
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 32,
        },
        "objective": {"kind": "masked_lm", "sequence_length": 32, "note_attention": "notes"},
        "optimizer": {"name": "adamw", "clip_norm": 1.0},
    },
    "llama": {
        "model": {
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32,
        },
        "objective": {"kind": "causal_lm", "sequence_length": 32, "note_attention": "notes"},
        "optimizer": {"name": "adamw", "clip_norm": 1.0},
    },
}


# A T5's masks take as long to compile as the rest of its step: only for the tests that are about
# them. (BERT has dropout by default.)
DROPOUT = {"t5": ("model.dropout_rate=0.1",), "bert": ()}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Folders of the same synthetic notes, by family: {"t5": ..., "bert": ...}."""
    from medjax import prepare, train_tokenizer

    root = tmp_path_factory.mktemp("prepared")
    write_notes(root / "notes.jsonl", num_patients=30, seed=0)
    source = {"path": str(root / "notes.jsonl"), "id": "id", "patient": "patient"}
    source["name"] = "notes"  # not the path, which another run has another of: the same split
    folders = {}
    for family, kind in {"t5": "unigram", "bert": "wordpiece"}.items():
        tokenizer, output = str(root / f"{family}_tokenizer"), str(root / family)
        common = {"sources": [source], "output": tokenizer}
        train_tokenizer.run(TokenizerConfig(**common, kind=kind, vocab_size=VOCABULARY))
        common |= {"output": output, "tokenizer": tokenizer, "validation_fraction": 0.2}
        prepare.run(PrepareConfig(**common))
        folders[family] = output
    return folders | {"llama": folders["bert"]}


@pytest.fixture
def config_of(prepared, tmp_path):
    """`config_of(family, *overrides)`: a configuration of 8 steps, float32, in a run of its own."""
    return partial(config_in, tmp_path, prepared)


def config_in(
    folder: Path, prepared: dict, family: str, *overrides: str, run: str = "run"
) -> PretrainConfig:
    """The same for a run in a folder."""
    values = MODELS[family] | {
        "run_dir": str(folder / run),
        "data": [{"path": prepared[family]}],
        "compute": {"dtype": "float32"},
        "schedule": {"kind": "constant", "learning_rate": 1e-2},
        "loop": {"steps": 8, "batch_size": 8, "log_every": 3},
        "checkpoint": {"every": 2},
        "evaluation": {"every": 4, "batches": 1},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return load(PretrainConfig, [path], overrides)
