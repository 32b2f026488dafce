"""Loss curves of pretraining runs, over tokens, beside the plateau of a unigram model.

    python scripts/plot_loss.py RUN_DIR [RUN_DIR ...] --output loss.png

A model that has only learnt how frequent each token is sits at the unigram entropy of its corpus;
what lies below is learnt from context. A T5's targets also hold sentinels, which cost next to
nothing, so its plateau is the entropy times the share of the others. Prints the last figures too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np

from medjax.config import UserError, load
from medjax.data.shards import open_split
from medjax.objectives.span_corruption import plan_spans
from medjax.pretrain import PretrainConfig
from medjax.training.tracker import read_metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main() -> None:
    """Draws one panel a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", default="loss.png")
    arguments = parser.parse_args()
    count = len(arguments.runs)
    figure, panels = plt.subplots(1, count, figsize=(5.2 * count, 3.8), squeeze=False)
    for run_dir, panel in zip(arguments.runs, panels[0], strict=True):
        draw(run_dir, panel)
    figure.tight_layout()
    figure.savefig(arguments.output, dpi=140)
    print(arguments.output)


def draw(run_dir: Path, panel: plt.Axes) -> None:
    """Training and validation loss of one run, and the unigram entropy of its corpus."""
    config = load(PretrainConfig, [run_dir / "config.yaml"])
    metrics = read_metrics(run_dir)
    train = [m for m in metrics if "loss" in m]
    validation = [m for m in metrics if "validation/loss" in m]
    per_step = train[-1]["tokens"] / train[-1]["step"] / 1e6
    plateau = unigram_entropy(config) * content_share(config)
    panel.plot([m["tokens"] / 1e6 for m in train], [m["loss"] for m in train], label="training")
    panel.plot(
        [m["step"] * per_step for m in validation],
        [m["validation/loss"] for m in validation],
        "o--",
        markersize=3,
        label="validation",
    )
    panel.axhline(plateau, color="0.4", linestyle=":", label=f"unigram plateau {plateau:.2f}")
    panel.set_title(run_dir.name)
    panel.set_xlabel("million tokens")
    panel.set_ylabel("nats a predicted token")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    print(
        f"{run_dir.name}: {train[-1]['tokens']:,} tokens at {train[-1]['tokens_per_s']:,.0f} "
        f"tokens/s | validation loss {validation[-1]['validation/loss']:.3f}, accuracy "
        f"{validation[-1]['validation/accuracy']:.1%} | unigram plateau {plateau:.3f}"
    )


def content_share(config: PretrainConfig) -> float:
    """Share of the predicted tokens that come from the notes: not sentinels, not the end."""
    objective = config.objective
    if objective.kind != "span_corruption":
        return 1.0
    plan = plan_spans(objective.inputs_length, objective.noise_density, objective.mean_span_length)
    return plan.num_noise / plan.targets_length


def unigram_entropy(config: PretrainConfig) -> float:
    """Entropy in nats of the training tokens of a run's first corpus, taken one by one."""
    split = open_split(config.data[0].path, "train")
    counts = np.zeros(2**17, np.int64)
    for shard in split.arrays["tokens"]:
        counts += np.bincount(shard, minlength=len(counts))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
