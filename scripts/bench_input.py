"""What one process can feed: token shards to arrays on the device, against what TPUs consume.

The reading of `medjax.pretrain` (memory-mapped shards, permuted blocks, a thread that reads ahead,
placing on the device) on a split of random tokens; nothing else runs. The rate that 8 chips of v5e
take is that of a roofline of their FLOP/s alone: no plan can be faster.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from medjax.config import load
from medjax.data.manifest import (
    MANIFEST_VERSION,
    Manifest,
    Shard,
    SplitInfo,
    TokenizerInfo,
    write_manifest,
)
from medjax.models.config import ModelConfig
from medjax.objectives.config import ObjectiveConfig, SpanCorruptionConfig
from medjax.objectives.span_corruption import plan_spans
from medjax.pretrain import CorpusConfig, LoopConfig, PretrainConfig, build_batches
from medjax.training.config import MeshConfig
from medjax.training.flops import DATA_SHEET, train_flops
from medjax.training.mesh import make_mesh

CHIPS, ROOT = 8, Path(__file__).resolve().parent.parent
RECIPES = ("clinical_t5_base", "clinical_t5_large", "bioclinical_modernbert_base_phase1")


def run(steps: int, tokens: int = 2**29, batch_size: int = 256, block_length: int = 568) -> dict:
    """Tokens a second, and how many times what the chips consume for each recipe."""
    with tempfile.TemporaryDirectory() as folder:
        rate = _rate(Path(folder), steps, tokens, batch_size, block_length)
    needs = {name: round(_consumed(name)) for name in RECIPES}
    times = {name: round(rate / need, 1) for name, need in needs.items()}
    return {"tokens_per_s": round(rate), "v5e_8_chips_at_most": needs, "times": times}


def _rate(folder: Path, steps: int, tokens: int, batch_size: int, block_length: int) -> float:
    path = folder / "train" / "00000.tokens"
    path.parent.mkdir()
    np.random.default_rng(0).integers(0, 2**15, tokens, np.uint16).tofile(path)
    shard = Shard(name="00000", tokens=tokens, documents=1, sha256={"tokens": ""})
    counts = {"documents": 1, "patients": 0, "tokens": tokens, "bytes": 4 * tokens}
    info = SplitInfo(**counts, characters=4 * tokens, dtype="uint16", shards=[shard])
    ids = TokenizerInfo(sha256="", vocab_size=2**15, separator_id=0, pad_id=0)
    empty = {"drops": {}, "sources": [], "config": {}, "seed": 0}
    found = Manifest(version=MANIFEST_VERSION, tokenizer=ids, splits={"train": info}, **empty)
    write_manifest(found, folder)
    config = PretrainConfig.model_construct(
        data=[CorpusConfig(path=str(folder))], loop=LoopConfig(steps=steps, batch_size=batch_size)
    )
    mesh = make_mesh(MeshConfig(), 0, jax.devices()[:1])
    with jax.set_mesh(mesh):
        batches = build_batches(config, block_length, mesh)(0)
        for _ in range(steps // 10):
            next(batches)
        start, count = time.perf_counter(), 0
        for batch in batches:
            batch.block_until_ready()
            count += 1
        return count * batch_size * block_length / (time.perf_counter() - start)


def _consumed(recipe: str) -> float:
    """Raw tokens a second that the chips could train on if they did nothing but multiply."""
    objective, model = _objective_and_model(recipe)
    length = getattr(objective, "sequence_length", None)
    if isinstance(objective, SpanCorruptionConfig):
        plan = plan_spans(
            objective.inputs_length, objective.noise_density, objective.mean_span_length
        )
        length = plan.raw_length
    peak = CHIPS * DATA_SHEET["TPU v5e"]
    return peak / (train_flops(model, objective) / length)


def _objective_and_model(recipe: str) -> tuple[ObjectiveConfig, ModelConfig]:
    from medjax.plan import PlanConfig

    shapes = {"bioclinical_modernbert_base_phase1": [ROOT / "configs/model/modernbert_base.yaml"]}
    files = [ROOT / f"configs/pretrain/{recipe}.yaml", *shapes.get(recipe, [])]
    found = load(PlanConfig, files, ["topology=v5e:2x4"])
    return found.objective, found.model
