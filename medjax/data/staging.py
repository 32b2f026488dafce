"""A prepared folder of a bucket (gs://, s3://) or a network drive, copied once to a host's disk.

Training reads blocks from all over the shards, by mapping them into memory: that needs a local
disk. Every file is checked against the manifest's SHA-256 as it comes; a copy that was cut short
goes on, and processes of one host share one copy. `fsspec` reads the addresses (gs:// by `gcsfs`).
Where the disk is too small, train tokens may stay where they are (streamed.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medjax.config import UserError
from medjax.data.manifest import MANIFEST, read_manifest
from medjax.data.progress import Progress
from medjax.data.streamed import MARK

CHUNK = 2**24
ROOM = 2**30  # bytes that are left free


def staged(path: str, folder: str | Path, *, stream: bool = False) -> Path:
    """The local copy of a prepared folder.

    Args:
      path: local, or an address.
      folder: holds the copies, each under a name made of its manifest.
      stream: of all but the train tokens, which are read where they are.

    Raises:
      UserError: nothing prepared is there, a file came damaged, or the disk has too little room.
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(path)
        content = system.cat_file(f"{root}/{MANIFEST}")
    except ImportError as error:
        raise UserError(f"{path}: {error}; install what reads such addresses") from None
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path}: not a prepared folder (no {MANIFEST}); copy it there, or make one with "
            "`python -m medjax.prepare`"
        ) from None
    name = hashlib.sha256(content).hexdigest()[:16]
    target = Path(folder) / (f"{name}-streamed" if stream else name)
    target.mkdir(parents=True, exist_ok=True)
    with (Path(folder) / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of this host may be copying
        if not (target / MANIFEST).exists():
            _copy(system, root, content, target, stream)
        if stream:  # the same folder may lie elsewhere than before
            address = system.unstrip_protocol(f"{root}/train")
            (target / MARK).write_text(json.dumps({"train": address}) + "\n")
    return target


def _copy(system: Any, root: str, content: bytes, target: Path, stream: bool) -> None:
    """Files that are not there yet, the manifest last."""
    (target / "manifest.part").write_bytes(content)
    wanted = {}
    for name in system.find(f"{root}/tokenizer"):
        wanted[f"tokenizer/{name.rpartition('/')[2]}"] = None
    for split, info in json.loads(content)["splits"].items():
        for shard in info["shards"]:
            for ending, digest in shard["sha256"].items():
                if stream and (split, ending) == ("train", "tokens"):
                    continue
                wanted[f"{split}/{shard['name']}.{ending}"] = digest
    try:
        sizes = {name: system.size(f"{root}/{name}") for name in wanted}
    except FileNotFoundError as error:
        raise UserError(f"{error.args[-1]}: is missing, but the manifest names it") from None
    there = {name for name in wanted if (target / name).exists()}  # renamed when it was checked
    missing = sum(size for name, size in sizes.items() if name not in there)
    free = shutil.disk_usage(target).free
    if missing + ROOM > free:
        raise UserError(
            f"{target}: {missing / 2**30:.1f} GiB are to be copied and {free / 2**30:.1f} GiB are "
            "free; make room, name another folder as `staging`, or leave train tokens where they "
            "are by `stream`"
        )
    done = sum(sizes[name] for name in there)
    progress = Progress(f"copying {root}", sum(sizes.values()), done)
    for name, digest in wanted.items():
        if name not in there:
            for count in _fetch(system, f"{root}/{name}", target / name, digest):
                done += count
                progress.show(done)
    progress.end(done)
    (target / "manifest.part").rename(target / MANIFEST)
    read_manifest(target)


def _fetch(system: Any, source: str, path: Path, digest: str | None) -> Iterator[int]:
    """Copies a file, yielding bytes as they come; it has its name once it is whole and right."""
    path.parent.mkdir(exist_ok=True)
    part, found = path.with_name(f"{path.name}.part"), hashlib.sha256()
    with system.open(source, "rb") as file, part.open("wb") as out:
        while block := file.read(CHUNK):
            found.update(block)
            out.write(block)
            yield len(block)
    if digest not in (None, found.hexdigest()):
        part.unlink()
        raise UserError(
            f"{source}: SHA-256 is {found.hexdigest()}, but the manifest says {digest}; copy it "
            "there again, or prepare the notes again"
        )
    part.rename(path)
