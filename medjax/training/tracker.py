"""Metrics of a run: `metrics.jsonl` (one JSON object a line), TensorBoard events, and the log line.

`metrics.jsonl` is exact under interruption: resuming cuts it back to the restored step and drops a
torn last line, so that the file of a resumed run equals that of an uninterrupted one in every
deterministic field.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Tracker:
    """Writes metrics on process 0; does nothing on the others."""

    def __init__(self, run_dir: str | Path, resume_step: int, *, active: bool = True):
        self._active = active
        if not active:
            return
        from tensorboardX import SummaryWriter

        path = Path(run_dir) / "metrics.jsonl"
        cut_back(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(
            str(Path(run_dir) / "tensorboard"), purge_step=resume_step + 1 if resume_step else None
        )

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        """Appends one line at `step`; numbers also go to TensorBoard under their names."""
        if not self._active:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        """Closes both files."""
        if self._active:
            self._file.close()
            self._events.close()


def cut_back(path: Path, step: int) -> None:
    """Drops every line after `step`, and a line that was not written to its end."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.rename(path)


def read_metrics(run_dir: str | Path) -> list[dict]:
    """All lines of `metrics.jsonl`, in order; an unfinished last line is left out."""
    text = (Path(run_dir) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
