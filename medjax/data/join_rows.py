"""Notes that an export stores as several rows: put together again, wherever the rows stand.

Rows go to bucket files by their note's key, small enough that one fits in memory; each is then
grouped and ordered. The files lie in the scratch folder of the run and go with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from medjax.data.config import SourceConfig
from medjax.data.output import explain_write_errors
from medjax.data.readers import Row

BUCKET_BYTES = 32 * 2**20


def join_rows(
    rows: Iterator[Row], source: SourceConfig, scratch: Path, size: int, drops: Counter[str]
) -> Iterator[Row]:
    """One row a note, in an order that depends on the rows alone.

    Args:
      rows: as read; the columns `text`, `join_by` and `order_by` of `source` count.
      scratch: folder for the bucket files.
      size: bytes of the file on the disk, for the number of buckets.
      drops: rows that cannot be used are counted here by reason.
    """
    count = min(size * 4 // BUCKET_BYTES + 1, 256)  # text may have been compressed four times
    paths = [scratch / f"join-{i:03d}" for i in range(count)]
    with explain_write_errors(scratch), contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "w")) for path in paths]
        for row in rows:
            key = row.values.get(source.join_by)
            if row.problem or key in (None, ""):
                drops[row.problem or "no value in join_by"] += 1
                continue
            digest = hashlib.blake2b(str(key).encode("utf-8", "surrogatepass"), digest_size=8)
            bucket = int.from_bytes(digest.digest(), "big") % count
            values = {name: _plain(value) for name, value in row.values.items()}
            files[bucket].write(json.dumps([str(key), values, row.position]) + "\n")
    for path in paths:
        yield from _joined(path, source)
        path.unlink()


def _joined(path: Path, source: SourceConfig) -> Iterator[Row]:
    notes: dict[str, list[tuple[dict, int]]] = {}
    with open(path) as file:
        for line in file:
            key, values, position = json.loads(line)
            notes.setdefault(key, []).append((values, position))
    for key, parts in notes.items():
        if source.order_by:
            parts.sort(key=_order([values.get(source.order_by) for values, _ in parts], source))
        texts = [v[source.text] for v, _ in parts if v.get(source.text) not in (None, "")]
        values = dict(parts[0][0]) | {source.join_by: key}
        if not all(isinstance(text, str) for text in texts):
            yield Row({}, parts[0][1], "text is not a string")
            continue
        values[source.text] = source.join_with.join(texts)
        yield Row(values, max(position for _, position in parts), name=key)


def _order(found: list, source: SourceConfig):
    """Sorts rows by numbers where all values are numbers, else by text."""
    try:
        [float(value) for value in found]
    except (TypeError, ValueError):
        return lambda part: str(part[0].get(source.order_by) or "")
    return lambda part: float(part[0][source.order_by])


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
