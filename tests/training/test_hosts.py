"""Runs of several real processes: the same losses; when one is lost or stopped, all end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medjax.config import save
from medjax.pretrain import run
from medjax.training.checkpoint import saved_steps
from medjax.training.hosts import EXIT_LOST
from medjax.training.loop import EXIT_PREEMPTED
from tests.training.conftest import config_in

DEVICES = 4
STEPS = 45  # more than are made before a signal comes
OPTIONS = [f"loop.steps={STEPS}", "checkpoint.every=5", "checkpoint.keep_last=2", "mesh.fsdp=2"]


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(config, folder, count):
    """The processes of a run over four devices, `python -m medjax.pretrain` in each."""
    file = folder / f"processes_{count}.yaml"
    save(config, file)
    shared = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(DEVICES // count),
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": str(count),
        "MEDJAX_LOST_AFTER": "12",
    }
    if count == 1:
        del shared["JAX_COORDINATOR_ADDRESS"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "medjax.pretrain", file],
            env=shared | {"JAX_PROCESS_ID": str(index)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finish(processes, timeout=240):
    """Exit codes and what each wrote to its log."""
    logs = [process.communicate(timeout=timeout)[1] for process in processes]
    return [process.returncode for process in processes], logs


def wait_for_checkpoint(run_dir, processes, after=0):
    end = time.monotonic() + 240
    while not any(step > after for step in saved_steps(run_dir / "checkpoints")):
        assert time.monotonic() < end and all(p.poll() is None for p in processes)
        time.sleep(0.1)


def losses(run_dir):
    lines = map(json.loads, (run_dir / "metrics.jsonl").open())
    return np.array([line["loss"] for line in lines if "loss" in line])


@pytest.fixture
def alone(prepared, tmp_path_factory):
    """`alone(family)`: the folder of the run in this process, on its eight devices."""

    def made(family):
        folder = tmp_path_factory.mktemp("alone")
        assert run(config_in(folder, prepared, family, *OPTIONS, run="alone")) == 0
        return folder / "alone"

    return made


@pytest.mark.long
def test_a_notice_to_one_stops_all_at_one_step(config_of, tmp_path, alone):
    """Two processes, then one: the same losses as all the time in one."""
    config = config_of("bert", *OPTIONS, run="notice")
    run_dir = Path(config.run_dir)
    processes = start(config, tmp_path, 2)
    wait_for_checkpoint(run_dir, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, logs = finish(processes)
    assert codes == [EXIT_PREEMPTED] * 2, logs
    assert 5 <= saved_steps(run_dir / "checkpoints")[-1] < STEPS
    codes, logs = finish(start(config, tmp_path, 1))
    assert codes == [0], logs
    np.testing.assert_allclose(losses(run_dir), losses(alone("bert")), rtol=1e-5)


def test_lost_processes_are_named_and_the_run_goes_on(config_of, tmp_path, alone):
    """One of four is killed, one of two hangs; the others end by themselves, and two go on."""
    config = config_of("llama", *OPTIONS, run="lost")
    run_dir = Path(config.run_dir)
    lose(start(config, tmp_path, 4), run_dir, 2, signal.SIGKILL)
    lose(start(config, tmp_path, 2), run_dir, 1, signal.SIGSTOP)
    codes, logs = finish(start(config, tmp_path, 2))
    assert codes == [0, 0], logs
    assert f"step {STEPS}/{STEPS}" in logs[0] and f"step {STEPS}/" not in logs[1]
    whole = alone("llama")
    np.testing.assert_allclose(losses(run_dir)[-1], losses(whole)[-1], rtol=1e-5)
    exports = [folder / "export" for folder in (whole, run_dir)]
    names, others = ({path.name for path in export.iterdir()} for export in exports)
    assert names == others
    sizes = [(export / "model.safetensors").stat().st_size for export in exports]
    assert sizes[0] == sizes[1]


def lose(processes, run_dir, index, number):
    """Sends a signal to one once there is a new checkpoint; all others must end and say why."""
    wait_for_checkpoint(run_dir, processes, max(saved_steps(run_dir / "checkpoints"), default=0))
    processes[index].send_signal(number)
    begin = time.monotonic()
    codes, logs = finish([p for i, p in enumerate(processes) if i != index], timeout=60)
    assert time.monotonic() - begin < 60
    processes[index].kill()
    finish([processes[index]])
    assert codes == [EXIT_LOST] * (len(processes) - 1), logs
    assert all(f"lost: process {index} on" in log for log in logs)
