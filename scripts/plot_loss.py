"""Loss curves of pretraining runs, over tokens, beside the plateau of a unigram model.

    python scripts/plot_loss.py RUN_DIR [RUN_DIR ...] --output loss.png

A model that has only learnt how frequent each token is sits on the plateau (of the held-out notes,
`medjax/training/plateau.py`); what lies below is learnt from context. Prints the last figures too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

from medjax.config import UserError
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
    """Training and validation loss of one run, and the plateau."""
    metrics = read_metrics(run_dir)
    train = [m for m in metrics if "loss" in m]
    validation = [m for m in metrics if "validation/loss" in m]
    per_step = train[-1]["tokens"] / train[-1]["step"] / 1e6
    plateau = validation[-1]["validation/unigram_plateau"]
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


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
