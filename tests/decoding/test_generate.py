"""What is generated equals what transformers' `generate` writes, token for token."""

import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import build_generate, generate
from medjax.hub.config import from_hf
from medjax.hub.names import from_hf_tensors, stored_parts, stored_tying
from medjax.models import build_model
from medjax.models.config import Compute

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CASES = json.loads((FIXTURES / "decoding.json").read_text(encoding="utf-8"))
NEW_TOKENS = 12


@functools.cache
def load(name):
    with safe_open(FIXTURES / f"{name}.safetensors", "np") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {k[7:]: file.get_tensor(k) for k in file.keys() if k.startswith("weight.")}  # noqa: SIM118
    return build(tensors, config)


def build(tensors, config):
    config = stored_tying(from_hf(config), tensors.get, tensors)
    parts = stored_parts(config, tensors)
    params, _, _ = from_hf_tensors(tensors.get, tensors, config, parts)
    return build_model(config, Compute(dtype="float32", unroll=1), parts), params


def write(model, params, case, **options):
    beams, length_penalty, early_stopping = case["settings"]
    config = DecodingConfig(
        max_new_tokens=NEW_TOKENS,
        num_beams=beams,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        batch_size=len(case["rows"]),
    )
    written = generate(model, params, case["rows"], config, case["end"], **options)
    return [ids.tolist() for ids in written]


def name_of(case):
    return "-".join([case["model"], *map(str, case["settings"])])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_equals_transformers(case):
    assert write(*load(case["model"]), case) == case["written"]
