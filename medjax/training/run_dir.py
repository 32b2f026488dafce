"""A run directory belongs to one configuration and to one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from medjax.config import Schema, UserError, differences, load, save

S = TypeVar("S", bound=Schema)


def check_resumable(run_dir: Path, config: Schema, changeable: tuple[str, ...]) -> None:
    """Refuses a directory that holds a run of another configuration.

    Args:
      run_dir: may be missing or empty.
      config: what is asked for now.
      changeable: prefixes of dotted names that may differ from the saved configuration.

    Raises:
      UserError: naming every field that differs.
    """
    saved = run_dir / "config.yaml"
    if not saved.exists():
        return
    changed = [
        line
        for line in differences(load(type(config), [saved]), config)
        if not line.startswith((*changeable, "run_dir:"))
    ]
    if changed:
        raise UserError(
            f"{run_dir}: holds a run of another configuration (saved -> asked for now):\n"
            + "".join(f"  {line}\n" for line in changed)
            + "  put these back to resume it, or choose another run_dir"
        )


@contextlib.contextmanager
def claimed(run_dir: Path, config: Schema, *, active: bool = True) -> Iterator[None]:
    """Writes the configuration and holds the directory's lock, in the one process that is active.

    Raises:
      UserError: another process works in it.
    """
    if not active:
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{run_dir}: another process is training in this directory; wait for it, stop it, "
                "or choose another run_dir"
            ) from None
        save(config, run_dir / "config.yaml")
        yield
