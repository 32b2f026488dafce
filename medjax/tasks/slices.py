"""Parts of a test set whose scores are given apart: by columns, by length, by what was cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medjax.tasks.encode import Rows
from medjax.tasks.examples import Example

PARTS = 4


def slices(examples: Sequence[Example], rows: Rows) -> dict[str, dict[str, np.ndarray]]:
    """Indices of the examples of each part, by what divides them and by its value.

    `length` is in tokens, its parts are quarters of the examples.
    """
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, example in enumerate(examples):
        for column, value in example.meta:
            found[column][value].append(i)
        if rows.cut.any():
            found["cut"]["yes" if rows.cut[i] else "no"].append(i)
    tokens = np.bincount(rows.example, weights=rows.lengths, minlength=len(examples)).astype(int)
    edges = np.quantile(tokens, np.linspace(0, 1, PARTS + 1)[1:-1], method="lower")
    for i, part in enumerate(np.searchsorted(edges, tokens, side="left")):
        found["length"][int(part)].append(i)
    found["length"] = {
        f"{tokens[own].min()}-{tokens[own].max()} tokens": own
        for _, own in sorted(found["length"].items())
    }
    return {
        column: {value: np.array(own) for value, own in sorted(parts.items())}
        if column != "length"
        else {value: np.array(own) for value, own in parts.items()}
        for column, parts in found.items()
    }
