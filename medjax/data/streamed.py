"""Train tokens that stay in their bucket and are read in byte ranges, for disks without the room.

All ranges of a batch are asked for at once (TensorStore); each costs a request, so that a copy
(staging.py) is far quicker and, other than this, is checked by its SHA-256.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from medjax.config import UserError

MARK = "streamed.json"  # beside the manifest of a copy: where the train tokens are


def streamed_from(folder: Path) -> str | None:
    """The address at which the train tokens of a staged folder lie; None: in the folder."""
    mark = folder / MARK
    return json.loads(mark.read_text())["train"] if mark.exists() else None


class StreamedArray:
    """A file of an address as an array of one dimension, of which slices are taken.

    Args:
      address: of the folder.
      name: of the file in it.
      dtype: of its values.
      length: their number.
    """

    def __init__(self, address: str, name: str, dtype: np.dtype, length: int):
        self.address, self.name, self.dtype, self.length = address, name, dtype, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> Requested:
        start, stop, _ = part.indices(self.length)
        size = self.dtype.itemsize
        ranged = slice(start * size, stop * size)
        return Requested(
            self, _store(self.address).read(self.name, byte_range=ranged), stop - start
        )


class Requested:
    """A slice that is on its way; numpy waits for it."""

    def __init__(self, source: StreamedArray, future: Any, length: int):
        self.source, self.future, self.length = source, future, length

    def __len__(self) -> int:
        return self.length

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        place = f"{self.source.address}/{self.source.name}"
        try:
            content = self.future.result().value
        except ValueError as error:  # TensorStore's only kind
            raise UserError(f"{place}: cannot be read ({error})") from None
        values = np.frombuffer(content, self.source.dtype)
        if len(values) != self.length:
            raise UserError(f"{place}: is missing or was cut short since the run began; restore it")
        return values if dtype is None else values.astype(dtype)


@cache
def _store(address: str) -> Any:
    import tensorstore

    try:
        return tensorstore.KvStore.open(f"{address}/").result()
    except ValueError as error:
        raise UserError(f"{address}: TensorStore cannot read this ({error})") from None
