"""Reads a compiled program's text: the instructions of one training step, their cycles, and the collectives."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(|\{).*\{$")
_NAME = re.compile(r"^  (ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")
_PLACED = re.compile(r"\b[a-z]+\d*\w*\[[\d,]*\](?:\{[^}]*\})?")
# What moves no data of its own. What ends with -done is there already.
_FREE = (
    "get-tuple-element",
    "tuple",
    "bitcast",
    "parameter",
    "constant",
    "while",
    "conditional",
    "call",
    "custom-call",
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_OPERATION = re.compile(r'op_name="([^"]*)"')
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a program.

    Attributes:
      name: of the value.
      shape: type of the value, such as ``bf16[128,32,32,96]{3,2,1,0}``, or a tuple of such.
      opcode: such as ``fusion``.
      operands: names of its operands, for a constant its value.
      tail: what follows them: computations that are called, metadata, the compiler's notes.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    tail: str

    def called(self, attribute: str) -> str | None:
        """Returns the computation that an attribute such as ``body`` names."""
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.tail)
        return match[1] if match else None

    @property
    def cycles(self) -> int | None:
        """What the compiler's model of time says; None if it says nothing."""
        match = _CYCLES.search(self.tail)
        return int(match[1]) if match else None

    @property
    def operation(self) -> str:
        """JAX's name of what it was lowered from, such as ``jit(run)/while/body/transpose(jvp())/dot_general``."""
        match = _OPERATION.search(self.tail)
        return match[1] if match else ""


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      computations: by name, their instructions in order.
      entry: name of the first.
      frames: by number, the calls that an instruction comes from, the innermost first, as ``path:line``.
    """

    computations: dict[str, list[Instruction]]
    entry: str
    frames: dict[int, tuple[str, ...]]

    def place(self, instruction: Instruction) -> tuple[str, ...]:
        """Returns the calls that an instruction comes from, the innermost first; empty if the compiler made it up."""
        match = _FRAME.search(instruction.tail)
        return self.frames.get(int(match[1]), ()) if match else ()

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yields what a fusion is made of."""
        called = instruction.called("calls") if instruction.opcode == "fusion" else None
        for each in self.computations.get(called or "", ()):
            yield each
            yield from self.inside(each)


def read_program(text: str) -> Program:
    """Reads what ``compiled.as_text()`` returns."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" ") and (match := _COMPUTATION.match(line)):
            current = computations.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _NAME.match(line)):
            current.append(_instruction(match[2], line[match.end() :]))
    return Program(computations, entry, _frames(text))


def _instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opened = rest.index("(")
    closed = _closing(rest, opened)
    operands = re.sub(r"/\*.*?\*/", "", rest[opened + 1 : closed])
    # Some versions write the type of an operand before its name.
    names = re.findall(r"%([\w.\-]+)", operands) or [each.strip() for each in operands.split(",")]
    return Instruction(name, shape, rest[:opened], tuple(names), rest[closed + 1 :])


def _closing(text: str, opened: int) -> int:
    """Returns where the bracket that opens at a place is closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opened):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.start()
    raise ValueError(f"a bracket is not closed: {text[:100]}")


def _frames(text: str) -> dict[int, tuple[str, ...]]:
    """Reads the tables of the source that stand before the first computation."""

    def table(name: str, row: str) -> dict[int, tuple[str, ...]]:
        found = re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
        rows = re.finditer(rf"^(\d+) {row}", found[1], re.MULTILINE) if found else ()
        return {int(match[1]): match.groups()[1:] for match in rows}

    files = table("FileNames", '"(.*)"')
    locations = table("FileLocations", r"\{file_name_id=(\d+) .*?\bline=(\d+)")
    frames = table("StackFrames", r"\{file_location_id=(\d+)(?: parent_frame_id=(\d+))?")

    @functools.cache
    def calls(number: int) -> tuple[str, ...]:
        location, parent = frames[number]
        file, line = locations[int(location)]
        outer = int(parent or 1) - 1  # numbers of parents are printed with one added, and 1 is none
        return (f"{files[int(file)][0]}:{line}", *(calls(outer) if outer in frames else ()))

    return {number: calls(number) for number in frames}


def bytes_of(shape: str) -> int:
    """Returns the bytes of a type without padding, over all parts of a tuple.

    >>> bytes_of("(bf16[7,7,1,96]{3,2,1,0:T(2,128)(2,1)}, f32[100]{0}, pred[])")
    9809
    """
    total = 0
    for kind, bits, dimensions in _ARRAY.findall(shape):
        size = 8 if kind == "pred" else int(bits or 0)
        total += math.ceil(math.prod(map(int, filter(None, dimensions.split(",")))) * size / 8)
    return total


@dataclasses.dataclass(frozen=True)
class Executed:
    """An instruction of a step, with how often a step executes it.

    Attributes:
      instruction: the instruction.
      times: how often; that of a loop of unknown length is counted once.
      computation: that it stands in.
      loop: the loop inside of the step that it is part of; None outside of one.
    """

    instruction: Instruction
    times: int
    computation: str
    loop: Instruction | None = None


