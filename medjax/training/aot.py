"""Ahead-of-time compilation of a run's train step for TPU slices that are not there.

The real TPU compiler (the `libtpu` wheel) compiles on any machine; what it says of memory is what
the slice will say. `start_tpu_compiler` must run before anything asks JAX for devices.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from medjax.config import UserError

# As the compiler says it; of a program that is beyond the memory by far, of its temporaries alone.
_TOO_MUCH = re.compile(
    r"(?:Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm|temporaries \(([\d.]+)([KMG])\))"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class Program(NamedTuple):
    """A compiled step, or why there is none."""

    text: str | None
    """Of the compiled module; None where it does not fit."""
    needed: float
    """Bytes of a device's memory: state, batch, temporaries, program."""
    state: float
    temporaries: float
    seconds: float
    """That compiling took."""


def start_tpu_compiler() -> None:
    """Lets libtpu compile without a TPU, beside JAX on CPU."""
    defaults = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # or libtpu complains that it finds no TPU
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_LOG_DIR": "disabled",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def slice_devices(topology: str, num_slices: int) -> list[Any]:
    """The devices of slices such as v5e:4x4.

    Raises:
      UserError: libtpu is missing, or knows no such slice.
    """
    from jax.experimental import topologies

    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise UserError("plans need the TPU compiler: pip install libtpu") from None
    more: dict[str, Any] = {"num_slices": num_slices} if num_slices > 1 else {}
    if topology.startswith("v4"):  # both cores of a chip are one device, as they are in use
        more["chip_config_name"] = "megacore"
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **more)
    except Exception as error:  # jaxlib raises its own kinds
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"topology {topology!r}: the TPU compiler knows no such slice ({reason}); write it as "
            "v5e:4x4, v5p:4x4x8, v6e:8x8, tpu7x:2x2x1"
        ) from None
    return list(found.devices)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """JAX's cache on disk cannot give back what was compiled without a device."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    name, was = "jax_enable_compilation_cache", jax.config.jax_enable_compilation_cache
    jax.config.update(name, False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update(name, was)
        compilation_cache.reset_cache()


def compile_for(
    lower: Callable[[], Any], limit: float, topology: str, cache: Path | None
) -> Program:
    """Compiles; a program beyond the memory is a Program without text.

    Args:
      lower: makes the lowered step.
      limit: bytes of a device's memory.
      topology: what it is compiled for.
      cache: a folder of programs that were compiled before; the same one is not compiled again.
    """
    with _without_cache():
        lowered = lower()
        if cache is None:
            return _compiled(lowered, limit)
        about = f"{version('libtpu')} {version('jax')} {topology} {limit} {lowered.as_text()}"
        path = cache / f"{hashlib.sha256(about.encode()).hexdigest()}.json.gz"
        if path.exists():
            return Program(**json.loads(gzip.decompress(path.read_bytes())))
        found = _compiled(lowered, limit)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(gzip.compress(json.dumps(found._asdict()).encode()))
    temporary.rename(path)
    return found


def _compiled(lowered: Any, limit: float) -> Program:
    import jax

    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        match = _TOO_MUCH.search(str(error))
        if match is None:
            raise
        needed = float(match[1] or match[3]) * _UNITS[match[2] or match[4]]
        return Program(None, needed, 0.0, 0.0, time.perf_counter() - start)
    memory = compiled.memory_analysis()
    state = memory.argument_size_in_bytes
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    code = memory.generated_code_size_in_bytes
    needed = state + kept + memory.temp_size_in_bytes + code
    text = compiled.as_text() if needed <= limit else None
    seconds = time.perf_counter() - start
    return Program(text, needed, state, memory.temp_size_in_bytes, seconds)
