"""Checkpoints of a run: asynchronous, checked by checksums, kept by policy.

The only file that knows Orbax (its v1 API). One checkpoint is `checkpoints/00001000/`, which Orbax
commits atomically, and `checkpoints/00001000.json`, written after the commit: the SHA-256 of every
file, and what the loop wants to remember beside the arrays (`notes`). Orbax does not notice a
flipped bit, so a checkpoint counts only when its checksums are there and agree; one that does not
is named and the one before it is used. An older checkpoint is deleted only after a newer one has
been verified in this sense, which is why retention is ours and not Orbax's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from medjax.config import UserError
from medjax.training.config import CheckpointConfig

log = logging.getLogger(__name__)

CHUNK = 2**24
# What several devices hold alike is written by one of them, unless each has this much to write.
WRITING = ocp.options.ArrayOptions.Saving(min_slice_bytes_for_replica_parallel=2**20)


class Restored(NamedTuple):
    """A state read back, its step, and the notes saved with it."""

    step: int
    state: Any
    notes: dict


class Checkpoints:
    """The checkpoints of one run: `save` returns at once, `wait` when all is on disk."""

    def __init__(self, directory: str | Path, config: CheckpointConfig):
        self.directory = place(directory)
        self.config = config
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None
        self.directory.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            _remove_incomplete(self.directory)

    def save(self, step: int, state: Any, notes: dict) -> None:
        """Copies `state` to the host and `notes` (JSON), then writes them in the background.

        Waits for the save before it; an error of that one is raised here.
        """
        self.wait()
        if (self.directory / f"{step:08d}.json").exists():
            return
        with ocp.Context(array_options=ocp.options.ArrayOptions(saving=WRITING)):
            response = ocp.save_async(self.directory / f"{step:08d}", state)
        frozen = json.dumps(notes)  # now: lists in it grow while the arrays are being written
        self._pending = self._worker.submit(self._finish, step, response, frozen)

    def wait(self) -> None:
        """Blocks until nothing is being written; raises what went wrong while writing.

        Raises:
          UserError: the disk is full or cannot be written; names the last good checkpoint.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except Exception as error:
            reason = _disk_problem(error)
            if reason is None:
                raise
            raise UserError(
                f"{self.directory}: the checkpoint could not be written ({reason}); "
                f"{_last_good(self.directory)}. Make room or make the folder writable, then run "
                "the same command again: it resumes from there"
            ) from None

    def _finish(self, step: int, response: Any, notes: str) -> None:
        response.result()
        if jax.process_index() != 0:
            return
        files = _checksums(self.directory / f"{step:08d}")
        record = {"step": step, "time": time.time(), "files": files, "notes": json.loads(notes)}
        _write_atomically(self.directory / f"{step:08d}.json", json.dumps(record, indent=1))
        _apply_retention(self.directory, self.config)


def restore_latest(directory: str | Path, abstract_state: Any) -> Restored | None:
    """The newest intact checkpoint, placed as `abstract_state` says; None where there are none.

    Raises:
      UserError: there are checkpoints but none of them is intact.
    """
    steps = saved_steps(directory)
    damage = []
    for step in reversed(steps):
        problem = verify(directory, step)
        if problem is None:
            return restore(directory, step, abstract_state)
        damage.append(problem)
        log.warning("checkpoint %d is damaged (%s): trying the one before it", step, problem)
    if damage:
        raise UserError(
            f"{directory}: none of the checkpoints {steps} is intact ({'; '.join(damage)}); "
            "restore the folder from a backup, or remove it to begin again"
        )
    return None


def restore(directory: str | Path, step: int, abstract_state: Any) -> Restored:
    """Checkpoint `step`, unchecked, placed as `abstract_state` says."""
    directory = place(directory)
    state = ocp.load(directory / f"{step:08d}", abstract_state)
    return Restored(step, state, read_notes(directory, step))


def restore_params(directory: str | Path, step: int, specs: Any, shardings: Any) -> Any:
    """Only the parameters of checkpoint `step`, unchecked; the optimizer's state is not read."""
    folder = place(directory) / f"{step:08d}"
    wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, ocp.metadata(folder).metadata)
    wanted["params"] = jax.tree.map(
        lambda spec, place: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=place),
        specs,
        shardings,
    )
    return ocp.load(folder, wanted)["params"]


