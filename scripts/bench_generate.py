"""The generation cases of bench.py: tokens written a second, beside transformers' `generate`.

No token ends a row, so both write the same number. The peer runs in float32 and in bfloat16, before
and after ours, and its best time of all counts.
"""

from __future__ import annotations

import itertools
import json
import string
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from medjax.decoding.automaton import HOLE, build_automaton
from medjax.decoding.config import DecodingConfig
from medjax.decoding.generate import build_generate, prepared_params
from medjax.decoding.passages import passages_of, token_lookup
from medjax.models import build_model
from medjax.models.config import Compute, DecoderConfig, T5Config

QUESTIONS, QUESTION, ANSWER = 64, 250, 16
WORD = 8  # tokens
CASES = {  # model, prompts, tokens a prompt, new tokens
    "t5-generate": (
        T5Config(
            d_ff=1024,
            num_heads=6,
            num_layers=8,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        ),
        16,
        256,
        64,
    ),
    "llama-generate": (
        DecoderConfig(
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
        ),
        16,
        256,
        64,
    ),
}


def run(case: str, dtype: str, repeats: int, peer_python: str | None) -> dict:
    """Measures a case; with a peer, the ratio of the best times in one run."""
    before = run_peer(case, repeats, peer_python) if peer_python else None
    result = measure(case, dtype, repeats)
    if before:
        after = run_peer(case, repeats, peer_python)
        result["peer"] = min(before, after, key=lambda peer: peer["seconds"])
        result["ratio"] = round(result["peer"]["seconds"] / result["seconds"], 2)
    return result


def measure(case: str, dtype: str, repeats: int) -> dict:
    """Best seconds of all prompts, encoder included; weights are cast before, as the peer's are."""
    config, batch, length, new_tokens = CASES[case]
    model = build_model(config, Compute(dtype=dtype))
    params = model.init(jax.random.key(0))
    rows = list(np.random.default_rng(0).integers(200, 20_000, (batch, length), np.int32))
    settings = DecodingConfig(max_new_tokens=new_tokens, batch_size=batch)
    start_id = 0 if config.model_type == "t5" else None
    generate, seconds = build_generate(model, settings, [], start_id), []
    params = prepared_params(model, params)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        written = generate(params, rows)
        seconds.append(time.perf_counter() - start)
    tokens = sum(map(len, written))
    return {
        "case": case,
        "dtype": dtype,
        "seconds": round(min(seconds[1:]), 4),
        "tokens_per_s": round(tokens / min(seconds[1:]), 1),
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
    }


def shots(dtype: str, repeats: int) -> dict:
    """Seconds an example of {0, 4 shots} x {free, constrained, extractive} x {shared once or not}.

    The Llama of llama-generate; an instruction of 50 tokens, shots and questions of 250, answers of
    16; 64 questions. Constrained answers are of letters, extractive ones begin with a word of a
    text of 1,000 characters; none can be shorter, so that all modes write the same number.
    """
    config = CASES["llama-generate"][0]
    model = build_model(config, Compute(dtype=dtype))
    params = prepared_params(model, model.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    rows = list(rng.integers(200, 20_000, (QUESTIONS, QUESTION), np.int32))
    settings = DecodingConfig(max_new_tokens=ANSWER, batch_size=16)
    letters = [bytes([97 + i % 26]) for i in range(config.vocab_size)]
    syllables = map("".join, itertools.product(string.ascii_lowercase, repeat=3))
    pieces = [b" ", b";", None, *(own.encode() for own in syllables)]
    pieces += [None] * (config.vocab_size - len(pieces))
    texts = [_words(rng) for _ in range(QUESTIONS)]
    lookup = token_lookup(pieces)
    modes = {
        "free": (None, None),
        "constrained": (build_automaton(f"[a-z]{{{ANSWER - 1}}}", letters, [2]), None),
        "extractive": (
            build_automaton(f"{HOLE};[a-z]{{{3 * (ANSWER - WORD - 2)}}}", pieces, [2]),
            lambda places: passages_of([texts[i] if i >= 0 else "" for i in places], lookup),
        ),
    }
    found = {}
    for count in (0, 4):
        prefix = rng.integers(200, 20_000, 50 + count * (QUESTION + ANSWER), np.int32)
        for mode, (automaton, passages) in modes.items():
            ends = [] if automaton is None else [2]
            generate = build_generate(model, settings, ends, automaton=automaton)
            for once in (True, False):
                whole = rows if once else [np.concatenate([prefix, row]) for row in rows]
                seconds = []
                for _ in range(repeats + 1):
                    start = time.perf_counter()
                    generate(params, whole, prefix if once else None, passages)
                    seconds.append(time.perf_counter() - start)
                name = f"{count}-shot, {mode}, {'shared' if once else 'not shared'}"
                found[name] = round(min(seconds[1:]) / QUESTIONS, 5)
    return {"case": "shots", "dtype": dtype, "seconds_an_example": found}


def _words(rng: np.random.Generator) -> str:
    """1,000 characters of words that take WORD tokens of three letters each."""
    return " ".join("".join(map(chr, rng.integers(97, 123, 3 * WORD))) for _ in range(40))


def run_peer(case: str, repeats: int, python: str) -> dict:
    """The same prompts by transformers on torch, in its better type, in its own process."""
    config, batch, length, new_tokens = CASES[case]
    work = {
        "model": config.model_dump(),
        "batch_size": batch,
        "length": length,
        "new_tokens": new_tokens,
        "steps": repeats,
    }
    peer = Path(__file__).with_name("bench_torch.py")
    done = subprocess.run(
        [python, str(peer)], input=json.dumps(work), text=True, stdout=subprocess.PIPE
    )
    if done.returncode:
        sys.exit(f"the torch peer failed with exit code {done.returncode}; is torch installed?")
    return json.loads(done.stdout.splitlines()[-1])
