"""Prompts that something else answers, and its answers: JSON lines out and in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from medjax.config import UserError
from medjax.tasks.config import TaskConfig
from medjax.tasks.examples import Example
from medjax.tasks.predictions import private_file
from medjax.tasks.prompts import Prompter


def write_prompts(
    path: Path,
    prompter: Prompter,
    examples: Sequence[Example],
    shots: Sequence[Example],
    task: TaskConfig,
    *,
    allowed: bool,
) -> None:
    """Writes of each example `id`, `prompt` and, as a conversation, `messages`.

    Args:
      allowed: also where the data are not declared open.

    Raises:
      UserError: the data are not declared open, or the file is there.
    """
    if not (task.open or allowed):
        raise UserError(
            f"{path}: prompts hold texts of the task, those of the shots too, and its data are not "
            f"declared open (terms: {task.terms or 'not stated'}); set task.open for open data, or "
            "allow_export where the terms let you give them to what answers"
        )
    if path.exists():
        raise UserError(f"{path}: exists; remove it or choose another file")
    temporary = path.with_name(f".{path.name}.incomplete")
    temporary.unlink(missing_ok=True)
    with private_file(temporary) as file:
        for example in examples:
            row = {"id": example.id, "prompt": prompter.prompt(example, shots)}
            row["messages"] = prompter.turns(example, shots)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    temporary.rename(path)


def read_completions(path: Path, examples: Sequence[Example]) -> list[str]:
    """The answers in the order of the examples; JSON lines with `id` and `output`.

    Raises:
      UserError: a line is wrong, or there is not one answer for each example.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    outputs: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            name, output = str(row["id"]), row["output"]
            if not isinstance(output, str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}, line {number}: no object with `id` and `output`") from None
        if name in outputs:
            raise UserError(f"{path}, line {number}: the id {name} occurs twice")
        outputs[name] = output
    ids = {example.id for example in examples}
    missing, unknown = ids - set(outputs), set(outputs) - ids
    if missing or unknown:
        raise UserError(
            f"{path}: {len(missing)} ids of test are missing and {len(unknown)} are not of test; "
            "there must be one answer for each"
        )
    return [outputs[example.id] for example in examples]
