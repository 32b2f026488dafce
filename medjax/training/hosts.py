"""Several processes as one run: how they find each other, and the end of all when one is lost.

Each process writes a beat into the run directory every few seconds, with its phase and step, and
reads those of the others. One whose beat stands still was killed, stopped, or lost with its host:
the others name it and end with exit code 76, in the place of waiting in a collective for ever. A
launcher that starts all of them again gets a run that goes on from its checkpoint. Nothing here
depends on process 0.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax

log = logging.getLogger(__name__)

EXIT_LOST = 76
BEAT = 2.0  # seconds
# Seconds without a beat, after which a process is lost.
SILENT = float(os.environ.get("MEDJAX_LOST_AFTER", "40"))
ABSENT = 300.0  # seconds that a process may take to begin


def join() -> None:
    """Joins the other processes where a cluster is found, before anything asks JAX for devices.

    A cluster is JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID, Slurm with
    several tasks, or TPU hosts. Otherwise the run has one process.
    """
    environment = os.environ
    if jax.distributed.is_initialized():
        return
    address = environment.get("JAX_COORDINATOR_ADDRESS")
    is_slurm = int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment
    if not (address or is_slurm or _on_tpu_hosts()):
        return
    jax.config.update("jax_enable_recoverability", True)  # else JAX aborts before a loss is named
    if address and "JAX_NUM_PROCESSES" in environment:
        count, own = (int(environment[f"JAX_{n}"]) for n in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(address, count, own)
    else:
        jax.distributed.initialize()
    if jax.process_index():
        logging.getLogger().setLevel(logging.WARNING)
    log.info("%d processes, %d devices", jax.process_count(), jax.device_count())


def _on_tpu_hosts() -> bool:
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    several = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return several or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ or Path("/dev/accel0").exists()


class Watch:
    """The beats of all processes of a run; with one process nothing is written."""

    def __init__(self, folder: Path, index: int, count: int):
        self.folder, self.index, self.count = folder, index, count
        self._said = {"phase": "start", "step": 0, "done": False}
        self._seen: dict[int, tuple[str, float]] = {}
        self._begun = time.monotonic()
        self._ended = threading.Event()

    def say(self, phase: str, step: int = 0) -> None:
        """What this process does now; the next beat carries it."""
        self._said = {"phase": phase, "step": step, "done": False}

    def lost(self) -> list[str]:
        """Names the processes whose beats stand still."""
        now, found = time.monotonic(), []
        for other in set(range(self.count)) - {self.index}:
            path = self.folder / f"{other}.json"
            try:
                text = path.read_text(encoding="utf-8")
                values = json.loads(text)
            except (OSError, ValueError):
                text, values = "", {}
            if text != self._seen.get(other, (None,))[0]:
                self._seen[other] = text, now
            silent = now - self._seen[other][1]
            if values.get("done") or silent < (SILENT if text else ABSENT):
                continue
            phase, step = values.get("phase", "start"), values.get("step", 0)
            host = values.get("host", "unknown host")
            found.append(f"{other} on {host} (last in {phase}, step {step}, {silent:.0f} s ago)")
        return found

    def run(self) -> None:
        """Beats and looks until the end; the loss of a process ends this one at once."""
        number = 0
        while not self._ended.wait(BEAT if number else 0.0):
            number += 1
            self._write(number)
            if lost := self.lost():
                log.error("lost: process %s; this one ends, start all again", "; ".join(lost))
                for handler in logging.getLogger().handlers:
                    handler.flush()
                if self.index == 0:  # holds the service without which JAX aborts the others
                    time.sleep(2 * BEAT)
                os._exit(EXIT_LOST)  # the main thread may sit in a collective

    def end(self) -> None:
        """Stops beating."""
        self._ended.set()

    def leave(self) -> None:
        """Ends with the others: process 0, which holds the service that joins them, as the last."""
        end = time.monotonic() + SILENT
        while self.index == 0 and not self._others_are_done() and time.monotonic() < end:
            time.sleep(0.1)
        jax.distributed.shutdown()
        self.end()  # or the thread's next beat would take the last word back
        self._said = self._said | {"done": True}
        self._write(-1)

    def _others_are_done(self) -> bool:
        paths = [self.folder / f"{other}.json" for other in range(1, self.count)]
        return all(path.exists() and '"done": true' in path.read_text() for path in paths)

    def _write(self, number: int) -> None:
        values = self._said | {"beat": number, "host": os.uname().nodename, "pid": os.getpid()}
        path = self.folder / f"{self.index}.json"
        temporary = path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # a full disk is another's to report
            temporary.write_text(json.dumps(values), encoding="utf-8")
            temporary.rename(path)


@contextlib.contextmanager
def watched(run_dir: Path) -> Iterator[Watch]:
    """A Watch over the run's processes, while the block runs.

    An error of JAX's may be what is left of a lost process: its name is then waited for.
    """
    watch = Watch(run_dir / "beats", jax.process_index(), jax.process_count())
    if watch.count == 1:
        yield watch
        return
    watch.folder.mkdir(parents=True, exist_ok=True)
    (watch.folder / f"{watch.index}.json").unlink(missing_ok=True)
    thread = threading.Thread(target=watch.run, name="beats", daemon=True)
    thread.start()
    try:
        yield watch
    except jax.errors.JaxRuntimeError as error:
        log.error("%s; waiting for the name of a lost process", str(error).splitlines()[0])
        thread.join(SILENT + 4 * BEAT)
        raise
    else:
        watch.leave()
    finally:
        watch.end()
