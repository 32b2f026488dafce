"""Whether a run fits on TPU slices, how long it takes there and what it costs, without a TPU.

    python -m medjax.plan CONFIG.yaml --topology v5e:4x4 [--topology v6e:8x8] [--fit] [...]

The run's own train step is compiled for each slice by the real TPU compiler (`pip install libtpu`),
as `python -m medjax.pretrain CONFIG.yaml` would compile it there. Memory is what the compiler says;
times are a roofline: the longest of what the matrix units, the memory and the links between chips
take at their best. With `fit`, a step that does not fit is changed (recomputation, accumulation,
division of weights) until one does. Neither notes nor weights are needed: a run that begins from a
published model is given its shape as a second file (configs/model/).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from medjax.config import UserError, main
from medjax.pretrain import PretrainConfig

log = logging.getLogger(__name__)

MOST_COMPILED = 4
HOURS = 3600.0


class PlanConfig(PretrainConfig):
    """A run and the slices that it may be for."""

    topology: list[str] = Field(min_length=1)
    """Slices, such as v5e:4x4 or v5p:4x4x8, by commas or as a list."""
    num_slices: int = Field(1, ge=1)
    """Slices of that kind together, joined by the data centre's network."""
    fit: bool = False
    """Looks for a step that fits, where the configured one does not."""
    price: float | None = Field(None, gt=0)
    """Of a chip-hour, in whatever currency."""
    vocab_size: int | None = Field(None, ge=1)
    """Ids of the tokenizer; by default those of the model."""
    output: Literal["table", "json"] = "table"
    """What is printed."""
    cache: str | None = ".cache/plans"
    """Folder of compiled steps; a plan that is asked for again takes seconds. null: none."""
    run_dir: str = "unused"
    """Nothing is written to it."""

    @field_validator("topology", mode="before")
    @classmethod
    def _by_commas(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_beginning(self) -> PlanConfig:
        if self.model is None:
            raise ValueError(
                "a plan needs the model's shape: give the file of init_from's model too, such as "
                "configs/model/roberta_large.yaml"
            )
        return self


class Step(NamedTuple):
    """How a step is made: what `fit` may change."""

    accumulation: int
    remat: str
    fsdp: int | None


def run(config: PlanConfig) -> int:
    """Plans every slice; the exit code: 1 where none fits."""
    from medjax.training.aot import start_tpu_compiler

    start_tpu_compiler()
    plans = [plan(config, topology.strip()) for topology in config.topology]
    if config.output == "json":
        print(json.dumps(plans, indent=1))
    else:
        print(table(plans))
    return 0 if any(own["fits"] for own in plans) else 1


def plan(config: PlanConfig, topology: str) -> dict[str, Any]:
    """One slice: the configured step, or with `fit` the first that fits."""
    from medjax.training.aot import slice_devices

    devices = slice_devices(topology, config.num_slices)
    own = Step(config.loop.accumulation, config.compute.remat, config.mesh.fsdp)
    others = list(candidates(config, devices, own)) if config.fit else []
    divides = config.loop.batch_size % (len(devices) // config.mesh.tensor * own.accumulation) == 0
    tried = 0
    for step in others if others and not divides else (own, *others):
        found = compile_step(config, topology, devices, step)
        tried += 1
        if found["fits"]:
            break
    found["compiled_steps"] = tried
    if not found["fits"]:
        found["advice"] = (
            "none of the likeliest steps fits; take more or larger chips, or a smaller batch"
            if config.fit
            else "try --fit, compute.remat, a larger loop.accumulation, or mesh.fsdp"
        )
    return found


def compile_step(
    config: PlanConfig, topology: str, devices: list[Any], step: Step
) -> dict[str, Any]:
    """What a step needs and how long it takes, at best."""
    import jax

    from medjax.models.model import build_model
    from medjax.models.spec import count_params
    from medjax.objectives.objective import build_objective, loss_of_blocks
    from medjax.training.aot import compile_for
    from medjax.training.mesh import check_batch, make_mesh, memory_limit
    from medjax.training.optimizer import build_optimizer
    from medjax.training.schedule import build_schedule
    from medjax.training.state import abstract_state, state_specs
    from medjax.training.step import lower_train_step

    mesh_config = config.mesh.model_copy(update={"fsdp": step.fsdp})
    loop = config.loop.model_copy(update={"accumulation": step.accumulation})
    unroll = config.compute.unroll or 1  # what `none` means on a TPU
    compute = config.compute.model_copy(update={"remat": step.remat, "unroll": unroll})
    model = build_model(config.model, compute)
    mesh = make_mesh(mesh_config, count_params(model.specs), devices)
    check_batch(loop.batch_size, loop.accumulation, mesh)
    objective = build_objective(config.objective, model, vocabulary(config))
    schedule = build_schedule(config.schedule, loop.steps)
    optimizer = build_optimizer(config.optimizer, schedule, model.specs)
    specs = state_specs(model.specs, optimizer.state_specs)
    limit = memory_limit(devices[0])

    def lower() -> Any:
        with jax.set_mesh(mesh):
            loss = loss_of_blocks(objective)
            return lower_train_step(loss, objective.block_length, optimizer, loop, mesh, specs)

    place = f"{topology} x {config.num_slices}"
    program = compile_for(lower, limit, place, Path(config.cache) if config.cache else None)
    abstract = abstract_state(specs, mesh)
    found = {
        "topology": topology,
        "num_slices": config.num_slices,
        "chips": len(devices) // chip(devices).devices,
        "batch_size": loop.batch_size,
        "mesh": dict(mesh.shape),
        "accumulation": loop.accumulation,
        "remat": step.remat,
        "fits": program.text is not None,
        "memory_used": program.needed,
        "memory_limit": limit,
        "parameters": local_bytes(abstract.params),
        "optimizer": local_bytes(abstract.opt_state),
        "temporaries": program.temporaries,
        "compile_seconds": round(program.seconds, 1),
    }
    if program.text is not None:
        tokens = loop.batch_size * objective.block_length
        found |= roofline(config, devices, step, program.text, tokens)
    return found


def chip(devices: list[Any]) -> Any:
    """The kind of chip of a slice."""
    from medjax.training.chips import chip_of

    return chip_of(devices[0])


def local_bytes(tree: Any) -> float:
    """Bytes of a tree on one device."""
    import jax

    def of(leaf: Any) -> int:
        size = leaf.dtype.itemsize
        for length in leaf.sharding.shard_shape(leaf.shape):
            size *= length
        return size

    return float(sum(map(of, jax.tree.leaves(tree))))


def roofline(
    config: PlanConfig, devices: list[Any], step: Step, text: str, tokens: int
) -> dict[str, Any]:
    """Times of a step by what bounds it, and what follows for the run."""
    from medjax.training.compiled import read_traffic
    from medjax.training.flops import peak_flops, train_flops

    own, count = chip(devices), len(devices)
    flops = config.loop.batch_size * train_flops(config.model, config.objective)
    again = 4 / 3 if step.remat == "full" else 1.0  # the forward pass once more
    traffic = read_traffic(text)
    by_kind = traffic.by_kind(count // config.num_slices)
    inside, outside = (sum(sent[place] for sent in by_kind.values()) for place in (0, 1))
    times = {
        "compute": flops * again / (count * peak_flops(devices[0])),
        "memory": traffic.memory / (own.hbm_rate / own.devices),
        "interconnect": inside / (own.ici_rate / own.devices),
        "network": outside / (own.dcn_rate / own.devices),
    }
    seconds = max(times.values())
    hours = config.loop.steps * seconds / HOURS
    chips = count // own.devices
    return {
        "flops_per_step": flops,
        "memory_bytes": traffic.memory,
        "interconnect_bytes": {kind: sent[0] for kind, sent in by_kind.items()},
        "network_bytes": {kind: sent[1] for kind, sent in by_kind.items() if sent[1]},
        "seconds_by_bound": times,
        "bound": max(times, key=times.get),
        "step_seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "mfu": flops / (seconds * count * peak_flops(devices[0])),
        "run_tokens": tokens * config.loop.steps,
        "run_hours": hours,
        "run_cost": None if config.price is None else hours * chips * config.price,
    }


def candidates(config: PlanConfig, devices: list[Any], own: Step) -> Iterator[Step]:
    """Other steps, the fastest by estimate first, each of which needs clearly less than the one
    before; where nothing should fit, those that need least."""
    from medjax.models.model import model_specs
    from medjax.models.spec import count_params
    from medjax.training.mesh import memory_limit

    limit, tensor = memory_limit(devices[0]), config.mesh.tensor
    params = count_params(model_specs(config.model))
    rows, left = divmod(config.loop.batch_size, len(devices) // tensor)
    found = [
        (*estimate(config, params, devices, step), step)
        for fsdp in divisors(len(devices) // tensor)
        for remat in ("none", "dots", "full")
        for accumulation in ([] if left else divisors(rows))
        if (step := Step(accumulation, remat, fsdp)) != own
    ]
    found.sort()
    fitting = [(seconds, needed, step) for needed, seconds, step in found if needed < 0.9 * limit]
    chosen, last = [], math.inf
    for _, needed, step in sorted(fitting):
        if needed < 0.7 * last:
            chosen.append(step)
            last = needed
    for _, _, step in found:  # there may be room where the estimate sees none
        if len(chosen) < MOST_COMPILED and step not in chosen:
            chosen.append(step)
    yield from chosen[:MOST_COMPILED]


def divisors(number: int) -> list[int]:
    """1 among them, and itself."""
    return [n for n in range(1, number + 1) if number % n == 0]


def estimate(
    config: PlanConfig, params: int, devices: list[Any], step: Step
) -> tuple[float, float]:
    """(bytes a device, seconds) of a step, for ranking alone.

    Bytes: state and gradients in float32, gathered weights of a layer, and per token and layer what
    the backward pass keeps: 34 widths as in Korthikanti et al. 2022, equation 2, less the more is
    computed anew. Seconds: products at the peak, what is kept and (for each part of the batch)
    weights and gradients over memory, and divided weights over the links, one after the other.
    """
    from medjax.training.flops import peak_flops, train_flops

    model, count, own = config.model, len(devices), chip(devices)
    rows = config.loop.batch_size / count
    width = getattr(model, "hidden_size", None) or model.d_model
    layers = getattr(model, "num_hidden_layers", None) or 2 * model.num_layers
    length = getattr(config.objective, "sequence_length", None) or config.objective.inputs_length
    kept = {"none": 34, "dots": 24, "full": 2}[step.remat]
    held = params / config.mesh.tensor
    activations = rows * length * width * (layers * kept + 60)
    needed = 16 * held / step.fsdp + 4 * params / layers + activations / step.accumulation

    again = {"none": 1.0, "dots": 1.05, "full": 4 / 3}[step.remat]
    flops = config.loop.batch_size * train_flops(config.model, config.objective)
    products = again * flops / (count * peak_flops(devices[0]))
    moved = 2 * activations + step.accumulation * 12 * held  # read twice in bf16, and their sums
    gathered = step.accumulation * 6 * held * (step.fsdp - 1) / step.fsdp
    seconds = products + (moved / own.hbm_rate + gathered / own.ici_rate) * own.devices
    return needed, seconds


def vocabulary(config: PlanConfig) -> Any:
    """The tokenizer's facts: of the prepared notes if they are there, else of the same sizes."""
    import numpy as np

    from medjax.data.tokenize import Vocabulary, load_vocabulary

    folder = Path(config.data[0].path) / "tokenizer"
    if folder.is_dir():
        return load_vocabulary(folder)
    size = config.vocab_size or config.model.vocab_size
    if size > config.model.vocab_size:
        raise UserError(f"vocab_size {size} is more than the model's {config.model.vocab_size}")
    sentinels = np.arange(size - 1, max(size - 101, 8), -1, dtype=np.int32)
    special = np.array([0, 1, 2, 3, *sorted(sentinels)], np.int32)
    return Vocabulary(size, 0, 1, 2, sentinels, special, np.zeros(size, bool))


def table(plans: list[dict[str, Any]]) -> str:
    """A row a slice."""
    from medjax.scoring.results import columns

    head = ["slice", "chips", "mesh", "acc", "remat", "GiB of", "state", "temp", "step s", "bound"]
    head += ["tokens/s", "MFU", "days", "cost", "compiled s"]
    lines = [head]
    for own in plans:
        name = own["topology"] + (f" x {own['num_slices']}" if own["num_slices"] > 1 else "")
        mesh = "x".join(str(size) for size in own["mesh"].values())
        gib = {n: own[n] / 2**30 for n in ("memory_used", "memory_limit", "temporaries")}
        state = (own["parameters"] + own["optimizer"]) / 2**30
        line = [name, str(own["chips"]), mesh, str(own["accumulation"]), own["remat"]]
        line += [f"{gib['memory_used']:.1f} {gib['memory_limit']:.1f}", f"{state:.1f}"]
        if own["fits"]:
            cost = "" if own["run_cost"] is None else f"{own['run_cost']:,.0f}"
            line += [f"{gib['temporaries']:.1f}", f"{own['step_seconds']:.3f}", own["bound"]]
            line += [f"{own['tokens_per_second']:,.0f}", f"{own['mfu']:.0%}"]
            line += [f"{own['run_hours'] / 24:.1f}", cost]
        else:
            line += ["", "does not fit", "", "", "", "", ""]
        lines.append([*line, f"{own['compile_seconds']:.0f}"])
    notes = [f"{own['topology']}: {own['advice']}" for own in plans if "advice" in own]
    return "\n".join([columns(lines), *notes])


if __name__ == "__main__":
    main(PlanConfig, run, __doc__)
