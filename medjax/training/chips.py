"""What a TPU chip has: memory, bandwidths, and how many of JAX's devices it is.

Sources: the chips' pages of docs.cloud.google.com/tpu (v4, v5e, v5p, v6e, TPU7x). Interconnect is
one direction of all of a chip's links together; the data centre network is a chip's share of its
host's. FLOP/s are in `flops.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from medjax.config import UserError

GB = 1e9
GIB = 2**30


class Chip(NamedTuple):
    """Of one chip."""

    name: str
    """As slices are called: v5e in v5e:4x4."""
    kind: str
    """Beginning of JAX's `device_kind`."""
    devices: int
    """JAX devices a chip."""
    hbm_bytes: float
    """Memory that programs may use."""
    hbm_rate: float
    """Bytes a second."""
    ici_rate: float
    """Bytes a second to the other chips of the slice."""
    dcn_rate: float
    """Bytes a second to other slices."""


CHIPS = (
    Chip("v4", "TPU v4", 1, 31.75 * GIB, 1228 * GB, 300 * GB, 50 / 8 * GB),
    Chip("v5e", "TPU v5 lite", 1, 15.75 * GIB, 819 * GB, 200 * GB, 25 / 8 * GB),
    Chip("v5p", "TPU v5", 1, 95.74 * GIB, 2765 * GB, 600 * GB, 50 / 8 * GB),
    Chip("v6e", "TPU v6", 1, 31.25 * GIB, 1640 * GB, 400 * GB, 100 / 8 * GB),
    Chip("tpu7x", "TPU7x", 2, 189.5 * GIB, 7380 * GB, 600 * GB, 100 / 8 * GB),
)


def chip_of(device: Any) -> Chip:
    """The chip of a JAX device.

    Raises:
      UserError: it is no TPU that is known here.
    """
    for chip in CHIPS:
        if device.device_kind.startswith(chip.kind):
            return chip
    raise UserError(f"{device.device_kind}: no TPU of {', '.join(chip.name for chip in CHIPS)}")
