"""Commands that make files, several side by side, each begun once what it needs is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from medjax.config import UserError

GIB16 = 2**34
MEMORY = (  # glibc keeps what a step computes with for the next step, in large pages
    f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={GIB16}:glibc.malloc.trim_threshold={GIB16}"
)


class Job(NamedTuple):
    """One command."""

    name: str
    done: Path
    needs: list[Path]
    """What earlier jobs make, without which it cannot begin."""
    command: list[str]
    flops: float = 0.0


class Running(NamedTuple):
    """A job at work."""

    job: Job
    process: subprocess.Popen
    share: int
    begun: float


def run_jobs(jobs: list[Job], side_by_side: int, run_dir: Path) -> int:
    """Runs jobs as soon as what they need is there; the exit code of the first that failed, or 0.

    Each of those at work at once has its share of the cores to itself.
    """
    (run_dir / "logs").mkdir(exist_ok=True)
    compiled = {  # jobs are alike, so that one compiles for many
        "JAX_COMPILATION_CACHE_DIR": str(run_dir.resolve() / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    environment = {"GLIBC_TUNABLES": MEMORY, **os.environ, **compiled}
    waiting, free, failed = list(jobs), list(range(side_by_side)), 0
    running: list[Running] = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        while running or (waiting and not failed):
            ready = (job for job in waiting if all(path.exists() for path in job.needs))
            if free and not failed and (job := next(ready, None)):
                waiting.remove(job)
                running.append(begin(job, free.pop(0), side_by_side, environment, run_dir))
                continue
            if not running:
                needed = next(path for path in waiting[0].needs if not path.exists())
                raise UserError(f"{waiting[0].name} needs {needed}, which no job has made")
            time.sleep(0.2)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free.append(one.share)
                ended, passed = one.process.returncode, time.monotonic() - one.begun
                number = f"{len(jobs) - len(waiting) - len(running)}/{len(jobs)}"
                print(f"[{number}] {one.job.name} {passed:.0f} s", flush=True)
                if ended:
                    log = log_of(one.job, run_dir)
                    print(f"  ended with {ended}, see {log}; run the same command to go on")
                    failed = failed or ended
    finally:
        for one in running:
            one.process.terminate()  # it writes a checkpoint and ends
        for one in running:
            one.process.wait()
        signal.signal(signal.SIGTERM, before)
    return failed


def begin(
    job: Job, share: int, side_by_side: int, environment: dict[str, str], run_dir: Path
) -> Running:
    """Starts a job on one of equal shares of the cores, where the system can bind it to them."""
    with log_of(job, run_dir).open("w") as log:
        start = partial(subprocess.Popen, job.command, stdout=log, stderr=log, env=environment)
        if side_by_side == 1 or not hasattr(os, "sched_setaffinity"):
            return Running(job, start(), share, time.monotonic())
        cores = os.sched_getaffinity(0)
        try:  # a process inherits the cores of the thread that starts it
            own = sorted(cores)[share::side_by_side]
            os.sched_setaffinity(0, own or cores)
            return Running(job, start(), share, time.monotonic())
        finally:
            os.sched_setaffinity(0, cores)


def log_of(job: Job, run_dir: Path) -> Path:
    """What the job prints."""
    return run_dir / "logs" / f"{job.name.replace('/', '-')}.log"
