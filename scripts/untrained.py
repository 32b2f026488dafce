"""A model's shape with random weights, to be fine-tuned beside it.

    python scripts/untrained.py MODEL OUTPUT

Both are Hugging Face folders; the tokenizer is MODEL's. The lineage of OUTPUT is empty: it has read
no text, and so no test set.
"""

import sys
from pathlib import Path

import jax

import medjax
from medjax.scoring.lineage import write_lineage


def main(source: str, output: str) -> None:
    """Writes OUTPUT."""
    model, _ = medjax.load_pretrained(source)
    params = model.init(jax.random.key(0))
    medjax.save_pretrained(output, model, params, tokenizer=source)
    write_lineage(Path(output), [])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
