"""What a compiled program moves: bytes over memory and between devices, read off its text.

XLA's own cost analysis counts the body of a loop once. Here every computation counts as often as it
runs: a `while` of a scan has its number of turns in its condition. Collectives that are divided
into a start and a done are one, by their channel. A kernel's operands count once, though it may
read them again.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SIZES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8}
SIZES |= {"s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "s8": 1, "u8": 1}
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
)
NETWORK = "between slices"  # what TPU programs hand to their hosts, which exchange it
# Nothing is moved by these, or what they call is counted for itself.
FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "iota",
    "broadcast",
}
_OPENING = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (ROOT )?%([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    is_root: bool
    shape: str
    """The type of its result, as text."""
    opcode: str
    operands: tuple[str, ...]
    argument: str
    """What stands in the brackets: a constant's value, a parameter's number."""
    attributes: str
    """All after the operands."""


class Collective(NamedTuple):
    """One exchange between devices, as often as the program makes it."""

    kind: str
    times: float
    whole: float
    """Bytes that are gathered, reduced or sent, all of them."""
    group: tuple[int, ...]
    """The first group of devices that exchange, as places in the mesh's order."""

    def wire_bytes(self, per_slice: int) -> tuple[float, float]:
        """What each device sends, by rings: within its slice, and to other slices.

        All-gather, reduce-scatter and all-to-all send (n-1)/n of the whole, an all-reduce twice
        that. Between slices goes what the devices of a slice have reduced or hold together, each
        its part of it.

        Args:
          per_slice: devices of a slice.
        """
        if self.kind == NETWORK:
            return 0.0, self.whole
        if self.kind == "collective-permute":
            crosses = len({place // per_slice for place in self.group}) > 1
            return (0.0, self.whole) if crosses else (self.whole, 0.0)
        twice = 2 if self.kind == "all-reduce" else 1
        slices = len({place // per_slice for place in self.group})
        within = len(self.group) // slices
        inside = twice * self.whole * (within - 1) / within
        return inside, twice * self.whole / within * (slices - 1) / slices


class Traffic(NamedTuple):
    """Bytes that one device moves in one run of the program."""

    memory: float
    """To and from its memory."""
    collectives: tuple[Collective, ...]

    def by_kind(self, per_slice: int) -> dict[str, tuple[float, float]]:
        """Bytes that a device sends within its slice and to others, by kind of collective."""
        found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for own in self.collectives:
            for place, sent in enumerate(own.wire_bytes(per_slice)):
                found[own.kind][place] += own.times * sent
        return {kind: (inside, outside) for kind, (inside, outside) in found.items()}


def read_traffic(text: str) -> Traffic:
    """Of a compiled program's text, `compiled.as_text()`."""
    computations, entry = _parse(text)
    times = _times(computations, entry)
    fused = {
        name
        for instructions in computations.values()
        for own in instructions
        if own.opcode in ("fusion", "custom-call") or "to_apply=" in own.attributes
        for name in _NAME.findall(own.attributes)
        if name in computations
    }
    memory, channels, beside = 0.0, {}, {}
    for name, instructions in computations.items():
        shapes = {own.name: own.shape for own in instructions}
        for own in instructions:
            kind = own.opcode.removesuffix("-start")
            if own.opcode == "send" and "megascale" in own.attributes:
                sent = sum(size for n in own.operands for size, _ in _arrays(shapes.get(n, "")))
                channels[name, own.name] = Collective(NETWORK, times[name], sent, ())
            if kind in COLLECTIVES and times[name]:
                found = _collective(kind, own, shapes, times[name])
                channel = re.search(r"channel_id=(\d+)", own.attributes)
                key = channel[1] if channel else (name, own.name)
                if key not in channels or channels[key].times < found.times:
                    channels[key] = found
                if name in fused:  # it goes on beside one product after the other, as one
                    beside[key] = found.times * _bytes(own.shape)
            if name not in fused:
                memory += times[name] * _moved(own, shapes, computations)
    return Traffic(memory + sum(beside.values()), tuple(channels.values()))


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations by name, and the name of the entry."""
    found: dict[str, list[Instruction]] = {}
    current, entry = None, ""
    for line in _lines(text):
        if opening := _OPENING.match(line):
            current = found.setdefault(opening[2], [])
            entry = opening[2] if opening[1] else entry
        elif line == "}":
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_instruction(match[2], bool(match[1]), match[3]))
    for name, instructions in found.items():
        if not any(own.is_root for own in instructions):
            raise ValueError(f"a compiled program was not understood: no end of {name}")
    return found, entry


def _lines(text: str) -> Iterator[str]:
    """The lines; one that a kernel's description breaks over several is whole."""
    whole: list[str] = []
    for line in text.splitlines():
        begins = line == "}" or line.startswith("  ") or _OPENING.match(line)
        if whole and begins:
            yield "".join(whole)
            whole = []
        whole.append(line)
    yield "".join(whole)


def _instruction(name: str, is_root: bool, rest: str) -> Instruction:
    opcode = _OPCODE.search(rest)
    if opcode is None:
        return Instruction(name, is_root, rest, "", (), "", "")
    depth, end = 1, opcode.end()
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    argument = rest[opcode.end() : end - 1]
    operands = tuple(_NAME.findall(argument))
    shape = rest[: opcode.start()]
    return Instruction(name, is_root, shape, opcode[1], operands, argument, rest[end:])


def _times(computations: dict[str, list[Instruction]], entry: str) -> dict[str, float]:
    """How often each computation runs."""
    times = dict.fromkeys(computations, 0.0)

    def visit(name: str, count: float) -> None:
        times[name] += count
        for own in computations[name]:
            turns = _turns(own, computations) if own.opcode == "while" else 1
            for called in _NAME.findall(own.attributes):
                if called in computations:
                    visit(called, count * turns)

    visit(entry, 1.0)
    return times


def _turns(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """Of a loop: what XLA says, else the constant that its counter is compared with."""
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%([\w.\-]+)", loop.attributes)
    pending, limits = [condition[1]], []
    while pending:
        for own in computations[pending.pop()]:
            pending += [n for n in _NAME.findall(own.attributes) if n in computations]
            if own.opcode == "constant" and own.shape.startswith(("s32[]", "u32[]")):
                limits.append(int(own.argument))
    return max(limits, default=1)


def _arrays(shape: str) -> Iterator[tuple[float, str]]:
    """(bytes, layout) of the arrays of a type."""
    for kind, sizes, layout in _ARRAY.findall(shape):
        if kind in SIZES:
            yield SIZES[kind] * math.prod(map(int, filter(None, sizes.split(",")))), layout


def _bytes(shape: str) -> float:
    """Bytes of a type in memory; what XLA keeps in the chip's own (space 1) is not."""
    return sum(size for size, layout in _arrays(shape) if "S(" not in layout)


def _moved(own: Instruction, shapes: dict[str, str], computations: dict) -> float:
    """Bytes that an instruction reads and writes."""
    if own.opcode in FREE or own.opcode.endswith("-done") or not own.opcode:
        return 0.0
    if 'custom_call_target="AllocateBuffer"' in own.attributes:
        return 0.0
    if own.opcode.endswith("-start"):
        return _started(own, shapes)
    if own.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * _bytes(own.shape)
    if own.opcode in ("dynamic-update-slice", "scatter"):
        return 2 * _bytes(shapes.get(own.operands[-1 if own.opcode == "scatter" else 1], ""))
    inside = _called(own, computations)
    if inside is None:
        return _bytes(own.shape) + sum(_bytes(shapes.get(n, "")) for n in own.operands)
    read = sum(
        min(_bytes(shapes.get(name, "")), _read_inside(place, inside, computations))
        for place, name in enumerate(own.operands)
    )
    arrays = list(_arrays(own.shape))
    written = _written_inside(inside, computations)
    if len(written) != len(arrays):
        written = [size for size, _ in arrays]
    return read + sum(
        min(size, found)
        for (size, layout), found in zip(arrays, written, strict=True)
        if "S(" not in layout
    )


def _started(own: Instruction, shapes: dict[str, str]) -> float:
    """Bytes of what goes on beside the program: its type holds operand and result (a copy's first
    the result). As much is read as is written."""
    arrays = list(_arrays(own.shape))
    if len(arrays) < 2:
        return 0.0
    size, layout = arrays[0 if own.opcode == "copy-start" else 1]
    given = sum(_bytes(shapes.get(name, "")) for name in own.operands)
    return min(given, size) + (size if "S(" not in layout else 0.0)


def _read_inside(place: int, name: str, computations: dict[str, list[Instruction]]) -> float:
    """Bytes that a fusion reads of an operand: of one that is only sliced, the slices."""
    inside = computations[name]
    parameters = [own for own in inside if own.opcode == "parameter" and own.argument == str(place)]
    if not parameters:
        return math.inf
    total, pending = 0.0, [parameters[0].name]
    while pending:
        value = pending.pop()
        for user in (own for own in inside if value in own.operands):
            called = _called(user, computations)
            if user.opcode in ("dynamic-slice", "slice", "gather"):
                total += sum(size for size, _ in _arrays(user.shape))
            elif user.opcode == "bitcast":
                pending.append(user.name)
            elif called:
                places = (n for n, operand in enumerate(user.operands) if operand == value)
                total += sum(_read_inside(n, called, computations) for n in places)
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == value:
                continue  # written in place
            elif user.opcode != "tuple" and user.opcode not in COLLECTIVES:  # handed on as it is
                return math.inf
    return total


def _written_inside(name: str, computations: dict[str, list[Instruction]]) -> list[float]:
    """Bytes that a fusion writes of each array of its result: of one that it updates in place, the
    update; of one that it hands on, or that comes from other devices, nothing."""
    inside = {own.name: own for own in computations[name]}

    def written(own: Instruction) -> list[float]:
        called = _called(own, computations)
        if own.opcode == "tuple":
            return [size for operand in own.operands for size in written(inside[operand])]
        if own.opcode == "bitcast" and own.operands[0] in inside:
            return written(inside[own.operands[0]])
        if own.opcode == "parameter" or own.opcode in COLLECTIVES:
            return [0.0 for _ in _arrays(own.shape)]
        if own.opcode == "dynamic-update-slice":
            return [sum(size for size, _ in _arrays(inside[own.operands[1]].shape))]
        if called:
            return _written_inside(called, computations)
        return [size for size, _ in _arrays(own.shape)]

    return written(next(own for own in inside.values() if own.is_root))


def _called(own: Instruction, computations: dict[str, list[Instruction]]) -> str | None:
    """The computation of a fusion."""
    called = re.search(r"calls=%([\w.\-]+)", own.attributes) if own.opcode == "fusion" else None
    return called[1] if called and called[1] in computations else None


def _collective(kind: str, own: Instruction, shapes: dict[str, str], times: float) -> Collective:
    result = sum(size for size, _ in _arrays(own.shape))
    given = sum(size for n in own.operands for size, _ in _arrays(shapes.get(n, "")))
    whole = max(result, given) if kind != "all-reduce" else given or result
    if own.opcode.endswith("-start") and kind in ("all-gather", "collective-permute"):
        whole = result - given  # the type holds operand and result
    return Collective(kind, times, whole, _group(own.attributes))


def _group(attributes: str) -> tuple[int, ...]:
    """The first group of devices that exchange, however it is written."""
    if pairs := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return int(pairs[1]), int(pairs[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return tuple(map(int, listed[1].split(",")))
    if iota := re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    ):
        sizes = list(map(int, iota[3].split(",")))
        places = np.arange(math.prod(sizes)).reshape(sizes)
        if iota[4]:
            places = places.transpose(list(map(int, iota[4].split(","))))
        return tuple(places.reshape(int(iota[1]), int(iota[2]))[0].tolist())
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", attributes):
        axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        over = re.findall(r"'([^']+)'", mesh[2])
        places = np.arange(math.prod(axes.values())).reshape(list(axes.values()))
        return tuple(places[tuple(slice(None) if n in over else 0 for n in axes)].ravel().tolist())
    raise ValueError(f"a collective without groups: {attributes[:200]}")
