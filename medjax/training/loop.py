"""The training loop: step, log, evaluate, save, stop. Used by every command that trains.

It is exact under interruption: what it remembers between log lines is saved with each checkpoint,
so that a resumed run writes the same figures as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from medjax.config import UserError
from medjax.training.checkpoint import Checkpoints, saved_steps
from medjax.training.config import CheckpointConfig, EvaluationConfig, LoopConfig
from medjax.training.goodput import Goodput, write_goodput
from medjax.training.state import TrainState
from medjax.training.tracker import Tracker
from medjax.training.work_clock import WorkClock

log = logging.getLogger(__name__)

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: the same command goes on from the checkpoint
SETTLE_EVERY = 64  # steps whose metrics may wait on the device


class Diverged(UserError):
    """The loss is no longer finite."""

    exit_code = 3


class Work(NamedTuple):
    """What the steps of a run amount to, for tokens/s and MFU."""

    tokens: Callable[[int], int]
    """Tokens of text read in the first so many steps."""
    flops: Callable[[int], float]
    """Model FLOPs of the first so many steps by the rule of training/flops.py."""
    peak_flops: float | None
    """FLOP/s that all devices together could do; None if unknown."""


class Loop(NamedTuple):
    """Everything that stays the same from step to step."""

    train_step: Callable[[TrainState, Any], tuple[TrainState, dict]]
    batches: Callable[[int], Iterator[Any]]
    """From a step on: the batches, already on the devices."""
    evaluate: Callable[[Any], dict[str, Any]] | None
    """Parameters -> figures of validation."""
    checkpoints: Checkpoints
    tracker: Tracker
    config: LoopConfig
    checkpoint: CheckpointConfig
    evaluation: EvaluationConfig
    work: Work
    criterion: Callable[[dict[str, Any]], float]
    """Figures of validation -> what decides which checkpoints are best; the lowest is."""
    about: dict
    """JSON saved with every checkpoint: which model it is, and where it comes from."""
    run_dir: Path
    say: Callable[[str, int], None] = lambda phase, step: None
    """Tells the run's other processes what this one does."""
    goodput: Goodput | None = None
    """Where the time goes; begins with the loop if there is none yet."""


def train(loop: Loop, state: TrainState, notes: dict) -> tuple[TrainState, int]:
    """Runs from `state.step` to the last step, or to a termination signal.

    Args:
      loop: the functions and limits.
      state: fresh or restored; its memory is reused.
      notes: what was saved with the restored state; empty for a fresh one.

    Returns:
      The last state and an exit code: 0, or EXIT_PREEMPTED after SIGTERM, with a checkpoint saved.

    Raises:
      Diverged: the loss is not finite; nothing is saved after the last finite step.
    """
    steps, step = loop.config.steps, int(state.step)
    goodput = loop.goodput or Goodput(notes.get("goodput"))
    meter = Meter(loop, notes, step, goodput)
    criteria = list(notes.get("criteria", []))
    if _has_stalled(criteria, loop.evaluation.patience):
        return state, 0
    with (
        _termination() as asked_to_stop,
        contextlib.closing(_Profile(loop)) as profile,
        goodput.phase("steps"),
    ):
        for batch in meter.timed(loop.batches(step)):
            profile.before(step + 1)
            loop.say("step", step)
            with WorkClock() as clock:
                state, metrics = loop.train_step(state, batch)
            meter.compiled(clock.compiling)
            step += 1
            meter.add(step, metrics)
            last, stopping = step == steps, asked_to_stop(step)
            if last or step % loop.config.log_every == 0:
                meter.report(step)
            if loop.evaluate and (last or step % loop.evaluation.every == 0):
                loop.say("evaluation", step)
                with meter.paused(), goodput.phase("evaluation"):
                    figures = loop.evaluate(state.params)
                criteria.append(loop.criterion(figures))
                loop.tracker.write(step, figures)
                last |= _has_stalled(criteria, loop.evaluation.patience)
            if last or stopping or step % loop.checkpoint.every == 0:
                loop.say("checkpoint", step)
                with meter.paused(), goodput.phase("checkpoint"):
                    meter.settle(step)
                    kept = {**loop.about, "criteria": criteria, **meter.notes()}
                    loop.checkpoints.save(step, state, kept)
            if stopping and not last:
                loop.checkpoints.wait()
                log.info(
                    "stopped by a signal at step %d; the same command goes on from there", step
                )
                return state, EXIT_PREEMPTED
            if last:
                break
        with goodput.phase("checkpoint"):
            loop.checkpoints.wait()
    if jax.process_index() == 0:
        write_goodput(loop.run_dir, goodput)
        log.info("%s", goodput.line())
    return state, 0


def _has_stalled(criteria: list[float], patience: int | None) -> bool:
    """Whether the best of the evaluations lies `patience` of them back."""
    if patience is None or not criteria:
        return False
    return len(criteria) - 1 - criteria.index(min(criteria)) >= patience