def read_notes(directory: str | Path, step: int) -> dict:
    """What was saved beside the arrays of checkpoint `step`."""
    return json.loads((place(directory) / f"{step:08d}.json").read_text())["notes"]


def saved_steps(directory: str | Path) -> list[int]:
    """Steps of the committed checkpoints, ascending."""
    directory = place(directory)
    if not directory.is_dir():
        return []
    return sorted(int(p.stem) for p in directory.glob("*.json") if p.stem.isdigit())


def saved_at(directory: str | Path, step: int) -> float:
    """When checkpoint `step` was committed, in seconds since 1970."""
    return json.loads((place(directory) / f"{step:08d}.json").read_text())["time"]


def place(directory: str | Path) -> epath.Path:
    """A folder, absolute as Orbax wants it, or an address (gs://...)."""
    is_address = "://" in str(directory)
    return epath.Path(str(directory) if is_address else Path(directory).resolve())


def verify(directory: str | Path, step: int) -> str | None:
    """What is wrong with checkpoint `step`, naming the file; None when every checksum agrees."""
    directory = place(directory)
    folder = directory / f"{step:08d}"
    try:
        expected = json.loads((directory / f"{step:08d}.json").read_text())["files"]
    except (ValueError, KeyError):
        return f"{folder.name}.json cannot be read"
    actual = _checksums(folder)
    for name, digest in expected.items():
        if name not in actual:
            return f"{folder.name}/{name} is missing"
        if actual[name] != digest:
            return f"{folder.name}/{name} has another checksum"
    return None


def _checksums(folder: epath.Path) -> dict[str, str]:
    files = sorted(root / name for root, _, names in folder.walk() for name in names)
    return {str(path.relative_to(folder)): _sha256(path) for path in files}


def _sha256(path: epath.Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            found.update(block)
    return found.hexdigest()


def _write_atomically(path: epath.Path, text: str) -> None:
    if "://" in str(path):  # an object of a bucket is there as a whole or not at all
        path.write_text(text)
        return
    temporary = path.with_suffix(".tmp")
    with Path(temporary).open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _remove_incomplete(directory: epath.Path) -> None:
    """Removes what an interrupted save left: folders without their checksums."""
    for entry in directory.iterdir():
        has_record = (directory / f"{entry.name}.json").exists()
        if entry.is_dir() and not has_record:
            entry.rmtree()
        elif entry.suffix == ".tmp":
            entry.unlink()


def _apply_retention(directory: epath.Path, config: CheckpointConfig) -> None:
    """Keeps the last n, every k-th, and the best on validation; removes the others."""
    steps = saved_steps(directory)
    keep = set(steps[-config.keep_last :])
    if config.keep_every:
        keep |= {s for s in steps if s % config.keep_every == 0}
    if config.keep_best:
        keep |= set(_by_criterion(directory, steps)[: config.keep_best])
    keep_only(directory, keep)


def keep_only(directory: str | Path, steps: Collection[int]) -> None:
    """Removes all checkpoints but these."""
    directory = place(directory)
    for step in set(saved_steps(directory)) - set(steps):
        (directory / f"{step:08d}.json").unlink()
        (directory / f"{step:08d}").rmtree()


def best_step(directory: str | Path) -> int | None:
    """The checkpoint that was best on validation; None where none was evaluated."""
    best = _by_criterion(place(directory), saved_steps(directory))
    return best[0] if best else None


def _by_criterion(directory: epath.Path, steps: list[int]) -> list[int]:
    """Steps whose last evaluation is known, the best (lowest criterion) first."""
    found = {step: read_notes(directory, step).get("criteria") for step in steps}
    return sorted((s for s in steps if found[s]), key=lambda s: found[s][-1])


def _last_good(directory: epath.Path) -> str:
    steps = saved_steps(directory)
    return f"the last good checkpoint is step {steps[-1]}" if steps else "there is none before it"


def _disk_problem(error: BaseException) -> str | None:
    """The reason, when the error (or its text: tensorstore raises ValueError) is about the disk."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reasons: tuple[str, ...] = ("No space left on device", "Read-only file system")
    reasons += ("Permission denied", "Disk quota exceeded", "File too large")
    return next((r for r in reasons if r in str(error)), None)
