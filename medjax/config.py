"""Configuration: YAML with `base:` and dotted overrides becomes one frozen, typed schema.

Every command calls `main(Schema, run)`. Its schema (pydantic) says what may stand in the file;
this module reads, merges, checks and prints. All problems are listed at once, each with the
file, the field, the value, the limit and, for a misspelt name, the nearest one. Nothing here
imports JAX, so that `--help` and errors come at once.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import logging
import os
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

COMMAND_LINE = "command line"


class UserError(Exception):
    """Something the user can put right: what, where, the limit and the remedy."""

    exit_code = 2


class Schema(pydantic.BaseModel):
    """Base of all configuration: frozen, unknown names refused, field docstrings are the help."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


S = TypeVar("S", bound=Schema)
Origins = dict[tuple[str, ...], str]


def load(schema: type[S], paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> S:
    """Merges `paths` from left to right, then `overrides` ("a.b=value"), and checks the result.

    Raises:
      UserError: listing every problem found.
    """
    values: dict = {}
    origins: Origins = {}
    for path in paths:
        _merge(values, _read_with_bases(Path(path), origins))
    for override in overrides:
        name, _, text = override.partition("=")
        nested: Any = _parse_scalar(name, text)
        for part in reversed(name.split(".")):
            nested = {part: nested}
        _merge(values, _record(nested, origins, COMMAND_LINE))
    try:
        return schema.model_validate(values)
    except pydantic.ValidationError as error:
        problems = [_describe(e, schema, values, origins) for e in error.errors()]
        where = ", ".join(map(str, paths)) or COMMAND_LINE
        plural = "problem" if len(problems) == 1 else "problems"
        raise UserError(
            f"{where}: {len(problems)} {plural}\n" + "\n".join(f"  {p}" for p in problems)
        ) from None


def save(config: Schema, path: str | Path) -> None:
    """Writes the resolved configuration as YAML, itself a valid input."""
    Path(path).write_text(dump(config), encoding="utf-8")


def dump(config: Schema) -> str:
    """The resolved configuration as YAML text."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(old: Schema, new: Schema) -> list[str]:
    """Dotted names and both values of every field in which two configurations differ."""
    a, b = (dict(_leaves(c.model_dump(mode="json"))) for c in (old, new))
    names = sorted(set(a) | set(b))
    return [f"{n}: {a.get(n)!r} -> {b.get(n)!r}" for n in names if a.get(n) != b.get(n)]


def main(
    schema: type[S],
    run: Callable[[S], int | None],
    doc: str | None = None,
    folders: str | None = None,
) -> None:
    """Runs a command: `CONFIG.yaml [MORE.yaml] [--dotted.field value]`; ends with its exit code.

    Args:
      folders: the field that folders among the arguments are for, in the place of files.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    for library in ("jax", "grain", "httpx", "tensorstore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for library in ("absl", "orbax"):  # print tracebacks of errors that they raise as well
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        paths, overrides, wants_help = _split_arguments(schema, sys.argv[1:])
        given = [path for path in paths if Path(path).is_dir()] if folders else []
        if given:
            paths = [path for path in paths if path not in given]
            overrides.append(f"{folders}={json.dumps(given)}")
        if wants_help or not (paths or overrides):
            _print_help(schema, paths, overrides, doc)
            sys.exit(0 if wants_help else UserError.exit_code)
        code = run(load(schema, paths, overrides))
    except UserError as error:
        code = _fail(str(error), error.exit_code)
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        place = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{place}{error.strerror}; {_REMEDIES[error.errno]}", UserError.exit_code)
    sys.exit(code or 0)


_REMEDIES = {
    errno.ENOSPC: "make room or choose another folder, then run the same command again",
    errno.EDQUOT: "free some of the quota or choose another folder, then run it again",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "check the permissions or choose another folder",
    errno.ENOENT: "check the path",
}


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _split_arguments(
    schema: type[Schema], arguments: Sequence[str]
) -> tuple[list[str], list[str], bool]:
    """Config paths, overrides as "a.b=value", and whether help is asked for.

    A yes-or-no field needs no value, and one that takes a list may come several times.
    """
    kinds = dict(_fields(schema))
    paths: list[str] = []
    given: dict[str, list[str]] = {}
    rest = [a for a in arguments if a not in ("-h", "--help")]
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            paths.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if not equals:
            is_last = not rest or rest[0].startswith("--")
            if is_last and kinds.get(name) is bool:
                value = "true"
            elif not rest:
                raise UserError(f"{COMMAND_LINE}: --{name} has no value; write --{name} VALUE")
            else:
                value = rest.pop(0)
        given.setdefault(name, []).append(value)
    overrides = []
    for name, values in given.items():
        if len(values) > 1 and typing.get_origin(kinds.get(name)) is list:
            overrides.append(f"{name}={json.dumps([_parse_scalar(name, v) for v in values])}")
        else:
            overrides += [f"{name}={value}" for value in values]
    return paths, overrides, any(a in ("-h", "--help") for a in arguments)


def _print_help(
    schema: type[Schema], paths: Sequence[str], overrides: Sequence[str], doc: str | None
) -> None:
    """Usage, then every field with its docstring and the value that the given files lead to."""
    import tyro

    command = Path(sys.argv[0]).stem
    if doc:
        print(doc.strip() + "\n")
    default = load(schema, paths, overrides) if paths or overrides else _blank(schema)
    with contextlib.suppress(SystemExit):  # tyro ends the process after help
        tyro.cli(
            schema,
            prog=f"python -m medjax.{command} CONFIG.yaml",
            description="",
            default=default,
            args=["--help"],
            config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
            use_underscores=True,
        )


def _blank(schema: type[S]) -> S:
    """The schema's defaults, with what is required left open, as tyro shows it."""
    import tyro

    required = {n: f.annotation for n, f in schema.model_fields.items() if f.is_required()}
    lists = [n for n, kind in required.items() if typing.get_origin(kind) is list]
    return schema.model_construct(**dict.fromkeys(required, tyro.MISSING) | {n: [] for n in lists})


def _read_with_bases(path: Path, origins: Origins, seen: tuple[Path, ...] = ()) -> dict:
    """One file with what its `base:` files (relative to it) say below it."""
    if path.resolve() in seen:
        chain = " -> ".join(p.name for p in (*seen, path))
        raise UserError(
            f"{path}: `base:` leads back to itself ({chain}); remove one of these links"
        )
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        named_by = f" (named by `base:` in {seen[-1]})" if seen else ""
        near = difflib.get_close_matches(path.name, _siblings(path), n=1)
        hint = f"; did you mean {path.with_name(near[0])}?" if near else ""
        raise UserError(f"{path}: no such configuration file{named_by}{hint}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from None
    if own is None:
        own = {}
    if not isinstance(own, dict):
        raise UserError(f"{path}: holds a {type(own).__name__}, but must hold `name: value` lines")
    bases = own.pop("base", [])
    merged: dict = {}
    for base in [bases] if isinstance(bases, str) else bases:
        _merge(merged, _read_with_bases(path.parent / base, origins, (*seen, path.resolve())))
    return _merge(merged, _record(own, origins, str(path)))


def _siblings(path: Path) -> list[str]:
    return [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []


def _merge(into: dict, values: dict) -> dict:
    """Deep merge of mappings; anything else replaces."""
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
    return into


def _record(values: dict, origins: Origins, source: str, at: tuple[str, ...] = ()) -> dict:
    """Remembers that every value of `values` comes from `source`; later sources win."""
    for name, value in values.items():
        here = (*at, str(name))
        origins[here] = source
        if isinstance(value, dict):
            _record(value, origins, source, here)
    return values


def _parse_scalar(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(
            f"{COMMAND_LINE}: --{name}: the value is not valid YAML; quote it"
        ) from None


def _describe(error: Any, schema: type[Schema], values: dict, origins: Origins) -> str:
    """One problem as `field = value (file): what is wrong; remedy`."""
    path = _without_tags(error["loc"], values)
    name = ".".join(map(str, path))
    value = error.get("input")
    shown = "" if error["type"] == "missing" or isinstance(value, dict | list) else f" = {value!r}"
    keys = [tuple(map(str, path[:n])) for n in range(len(path), 0, -1)]
    origin = next((origins[k] for k in keys if k in origins), None)
    place = f" ({origin})" if origin else ""
    if error["type"] == "extra_forbidden":
        tags = [str(item) for item in error["loc"] if item not in path]
        if tags and name in _field_names(schema):
            return f"{name}{shown}{place}: {tags[-1]} has no such field; remove it"
        return f"{name}{shown}{place}: unknown name{_suggestion(name, schema)}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "missing":
        return f"{name}: is required; set it in the file or with --{name}"
    prefix = "" if error["msg"].startswith("Value error") else "must be "
    if not error["msg"].startswith(("Input should be ", "Value error")):
        prefix = ""
    return f"{name or 'configuration'}{shown}{place}: {prefix}{message}"


def _without_tags(loc: tuple, values: Any) -> tuple:
    """The error's path without the names of union members that pydantic puts into it."""
    path, current = [], values
    for i, item in enumerate(loc):
        inside = isinstance(current, dict) and item in current
        in_list = isinstance(current, list) and isinstance(item, int) and item < len(current)
        if inside or in_list:
            current = current[item]
            path.append(item)
        elif i == len(loc) - 1 or not isinstance(current, dict):
            path.append(item)
    return tuple(path)


def _suggestion(name: str, schema: type[Schema]) -> str:
    known = sorted(set(_field_names(schema)))
    parent, _, last = name.rpartition(".")
    leaves = {k.rpartition(".")[2]: k for k in reversed(known)}
    siblings = {leaf: k for k in known for p, _, leaf in [k.rpartition(".")] if p == parent}
    for names, cutoff in ((siblings, 0.6), (leaves, 0.8)):
        near = difflib.get_close_matches(last, names, n=1, cutoff=cutoff)
        if near:
            return f"; did you mean {names[near[0]]}?"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def _field_names(schema: Any) -> Iterator[str]:
    """Dotted names of all fields, those of union members and list items included."""
    return (name for name, _ in _fields(schema))


def _fields(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The same with their types."""
    for name, field in schema.model_fields.items():
        yield prefix + name, field.annotation
        for member in _schemas_in(field.annotation):
            yield from _fields(member, f"{prefix}{name}.")


def _schemas_in(annotation: Any) -> list[type[Schema]]:
    if isinstance(annotation, type) and issubclass(annotation, Schema):
        return [annotation]
    return [s for a in typing.get_args(annotation) for s in _schemas_in(a)]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    else:
        yield path, value