class Meter:
    """Means of the metrics between two log lines, speed, and time left."""

    def __init__(self, loop: Loop, notes: dict, step: int, goodput: Goodput):
        self.loop = loop
        self.goodput = goodput
        self.sums: dict[str, float] = dict(notes.get("sums", {}))
        self.seconds = notes.get("seconds", 0.0)
        self._reported = step
        self._pending: list[tuple[int, dict]] = []
        self._since = time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the step's metrics without waiting for the device."""
        self._pending.append((step, metrics))
        if len(self._pending) >= SETTLE_EVERY:
            self.settle(step - 2)

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches; what devices with nothing to do waited for them is the data's time."""
        batches = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            idle = not self._pending or self._pending[-1][1]["loss"].is_ready()
            if idle:
                self.goodput.move(time.monotonic() - start, "data")
            yield batch

    def compiled(self, seconds: float) -> None:
        """Keeps what a batch of a new shape took to compile out of tokens/s and MFU."""
        if seconds:
            self._since += seconds
            self.goodput.move(seconds, "compilation")

    def settle(self, until: int) -> None:
        """Waits for the metrics of the steps up to `until` and adds them up.

        Raises:
          Diverged: a loss or gradient norm is not finite.
        """
        ready = [p for p in self._pending if p[0] <= until]
        self._pending = [p for p in self._pending if p[0] > until]
        for step, metrics in jax.device_get(ready):
            values = {name: float(value) for name, value in metrics.items()}
            if not all(math.isfinite(values[name]) for name in ("loss", "grad_norm")):
                raise Diverged(_divergence(step, self.loop.checkpoints.directory))
            predicted = values["predicted"]
            added = {"steps": 1.0, "predicted": predicted, "grad_norm": values["grad_norm"]}
            added |= {n: values[n] * predicted for n in ("loss", "z_loss", "accuracy")}
            self.sums = {n: self.sums.get(n, 0.0) + v for n, v in added.items()}
            self.sums["learning_rate"] = values["learning_rate"]

    def notes(self) -> dict:
        """What a checkpoint must remember so that the next log line is exact."""
        seconds = self.seconds + time.perf_counter() - self._since
        return {"sums": self.sums, "seconds": seconds, "goodput": self.goodput.seconds()}

    def report(self, step: int) -> None:
        """Writes one line to the log and one to metrics.jsonl, and begins a new interval."""
        self.settle(step)
        now = time.perf_counter()
        interval, self._since = now - self._since, now
        self.seconds += interval
        work, sums = self.loop.work, self.sums
        before, self._reported = self._reported, step
        per_second = 1 / max(interval, 1e-9)
        figures = {n: sums[n] / max(sums["predicted"], 1.0) for n in ("loss", "z_loss", "accuracy")}
        figures |= {
            "grad_norm": sums["grad_norm"] / sums["steps"],
            "learning_rate": sums["learning_rate"],
            "tokens": work.tokens(step),
            "flops": work.flops(step),
            "seconds": round(self.seconds, 3),
            "tokens_per_s": round((work.tokens(step) - work.tokens(before)) * per_second, 1),
        }
        if work.peak_flops:
            done = (work.flops(step) - work.flops(before)) * per_second
            figures["mfu"] = round(done / work.peak_flops, 4)
        figures["goodput"] = self.goodput.share()
        self.loop.tracker.write(step, figures)
        if jax.process_index() == 0:
            speed = (step - before) * per_second
            log.info("%s", _line(step, self.loop.config.steps, figures, speed))
        self.sums = {}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps the time of an evaluation or a checkpoint out of tokens/s and MFU."""
        if self._pending:
            jax.block_until_ready(self._pending[-1][1])
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start


def _line(step: int, steps: int, figures: dict[str, float], speed: float) -> str:
    left = (steps - step) / speed
    mfu = f" | mfu {figures['mfu']:.1%}" if "mfu" in figures else ""
    return (
        f"step {step}/{steps} | loss {figures['loss']:.4f} | "
        f"grad norm {figures['grad_norm']:.3f} | lr {figures['learning_rate']:.2e} | "
        f"{figures['tokens_per_s']:,.0f} tokens/s{mfu} | "
        f"{int(left // 3600)}:{int(left % 3600 // 60):02d}:{int(left % 60):02d} left"
    )


def _divergence(step: int, checkpoints: Path) -> str:
    good = saved_steps(checkpoints)
    where = (
        f"the last good checkpoint is step {good[-1]}" if good else "no checkpoint was saved yet"
    )
    return (
        f"the loss or the gradient is not finite at step {step}; {where} in {checkpoints}. Lower "
        "schedule.learning_rate, set optimizer.clip_norm, or warm up longer, in a new run directory"
    )


@contextlib.contextmanager
def _termination() -> Iterator[Callable[[int], bool]]:
    """Whether to stop after a step: SIGTERM or SIGINT has come; a second one ends at once.

    Of several processes any one may have got a SIGTERM; JAX then names a step at which all stop. A
    handler of ours would take the signal away from it.
    """
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        yield reached_preemption_sync_point
        return
    received: list[int] = []

    def handle(number, frame):
        received.append(number)
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else previous[number]
        )

    previous = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda step: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Profile:
    """Traces the steps that the configuration names into `run_dir/profile`."""

    def __init__(self, loop: Loop):
        self._directory = loop.run_dir / "profile"
        self._first = loop.config.profile_at
        self._end = (self._first or 0) + loop.config.profile_steps
        self._running = False

    def before(self, step: int) -> None:
        if step == self._first:
            jax.profiler.start_trace(self._directory)
            self._running = True
        elif self._running and step >= self._end:
            self.close()

    def close(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            log.info("profile of %s; look at it with xprof", self._directory)
