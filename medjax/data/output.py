"""Output folders that appear only when they are complete.

`new_folder` hands out a hidden sibling of the folder to come; when the work in it has ended well,
everything is flushed to the disk and the sibling renamed. What a killed run leaves is a folder
named `.NAME.incomplete`, which the next run removes. `work_folder` is for long work: what a killed
run leaves there, the same run goes on from.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from medjax.config import UserError

REMEDIES = {
    errno.ENOSPC: "the disk is full; make room or choose another folder, and run it again",
    errno.EDQUOT: "the disk quota is used up; make room or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "no permission to write here; choose another folder",
    errno.EPERM: "no permission to write here; choose another folder",
    errno.EEXIST: "a part of the path is a file; choose another folder",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
}

RESULT = "result"


class DiskError(UserError):
    """The place cannot be written; after a remedy the same command goes on."""


# Some network file systems have no locks; then two runs on one output are not noticed
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def is_complete(
    output: str | Path, marker: str, differences: Callable[[], list[str]], overwrite: bool
) -> bool:
    """Whether `output` already is what the run would make; then it is left alone.

    Args:
      output: the folder to be.
      marker: name of a file that every complete folder of this kind has.
      differences: what an existing folder was made of that is not so now.
      overwrite: as configured.

    Raises:
      UserError: when something else is there that may not be replaced.
    """
    output = Path(output)
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / marker).is_file():
        raise UserError(
            f"{output}: exists, but is no result of this command (no {marker}); "
            "choose another output"
        )
    changed = differences()
    if changed and not overwrite:
        shown = "\n".join(f"  {line}" for line in changed)
        raise UserError(
            f"{output}: was made differently; choose another output or set overwrite to true\n"
            f"{shown}"
        )
    return not changed


@contextlib.contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """A folder to write into; renamed to `output` at the end, removed on any error.

    An `output` that is there already is replaced at that moment.

    Raises:
      UserError: when the disk is full, the place cannot be written, or another run writes there.
    """
    output = Path(os.path.abspath(output))
    partial = output.with_name(f".{output.name}.incomplete")
    with explain_write_errors(output), _lock(output):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            _flush(partial)
            _replace(partial, output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def work_folder(output: str | Path, identity: str) -> Iterator[Path]:
    """A folder beside `output` for work in steps; its part `result` becomes `output` at the end.

    It stays where the work was interrupted (a signal, a full disk), for the same command to go on
    from, and goes when it ended, well or with an error of its input.

    Args:
      identity: of the work; what another one left is removed.

    Raises:
      UserError: when the disk is full, the place cannot be written, or another run writes there.
    """
    output = Path(os.path.abspath(output))
    work = output.with_name(f".{output.name}.work")
    with explain_write_errors(output), _lock(output):
        mark = work / "identity"
        if not mark.is_file() or mark.read_text() != identity:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            mark.write_text(identity)
        try:
            with explain_write_errors(output):
                yield work
                _flush(work / RESULT)
                _replace(work / RESULT, output)
        except DiskError:
            raise
        except UserError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def explain_write_errors(place: Path) -> Iterator[None]:
    """Turns a full disk and missing permissions into a sentence that names `place`."""
    try:
        yield
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        raise DiskError(f"{error.filename or place}: {REMEDIES[error.errno]}") from None


@contextlib.contextmanager
def _lock(output: Path) -> Iterator[None]:
    """One run at a time writes an output."""
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.name}.lock")
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{output}: another run is writing it; wait for that or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _replace(partial: Path, output: Path) -> None:
    """Two renames where `output` exists: the old one steps aside, then goes."""
    old = output.with_name(f".{output.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    _flush_entry(output.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush_entry(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
