"""Texts of evaluation files, by field, for the contamination check.

Tables are read by the readers of notes. In JSON and XML a field is a name at any depth: every
string under a key, element or attribute of that name is a text (SQuAD, PubMedQA, RQE).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from medjax.config import UserError
from medjax.data.config import EvaluationConfig, SourceConfig
from medjax.data.files import bytes_of
from medjax.data.sources import read_texts, source_files


def read_fields(config: EvaluationConfig, field: str) -> Iterator[str]:
    """Every text of one field, empty ones left out.

    Raises:
      UserError: the file cannot be read, or the field occurs nowhere in it.
    """
    path = Path(config.path)
    if config.format in ("json", "xml"):
        suffixes: tuple[str, ...] = (f".{config.format}",)
    else:
        suffixes = (".json", ".xml") if config.format == "auto" else ()
    files = sorted(p for s in suffixes for p in path.rglob(f"*{s}")) if path.is_dir() else [path]
    documents = [p for p in files if p.suffix in suffixes]
    if not documents:
        kind = config.format
        source = SourceConfig(path=config.path, format=kind, text=field, encoding=config.encoding)
        source_files(source)
        yield from filter(None, read_texts(source))
        return
    found = False
    for document in documents:
        read = _xml if document.suffix == ".xml" or config.format == "xml" else _json
        for text in read(document, field):
            found = True
            if text.strip():
                yield text
    if not found:
        raise UserError(f"{config.path}: no {field!r} in it (`fields`); check the name")


def _json(path: Path, field: str) -> Iterator[str]:
    with bytes_of(path) as (content, _):
        data = content.read()
    try:
        yield from _strings_under(json.loads(data), field)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is no valid JSON; export it again, or set `format`") from None


def _strings_under(value: Any, field: str, inside: bool = False) -> Iterator[str]:
    if isinstance(value, str):
        if inside:
            yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _strings_under(child, field, inside or key == field)
    elif isinstance(value, list):
        for child in value:
            yield from _strings_under(child, field, inside)


def _xml(path: Path, field: str) -> Iterator[str]:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError):
        raise UserError(f"{path}: is no valid XML; export it again, or set `format`") from None
    for element in root.iter():
        if element.tag == field:
            yield "".join(element.itertext())
        if field in element.attrib:
            yield element.attrib[field]
