"""Checkpoints: exact, verified, kept by policy; a damaged one is named and the one before used."""

import errno
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from medjax.config import UserError
from medjax.training import checkpoint
from medjax.training.checkpoint import Checkpoints, restore_latest, saved_steps, verify
from medjax.training.config import CheckpointConfig, MeshConfig
from medjax.training.mesh import make_mesh

KEEP_ALL = CheckpointConfig(keep_last=100)


def state_of(step, mesh=None):
    place = NamedSharding(mesh, PartitionSpec("fsdp")) if mesh else None
    values = np.random.default_rng(step).normal(size=(64, 8)).astype(np.float32)
    return {"params": jax.device_put(values, place), "step": jnp.int32(step)}


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def save(directory, steps, config=KEEP_ALL, losses=None):
    checkpoints = Checkpoints(directory, config)
    for i, step in enumerate(steps):
        checkpoints.save(step, state_of(step), {"criteria": (losses or [])[i : i + 1]})
    checkpoints.wait()


def largest_file(directory, step):
    return max(
        (directory / f"{step:08d}").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size
    )


def test_a_state_comes_back_bit_for_bit_on_another_mesh(tmp_path):
    meshes = [make_mesh(MeshConfig(fsdp=f), 0) for f in (8, 2)]
    checkpoints = Checkpoints(tmp_path, KEEP_ALL)
    checkpoints.save(3, state_of(3, meshes[0]), {"seconds": 0.1})
    checkpoints.wait()
    restored = restore_latest(tmp_path, abstract(state_of(0, meshes[1])))
    assert (restored.step, restored.notes) == (3, {"seconds": 0.1})
    np.testing.assert_array_equal(restored.state["params"], state_of(3)["params"])
    assert restored.state["params"].sharding.mesh.shape["fsdp"] == 2


def test_a_saved_state_may_be_overwritten_at_once(tmp_path):
    """The step donates its state, notes grow: what is being written must be a copy."""
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, KEEP_ALL)
    state = state_of(5)
    criteria = [1.0]
    checkpoints.save(5, state, {"criteria": criteria})
    criteria.append(0.0)
    jax.block_until_ready(overwrite(state))
    checkpoints.wait()
    restored = restore_latest(tmp_path, abstract(state_of(0)))
    assert restored.notes["criteria"] == [1.0]
    np.testing.assert_array_equal(restored.state["params"], state_of(5)["params"])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog, damage):
    save(tmp_path, [1, 2])
    path = largest_file(tmp_path, 2)
    damage(path)
    with caplog.at_level(logging.WARNING):
        restored = restore_latest(tmp_path, abstract(state_of(0)))
    assert restored.step == 1
    np.testing.assert_array_equal(restored.state["params"], state_of(1)["params"])
    assert f"checkpoint 2 is damaged (00000002/{path.relative_to(tmp_path / '00000002')}" in (
        caplog.text
    )


def test_none_intact_is_an_error(tmp_path):
    save(tmp_path, [1])
    flip_a_bit(largest_file(tmp_path, 1))
    with pytest.raises(UserError, match=r"none of the checkpoints \[1\] is intact"):
        restore_latest(tmp_path, abstract(state_of(0)))


def test_what_an_interrupted_save_left_is_removed(tmp_path):
    save(tmp_path, [1, 2])
    (tmp_path / "00000002.json").unlink()  # killed after the commit, before the checksums
    (tmp_path / "00000003.orbax-checkpoint-tmp").mkdir()  # killed while writing
    Checkpoints(tmp_path, KEEP_ALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001", "00000001.json"]


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (CheckpointConfig(keep_last=2), [5, 6]),
        (CheckpointConfig(keep_last=1, keep_every=3), [3, 6]),
        (CheckpointConfig(keep_last=1, keep_best=2), [2, 4, 6]),
    ],
)
def test_retention(tmp_path, config, kept):
    save(tmp_path, [1, 2, 3, 4, 5, 6], config, losses=[9, 1, 5, 2, 5, 6])
    assert saved_steps(tmp_path) == kept
    assert all(verify(tmp_path, step) is None for step in kept)
    assert {p.stem for p in tmp_path.iterdir()} == {f"{step:08d}" for step in kept}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_last_good_one_stays(tmp_path, monkeypatch, error):
    save(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path, KEEP_ALL)

    class Failing:
        def result(self):
            raise error

    monkeypatch.setattr(checkpoint.ocp, "save_async", lambda *_: Failing())
    checkpoints.save(2, state_of(2), {})
    with pytest.raises(UserError, match=r"No space left on device.*last good checkpoint is step 1"):
        checkpoints.wait()
    assert restore_latest(tmp_path, abstract(state_of(0))).step == 1
