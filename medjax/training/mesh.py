"""The device mesh and what lies where on it: axes `data`, `fsdp` and `tensor`, one table of rules.

Model code names logical axes (`embed`, `heads`, ...) in its Spec tree and knows nothing of devices;
the rules here say which mesh axis each of them is divided over. Inserting the collectives is the
partitioner's work (GSPMD's interface; Shardy underneath).
"""

from __future__ import annotations

import logging
import math
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medjax.config import UserError
from medjax.models.spec import BATCH_AXES, Spec
from medjax.training.chips import chip_of
from medjax.training.config import MeshConfig

log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(BATCH_AXES)

# An embedding divided by vocabulary over fsdp would gather the activations of the global batch:
# `vocab` goes to tensor only, and `embed` to fsdp. Axes without a rule stay whole on every device.
RULES = {"embed": "fsdp", "vocab": "tensor", "heads": "tensor", "mlp": "tensor"}

# Parameters, two moments and gradients in float32; when they need more than a quarter of a
# device's memory, the automatic mesh divides them.
STATE_BYTES_PER_PARAMETER = 16


def make_mesh(config: MeshConfig, num_params: int, devices: list | None = None) -> Mesh:
    """The mesh of `config` over all devices; sizes left out are chosen from the model's size.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    fsdp = config.fsdp or _choose_fsdp(num_params, config, devices)
    data = config.data or max(1, count // (fsdp * config.tensor))
    shape = (data, fsdp, config.tensor)
    if math.prod(shape) != count:
        raise UserError(
            f"mesh: data {data} x fsdp {fsdp} x tensor {config.tensor} = {math.prod(shape)}, but "
            f"there are {count} devices; change mesh.data, mesh.fsdp or mesh.tensor so that the "
            f"product is {count}, or leave mesh.data out"
        )
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    split = {"allow_split_physical_axes": True}  # fsdp 4 of a slice of 16x16 is part of a side
    if slices > 1 and data % slices == 0:  # what crosses slices are copies of the model alone
        inner = (data // slices, fsdp, config.tensor)
        grid = mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), devices, **split)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, **split)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def _choose_fsdp(num_params: int, config: MeshConfig, devices: list) -> int:
    """The smallest divisor that brings the training state under a quarter of a device's memory."""
    limit = memory_limit(devices[0])
    if not limit:
        return 1
    available = max(1, len(devices) // ((config.data or 1) * config.tensor))
    needed = num_params * STATE_BYTES_PER_PARAMETER / config.tensor
    divisors = [n for n in range(1, available + 1) if available % n == 0]
    return next((n for n in divisors if needed / n <= limit / 4), available)


def memory_limit(device: Any) -> float | None:
    """Bytes of a device that programs may use; none where it does not say (CPU)."""
    if device.platform == "tpu":
        chip = chip_of(device)
        return chip.hbm_bytes / chip.devices
    return (device.memory_stats() or {}).get("bytes_limit")


def partition_spec(spec: Spec, mesh: Mesh) -> PartitionSpec:
    """How one weight is divided; an axis that does not divide stays whole."""
    places, used = [], set()
    for size, axis in zip(spec.shape, spec.axes, strict=True):
        place = RULES.get(axis) if axis else None
        if place is None or place in used or mesh.shape[place] == 1 or size % mesh.shape[place]:
            places.append(None)
        else:
            places.append(place)
            used.add(place)
    return PartitionSpec(*places)


def shardings(specs: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every Spec of the tree."""
    return jax.tree.map(lambda s: NamedSharding(mesh, partition_spec(s, mesh)), specs)


def replicated_by_size(specs: Any, mesh: Mesh) -> list[str]:
    """Weights with an axis that should be divided but does not divide, for the log."""
    found = []
    for path, spec in jax.tree.leaves_with_path(specs):
        for size, axis in zip(spec.shape, spec.axes, strict=True):
            place = RULES.get(axis) if axis else None
            if place and size % mesh.shape[place]:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                found.append(
                    f"{name}: {axis} {size} does not divide over {place} {mesh.shape[place]}"
                )
    return found


def place_batch(local: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays of this process's rows; rows are divided over `data` and `fsdp`."""
    sharding = NamedSharding(mesh, BATCH)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in local.items()}


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Every device takes the same number of rows in every microbatch.

    Raises:
      UserError: the batch does not divide.
    """
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    unit = shards * accumulation
    if batch_size % unit:
        nearest = max(unit, round(batch_size / unit) * unit)
        raise UserError(
            f"loop.batch_size {batch_size} does not divide over {shards} devices of the mesh's "
            f"data and fsdp axes times loop.accumulation {accumulation}; use a multiple of {unit}, "
            f"such as {nearest}"
        )