def step_instructions(program: Program) -> list[Executed]:
    """Returns what one training step executes: the body of the outermost loop, loops inside with all their rounds.

    Raises:
      ValueError: the program has no loop.
    """
    loops = [
        each.instruction
        for each in _executed(program, program.entry, 1, enter_loops=False)
        if each.instruction.opcode == "while"
    ]
    if not loops:
        raise ValueError("the program has no loop over the steps")
    sizes = {loop.called("body"): len(program.computations[loop.called("body") or ""]) for loop in loops}
    return list(_executed(program, max(sizes, key=lambda body: sizes[body]) or "", 1))


def program_instructions(program: Program) -> list[Executed]:
    """Returns all that a program executes, loops with all their rounds."""
    return list(_executed(program, program.entry, 1))


def _executed(
    program: Program, computation: str, times: int, loop: Instruction | None = None, *, enter_loops: bool = True
) -> Iterator[Executed]:
    for instruction in program.computations[computation]:
        yield Executed(instruction, times, computation, loop)
        if instruction.opcode == "while" and enter_loops:
            body = instruction.called("body") or ""
            yield from _executed(program, body, times * (trip_count(program, instruction) or 1), instruction)
        elif instruction.opcode in ("call", "async-start"):
            called = instruction.called("to_apply") or instruction.called("calls")
            yield from _executed(program, called or "", times, loop, enter_loops=enter_loops)
        elif instruction.opcode == "conditional":
            yield from _dearest_branch(program, instruction, times, loop)


def _dearest_branch(
    program: Program, instruction: Instruction, times: int, loop: Instruction | None
) -> Sequence[Executed]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.tail)
    names = listed[1] if listed else " ".join(re.findall(r"(?:true|false)_computation=(%?[\w.\-]+)", instruction.tail))
    branches = [list(_executed(program, name, times, loop)) for name in re.findall(r"[\w.\-]+", names)]
    return max(branches, key=lambda each: sum((one.instruction.cycles or 0) * one.times for one in each), default=[])


def trip_count(program: Program, loop: Instruction) -> int | None:
    """Returns how often a loop's body is executed, if it counts from 0 to a constant; None if that is not known."""
    if match := _TRIPS.search(loop.tail):
        return int(match[1])
    condition = {each.name: each for each in program.computations[loop.called("condition") or ""]}
    compared = next((each for each in condition.values() if each.opcode == "compare"), None)
    if compared is None or "direction=LT" not in compared.tail:
        return None
    limit = condition.get(compared.operands[-1])
    return int(limit.operands[0]) if limit is not None and limit.opcode == "constant" else None


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation of a step.

    Attributes:
      opcode: such as ``all-reduce``.
      bytes: of the whole array, or of all arrays that it combines, on a chip: the larger of what goes in and out.
      group: number of chips that take part together.
      times: how often a step executes it.
      dtypes: of the arrays, such as ``bf16``.
    """

    opcode: str
    bytes: int
    group: int
    times: int
    dtypes: tuple[str, ...]


def collectives(program: Program, step: Sequence[Executed], num_chips: int) -> list[Collective]:
    """Returns the collective operations of a step, in their order.

    Args:
      program: that the step is of.
      step: what it executes.
      num_chips: of all that run the program.
    """
    shapes = {
        name: {each.name: each.shape for each in instructions} for name, instructions in program.computations.items()
    }
    found = []
    for each in step:
        opcode = each.instruction.opcode.removesuffix("-start")
        if opcode not in COLLECTIVES:
            continue
        operands = ", ".join(shapes[each.computation].get(name, "") for name in each.instruction.operands)
        inputs, outputs = bytes_of(operands), bytes_of(each.instruction.shape)
        if each.instruction.opcode.endswith("-start") and opcode != "all-reduce":
            outputs -= inputs  # the value is the operands and the results
        dtypes = sorted({kind + bits for kind, bits, _ in _ARRAY.findall(operands or each.instruction.shape)})
        group = _group(each.instruction.tail, num_chips)
        found.append(Collective(opcode, max(inputs, outputs), group, each.times, tuple(dtypes)))
    return found


def memory_traffic(program: Program, step: Sequence[Executed]) -> int:
    """Returns the bytes that a step's instructions read from the chip's large memory and write to it.

    What the compiler keeps in the fast memory of the core (``S(1)`` in its layouts) is not counted. What gathers from
    an array, or slices it inside of a fusion, counts as if it read all of it.
    """
    shapes = {
        name: {each.name: each.shape for each in instructions} for name, instructions in program.computations.items()
    }
    total = 0
    for each in step:
        opcode = each.instruction.opcode
        if opcode in _FREE or opcode.endswith("-done"):
            continue
        if opcode in ("copy-start", "slice-start"):
            # Its value is the source and the destination. As much as the smaller of them is moved.
            parts = [part for part in _PLACED.findall(each.instruction.shape) if "[]" not in part]
            total += each.times * sum(min(map(bytes_of, parts)) for part in parts if "S(" not in part)
        else:
            values = [each.instruction.shape, *(shapes[each.computation].get(x, "") for x in each.instruction.operands)]
            parts = [part for value in values for part in _PLACED.findall(value)]
            total += each.times * sum(bytes_of(part) for part in parts if "S(" not in part)
    return total


def _group(tail: str, num_chips: int) -> int:
    """Returns how many chips take part in a collective together."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", tail):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", tail):
        return int(match[1])
    return num_chips
