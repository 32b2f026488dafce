"""Prepared folders of buckets: copied once, checked, gone on with; here from fsspec's memory."""

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

from medjax.config import UserError
from medjax.data import staging
from medjax.data.shards import open_split
from medjax.data.staging import staged
from tests.training.conftest import prepared as folders  # noqa: F401


@pytest.fixture
def prepared(folders):  # noqa: F811
    """A prepared folder."""
    return Path(folders["bert"])


@pytest.fixture
def bucket(prepared):
    """The prepared folder at memory://bucket/notes."""
    memory = fsspec.filesystem("memory")
    memory.put(str(prepared), "/bucket/notes", recursive=True)
    yield "memory://bucket/notes"
    memory.rm("/bucket", recursive=True)


def test_a_copy_is_the_folder(bucket, prepared, tmp_path, monkeypatch):
    copy = staged(bucket, tmp_path)
    for split in ("train", "validation"):
        own, other = (open_split(folder, split) for folder in (copy, prepared))
        for ending, arrays in other.arrays.items():
            for a, b in zip(own.arrays[ending], arrays, strict=True):
                np.testing.assert_array_equal(a, b)
    assert {p.name for p in (copy / "tokenizer").iterdir()} == {
        p.name for p in (prepared / "tokenizer").iterdir()
    }
    monkeypatch.setattr(staging, "_copy", None)  # the second time there is nothing to do
    assert staged(bucket, tmp_path) == copy


def test_a_local_folder_is_staged_too_and_an_interrupted_copy_goes_on(
    prepared, tmp_path, monkeypatch
):
    fetched, whole = [], staging._fetch

    def fetch(system, source, path, digest):
        fetched.append(path.name)
        if len(fetched) == 3:
            path.parent.mkdir(exist_ok=True)
            path.with_name(f"{path.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        return whole(system, source, path, digest)

    monkeypatch.setattr(staging, "_fetch", fetch)
    with pytest.raises(KeyboardInterrupt):
        staged(str(prepared), tmp_path)
    before = len(fetched)
    copy = staged(str(prepared), tmp_path)
    again = fetched[before:]
    assert fetched[2] == again[0] and not set(fetched[:2]) & set(again)
    assert not list(copy.rglob("*.part"))
    assert open_split(copy, "train").info.tokens == open_split(prepared, "train").info.tokens


def test_train_tokens_may_stay_where_they_are(prepared, tmp_path):
    """Blocks that cross shards, too; what is gone since is named."""
    origin = tmp_path / "origin"
    shutil.copytree(prepared, origin)
    copy = staged(f"file://{origin}", tmp_path / "disk", stream=True)
    assert not list((copy / "train").glob("*.tokens")) and list((copy / "train").glob("*.offsets"))
    whole, parts = (open_split(folder, "train") for folder in (origin, copy))
    starts = np.arange(0, whole.info.tokens - 50, 37)
    np.testing.assert_array_equal(parts.read(starts, 50), whole.read(starts, 50))
    np.testing.assert_array_equal(parts.document(3), whole.document(3))
    moved = origin.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"train/00000.tokens: is missing or was cut short"):
        parts.read(starts[:1], 50)
    assert staged(str(moved), tmp_path / "disk", stream=True) == copy
    found = open_split(copy, "train").read(starts[:1], 50)
    np.testing.assert_array_equal(found, open_split(moved, "train").read(starts[:1], 50))


def test_what_is_wrong_is_named(bucket, prepared, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"not a prepared folder \(no manifest.json\)"):
        staged("memory://bucket", tmp_path)
    memory = fsspec.filesystem("memory")
    (name,) = [n for n in memory.find("/bucket/notes/train") if n.endswith("00000.tokens")]
    content = memory.cat_file(name)
    memory.pipe_file(name, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"00000.tokens: SHA-256 is .* but the manifest says"):
        staged(bucket, tmp_path)
    memory.rm(name)
    with pytest.raises(UserError, match="is missing, but the manifest names it"):
        staged(bucket, tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    memory.pipe_file(name, content)
    with pytest.raises(UserError, match="make room, name another folder as `staging`, or leave"):
        staged(bucket, tmp_path)
