"""Weight files: safetensors, single or sharded, and `pytorch_model.bin` where torch is installed.

`open_tensors` looks at names and shapes only; a tensor's bytes are read when `hub/folder.py` asks
for them, so that no more than one parameter at a time stands in host memory beside the model.
`write_tensors` streams the other way. Nothing is ever unpickled: torch reads `.bin` files through
`weights_only=True`.
"""

from __future__ import annotations

import errno
import json
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medjax.config import UserError

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_FLOATS = ("F64", "F32", "F16", "BF16")


class Tensor(NamedTuple):
    """A tensor of a weight file, not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    file: Path


def open_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face folder by name; safetensors come before `pytorch_model.bin`.

    Raises:
      UserError: no weight file, a missing shard, a truncated or damaged file, no torch.
    """
    for name, open_file in ((SAFETENSORS, _open_safetensors), (TORCH, _open_torch)):
        if (folder / name).is_file():
            return open_file(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _open_sharded(folder / f"{name}.index.json", open_file)
    others = [
        n for n in ("tf_model.h5", "flax_model.msgpack", "model.onnx") if (folder / n).exists()
    ]
    found = f"; {', '.join(others)} cannot be read" if others else ""
    raise UserError(
        f"{folder}: no weights; expected {SAFETENSORS} or {TORCH}, or their .index.json with "
        f"shards{found}"
    )


def read_json(path: Path) -> dict:
    """A JSON object from a file of a model folder, or a UserError that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is {path.parent} a Hugging Face folder?") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path}: not valid JSON; copy or download the file again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a JSON {type(value).__name__}, but must hold an object")
    return value


def _open_sharded(index: Path, open_file: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: has no weight_map; copy or download the file again")
    files = sorted(set(weight_map.values()))
    outside = [f for f in files if Path(f).name != f]
    if outside:
        raise UserError(f"{index}: names {outside[0]!r}; shards must lie in the folder itself")
    missing = [f for f in files if not (index.parent / f).is_file()]
    if missing:
        raise UserError(
            f"{index.parent}: {len(missing)} of {len(files)} shards are missing "
            f"({', '.join(missing)}); copy or download them again"
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= open_file(index.parent / file)
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise UserError(
            f"{index.parent / weight_map[absent[0]]}: lacks {absent[0]}, which {index.name} places "
            "there; copy or download the folder again"
        )
    return tensors


def _open_safetensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise UserError(
                f"{path}: a Git LFS pointer instead of the weights; run `git lfs pull` there"
            )
    try:
        handle = safe_open(path, "np")
    except SafetensorError as error:
        raise UserError(
            f"{path}: truncated or damaged ({error}); copy or download the file again"
        ) from None

    def tensor(name: str) -> Tensor:
        view = handle.get_slice(name)
        if (dtype := view.get_dtype()) in _FLOATS:
            return Tensor(tuple(view.get_shape()), lambda: handle.get_tensor(name), path)
        return Tensor(tuple(view.get_shape()), lambda: _refuse_dtype(path, name, dtype), path)

    return {name: tensor(name) for name in handle.keys()}  # noqa: SIM118 (a handle is no dict)


def _refuse_dtype(path: Path, name: str, dtype: str) -> np.ndarray:
    raise UserError(
        f"{path}: {name} is stored as {dtype}; only {', '.join(_FLOATS)} are read, "
        "quantised weights are not; use the unquantised model"
    )


def _open_torch(path: Path) -> dict[str, Tensor]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading a .bin file needs torch, which is not installed; pip install "
            f"'medjax[torch]', or convert it where torch is (python -m medjax.convert)"
        ) from None
    try:
        # Files older than torch 1.6 are no zip archives and cannot be memory-mapped.
        is_zip = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: not a plain file of weights: damaged, or it holds other Python objects, "
            "which medjax refuses to unpickle; save the model again as safetensors"
        ) from None
    except (RuntimeError, EOFError, ValueError):
        raise UserError(f"{path}: truncated or damaged; copy or download the file again") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(
            f"{path}: must hold tensors by name, nothing else; save the model again as safetensors"
        )

    def tensor(name: str) -> Tensor:
        value = state[name]
        if value.is_floating_point():
            # NumPy has no bfloat16 of torch's; float32 holds all its values.
            return Tensor(tuple(value.shape), lambda: value.detach().float().numpy(), path)
        return Tensor(tuple(value.shape), lambda: _refuse_dtype(path, name, str(value.dtype)), path)

    return {name: tensor(name) for name in state}


def place_in_files(sizes: dict[str, int], max_bytes: int) -> dict[str, str]:
    """File of every tensor, in order: a new shard when the next one would exceed `max_bytes`."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return dict.fromkeys(sizes, SAFETENSORS)
    width = f"model-{{:05d}}-of-{len(shards):05d}.safetensors"
    return {name: width.format(i + 1) for i, shard in enumerate(shards) for name in shard}


def write_tensors(
    folder: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    counts: dict[str, int],
    dtype: str,
    max_bytes: int,
) -> None:
    """Casts and writes `tensors`, one shard in memory at a time.

    They come in the order of `counts`, the number of elements of each, which decides the files.
    """
    stored = DTYPES[dtype]
    sizes = {name: count * stored.itemsize for name, count in counts.items()}
    files = place_in_files(sizes, max_bytes)
    shard: dict[str, np.ndarray] = {}
    left = list(files.values())
    for name, array in tensors:
        shard[name] = np.ascontiguousarray(array, stored)
        file = left.pop(0)
        if not left or left[0] != file:
            _save(shard, folder / file)
            shard = {}
    if len(set(files.values())) > 1:
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": dict(sorted(files.items())),
        }
        (folder / f"{SAFETENSORS}.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _save(shard: dict[str, np.ndarray], path: Path) -> None:
    try:
        save_file(shard, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # The library has the errno in its text only: "No space left on device (os error 28)".
        number = next((n for n in errno.errorcode if f"(os error {n})" in str(error)), errno.EIO)
        raise OSError(number, str(error), str(path)) from None
    # The library makes its files readable by the owner alone; the folder says who may.
    path.chmod(path.parent.stat().st_mode & 0o666)
