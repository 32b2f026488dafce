"""Speed of a training step, beside the same work done by transformers on torch.

    python scripts/bench.py CASE [--dtype float32|bfloat16] [--steps N] [--peer torch]

Prints one JSON line. The step is the one that `medjax.pretrain` runs, corruption included; the
peer gets ready-made batches of the same shapes and trains the same architecture with AdamW and
clipping, in processes of its own right before and after ours: one run, one ratio. `tokens_per_s`
counts the positions that the model computes: inputs and targets of a T5, the sequence of a BERT.
`t5-generate` counts the tokens written (`bench_generate.py`); `prepare` measures tokenizing beside
the batch encoder of `tokenizers` (`bench_prepare.py`), on `--notes FILE.jsonl` or synthetic ones;
`shots` what shots and constraints cost, with what prompts share computed once or not; `input` what
one process reads for training, against what TPUs consume (`bench_input.py`).
`--peer-python` names the interpreter that has torch, if this one has not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import bench_generate
import bench_input
import bench_prepare
import jax
import jax.numpy as jnp
import numpy as np

from medjax.data.tokenize import Vocabulary
from medjax.models import build_model
from medjax.models.config import BertConfig, Compute, T5Config
from medjax.models.spec import count_params
from medjax.objectives.config import MaskedLmConfig, SpanCorruptionConfig
from medjax.objectives.objective import build_objective, loss_of_blocks
from medjax.objectives.span_corruption import plan_spans
from medjax.training.config import LoopConfig, MeshConfig, OptimizerConfig, ScheduleConfig
from medjax.training.flops import peak_flops, train_flops
from medjax.training.mesh import make_mesh
from medjax.training.optimizer import build_optimizer
from medjax.training.schedule import build_schedule
from medjax.training.state import create_state, state_specs
from medjax.training.step import build_train_step

V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BERT_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
CASES = {  # model, batch size, sequence length
    "t5-train": (
        T5Config(d_model=512, d_ff=1024, d_kv=64, num_heads=6, num_layers=8, **V1_1), 8, 512
    ),
    "bert-train": (
        BertConfig(
            hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=2048
        ),
        8,
        256,
    ),
    "t5-base-train": (
        T5Config(d_model=768, d_ff=2048, d_kv=64, num_heads=12, num_layers=12, **V1_1), 64, 512
    ),
    "t5-large-train": (
        T5Config(d_model=1024, d_ff=2816, d_kv=64, num_heads=16, num_layers=24, **V1_1), 32, 512
    ),
    "bert-large-train": (BertConfig(**BERT_LARGE), 32, 512),
}  # fmt: skip
MASK_RATE = 0.15


def main() -> None:
    """Measures one case and prints its JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "case", choices=[*CASES, *bench_generate.CASES, "prepare", "input", "shots"]
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peer", choices=("torch",))
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--notes", help="JSON lines with a text column, for the case prepare")
    arguments = parser.parse_args()
    if arguments.case == "prepare":
        print(json.dumps(bench_prepare.run(arguments.notes, min(arguments.steps, 3))))
        return
    if arguments.case == "input":
        print(json.dumps(bench_input.run(max(arguments.steps, 10) * 20)))
        return
    if arguments.case == "shots":
        print(json.dumps(bench_generate.shots(arguments.dtype, min(arguments.steps, 3))))
        return
    if arguments.case in bench_generate.CASES:
        peer = arguments.peer_python if arguments.peer else None
        found = bench_generate.run(arguments.case, arguments.dtype, arguments.steps, peer)
        print(json.dumps(found))
        return
    before = run_peer(arguments) if arguments.peer else None
    result = measure(arguments.case, arguments.dtype, arguments.steps)
    if before:
        after = run_peer(arguments)
        best = min(before["seconds_per_step"], after["seconds_per_step"])
        result["peer"] = {**after, "seconds_per_step": best}
        result["ratio"] = round(best / result["seconds_per_step"], 2)
    print(json.dumps(result))


