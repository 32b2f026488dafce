"""Answers of a model, kept in a file as they come: a kill loses few of them and repeats none.

The file has one JSON line for each example, `id` and `output`; the first line of every part that
was asked together says under `about` what asking took.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.tasks.examples import Example
from medjax.tasks.predictions import private_file

log = logging.getLogger(__name__)

TOGETHER = 512  # examples between two saves


class Asked(NamedTuple):
    """Answers to some examples."""

    outputs: list[Any]
    """Texts, or log probabilities of the classes."""
    tokens_in: int
    """Of the prompts, what they share counted each time."""
    tokens_out: int
    shared: int
    """Tokens that all prompts begin with, computed once."""
    cut: int
    """Examples of whose text something was left out, by task.max_length and long."""
    seconds: float
    """Without those of compilation."""


def ask_all(
    path: Path, name: str, examples: Sequence[Example], ask: Callable[[Sequence[Example]], Asked]
) -> Asked:
    """The answers to all examples; those that `path` holds are not asked for again.

    Args:
      name: what the log calls the examples.
    """
    done = _read(path)
    if done:
        log.info("%s: %d of %d answers are there", name, len(done), len(examples))
    else:
        path.unlink(missing_ok=True)
        private_file(path).close()
    missing = [example for example in examples if example.id not in done]
    begin, count = time.monotonic(), 0
    for first in range(0, len(missing), TOGETHER):
        part = missing[first : first + TOGETHER]
        found = ask(part)
        _append(path, part, found)
        count += len(part)
        seconds = time.monotonic() - begin
        log.info(
            "%s: %d/%d answers | %.1f a second | %.0f tokens/s read, %.0f written | %.0f s left",
            name,
            count,
            len(missing),
            count / seconds,
            found.tokens_in / max(found.seconds, 1e-6),
            found.tokens_out / max(found.seconds, 1e-6),
            seconds / count * (len(missing) - count),
        )
    done = _read(path)
    parts = [about for _, about in done.values() if about]
    total = {n: sum(own[n] for own in parts) for n in ("tokens_in", "tokens_out", "cut", "seconds")}
    if total["cut"]:
        log.info("%s: %d texts were cut at task.max_length", name, total["cut"])
    outputs = [done[example.id][0] for example in examples]
    return Asked(outputs, shared=max(own["shared"] for own in parts), **total)


def _append(path: Path, examples: Sequence[Example], found: Asked) -> None:
    about = found._replace(outputs=[])._asdict()
    with path.open("a", encoding="utf-8") as file:
        for i, (example, output) in enumerate(zip(examples, found.outputs, strict=True)):
            row = {"id": example.id, "output": output} | ({"about": about} if i == 0 else {})
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, tuple[Any, dict | None]]:
    """Output and `about` of each id, from whole lines; one cut off by a kill is dropped."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row["id"]: (row["output"], row.get("about")) for row in rows}
