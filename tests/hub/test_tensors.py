import errno
import importlib.util
import json
import pickle
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from medjax.config import UserError
from medjax.hub import tensors


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {f"layer.{i}.weight": rng.normal(size=(4, 8)).astype(np.float32) for i in range(5)}


def write(folder, arrays, max_bytes=10**9, dtype="float32"):
    counts = {name: array.size for name, array in arrays.items()}
    tensors.write_tensors(folder, arrays.items(), counts, dtype, max_bytes)


@pytest.mark.parametrize("max_bytes", [10**9, 300, 1])
def test_single_and_sharded_files_come_back(tmp_path, arrays, max_bytes):
    write(tmp_path, arrays, max_bytes)
    opened = tensors.open_tensors(tmp_path)
    assert opened.keys() == arrays.keys()
    for name, array in arrays.items():
        assert opened[name].shape == array.shape
        np.testing.assert_array_equal(opened[name].read(), array)
    files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    shards = {10**9: 1, 300: 3, 1: 5}[max_bytes]
    assert files[0] == (
        "model.safetensors" if shards == 1 else f"model-00001-of-{shards:05d}.safetensors"
    )
    assert len(files) == shards


def test_the_index_is_the_one_of_transformers(tmp_path, arrays):
    write(tmp_path, arrays, 300)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 5 * 4 * 8 * 4
    assert index["weight_map"]["layer.4.weight"] == "model-00003-of-00003.safetensors"


@pytest.mark.parametrize("dtype", tensors.DTYPES)
def test_views_are_written_in_order_and_cast(tmp_path, dtype):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write(tmp_path, {"a": array.T}, dtype=dtype)
    stored = tensors.open_tensors(tmp_path)["a"].read()
    assert stored.dtype == tensors.DTYPES[dtype]
    np.testing.assert_array_equal(stored.astype(np.float32), array.T)


def test_files_are_as_readable_as_their_folder(tmp_path, arrays):
    tmp_path.chmod(0o750)
    write(tmp_path, arrays)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_folder_without_weights_names_what_is_there(tmp_path):
    (tmp_path / "tf_model.h5").touch()
    with pytest.raises(
        UserError, match="no weights; expected model.safetensors .*tf_model.h5 cannot be read"
    ):
        tensors.open_tensors(tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "header", "empty", "lfs"])
def test_damaged_files_are_named(tmp_path, arrays, damage):
    write(tmp_path, arrays)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        {
            "truncate": data[:-7],
            "header": b"\xff" * 8 + data[8:],
            "empty": b"",
            "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        }[damage]
    )
    match = "git lfs pull" if damage == "lfs" else "model.safetensors: truncated or damaged"
    with pytest.raises(UserError, match=match):
        tensors.open_tensors(tmp_path)


def test_a_broken_index_is_named(tmp_path, arrays):
    write(tmp_path, arrays, 300)
    index = tmp_path / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    cases = {
        "not valid JSON": "{",
        "must hold an object": "[]",
        "no weight_map": "{}",
        "must lie in the folder": json.dumps({"weight_map": {"a": "../other.safetensors"}}),
        "lacks b, which": json.dumps(
            {"weight_map": good["weight_map"] | {"b": good["weight_map"]["layer.0.weight"]}}
        ),
    }
    for match, text in cases.items():
        index.write_text(text)
        with pytest.raises(UserError, match=match):
            tensors.open_tensors(tmp_path)
    index.write_text(json.dumps(good))
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"1 of 3 shards are missing \(model-00002-of-00003.safetensors\)"
    ):
        tensors.open_tensors(tmp_path)


def test_quantised_tensors_are_refused_when_read(tmp_path):
    save_file({"w": np.ones(3, np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="w is stored as I8.*quantised"):
        tensors.open_tensors(tmp_path)["w"].read()


class Unpickled:
    """Would make a file when a pickle of it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_bin_files_need_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="needs torch, which is not installed; pip install 'medjax"):
        tensors.open_tensors(tmp_path)


def test_bin_files_are_read_where_torch_is_and_never_unpickled(tmp_path):
    path, trap = tmp_path / "pytorch_model.bin", tmp_path / "trap"
    if importlib.util.find_spec("torch") is None:
        path.write_bytes(pickle.dumps(Unpickled(str(trap))))
        with pytest.raises(UserError, match="needs torch"):
            tensors.open_tensors(tmp_path)
    else:
        import torch

        weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
        for new_format in (True, False):
            torch.save(weights, path, _use_new_zipfile_serialization=new_format)
            opened = tensors.open_tensors(tmp_path)
            np.testing.assert_array_equal(opened["a"].read(), np.arange(6.0).reshape(2, 3))
            assert opened["b"].read().dtype == np.float32
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        with pytest.raises(UserError, match="damaged"):
            tensors.open_tensors(tmp_path)
        torch.save({"a": Unpickled(str(trap))}, path)
        with pytest.raises(UserError, match="refuses to unpickle"):
            tensors.open_tensors(tmp_path)
        torch.save({"state": weights}, path)
        with pytest.raises(UserError, match="must hold tensors by name"):
            tensors.open_tensors(tmp_path)
    assert not trap.exists()


def test_a_full_disk_keeps_its_errno(tmp_path, arrays, monkeypatch):
    def full(*_, **__):
        raise tensors.SafetensorError("I/O error: No space left on device (os error 28) at path x")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError) as caught:
        write(tmp_path, arrays)
    assert caught.value.errno == errno.ENOSPC