def measure(case: str, dtype: str, steps: int) -> dict:
    """Median seconds of a training step, after two warm-up steps."""
    config, batch_size, length = CASES[case]
    model = build_model(config, Compute(dtype=dtype))
    objective_config = objective_of(config, length)
    objective = build_objective(objective_config, model, vocabulary_of(config))
    constant = build_schedule(ScheduleConfig(kind="constant"), 1000)
    optimizer = build_optimizer(OptimizerConfig(clip_norm=1.0), constant, model.specs)
    mesh = make_mesh(MeshConfig(), count_params(model.specs), jax.devices()[:1])
    loop = LoopConfig(steps=1000, batch_size=batch_size, dropout=False)
    specs = state_specs(model.specs, optimizer.state_specs)
    state = create_state(specs, model, optimizer, mesh, 0)
    step = build_train_step(loss_of_blocks(objective), optimizer, loop, mesh, specs)
    ids = np.random.default_rng(0).integers(200, 20_000, (batch_size, objective.block_length))
    blocks = jnp.asarray(ids, jnp.int32)
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        state, metrics = step(state, blocks)
        loss = float(metrics["loss"])
        seconds.append(time.perf_counter() - start)
    per_step = float(np.median(seconds[2:]))
    tokens = batch_size * positions_of(config, objective_config)
    flops = batch_size * train_flops(config, objective_config)
    peak = peak_flops(jax.devices()[0], dtype)
    return {
        "case": case,
        "dtype": dtype,
        "params": count_params(model.specs),
        "seconds_per_step": round(per_step, 4),
        "tokens_per_s": round(tokens / per_step, 1),
        "gflops_per_s": round(flops / per_step / 1e9, 1),
        "mfu": round(flops / per_step / peak, 3) if peak else None,
        "loss": round(loss, 3),
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
    }


def objective_of(config, length: int):
    """Span corruption for a T5, masked language modelling for a BERT."""
    if isinstance(config, T5Config):
        return SpanCorruptionConfig(inputs_length=length)
    return MaskedLmConfig(sequence_length=length, mask_rate=MASK_RATE)


def vocabulary_of(config) -> Vocabulary:
    """Special ids where the published tokenizers have them."""
    size = config.vocab_size
    is_t5 = isinstance(config, T5Config)
    return Vocabulary(
        size=size,
        pad_id=0,
        separator_id=1 if is_t5 else 102,
        mask_id=None if is_t5 else 103,
        sentinel_ids=np.arange(32_099, 31_999, -1, np.int32) if is_t5 else np.zeros(0, np.int32),
        special_ids=np.arange(2 if is_t5 else 104, dtype=np.int32),
        continues_word=np.zeros(size, bool),
    )


def positions_of(config, objective) -> int:
    """Positions a row: encoder inputs, and decoder targets where there is a decoder."""
    if isinstance(config, T5Config):
        plan = plan_spans(
            objective.inputs_length, objective.noise_density, objective.mean_span_length
        )
        return plan.inputs_length + plan.targets_length
    return objective.sequence_length


def run_peer(arguments: argparse.Namespace) -> dict:
    """The same work by transformers on torch, in its own process."""
    config, batch_size, length = CASES[arguments.case]
    work = {
        "model": config.model_dump(),
        "batch_size": batch_size,
        "length": length,
        "targets": positions_of(config, objective_of(config, length)) - length,
        "predictions": round(MASK_RATE * length),
        "dtype": arguments.dtype,
        "steps": arguments.steps,
    }
    peer = Path(__file__).with_name("bench_torch.py")
    done = subprocess.run(
        [arguments.peer_python, str(peer)],
        input=json.dumps(work),
        text=True,
        stdout=subprocess.PIPE,
    )
    if done.returncode:
        sys.exit(
            f"the torch peer failed with exit code {done.returncode}; is torch installed there?"
        )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
