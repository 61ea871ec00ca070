"""Where the modeled cycles of a step go: by kind of operation, and the dearest instructions."""

import dataclasses
from collections.abc import Sequence
from pathlib import PurePath

from convnext_jax.tools.plan.hlo import Executed, Instruction, Program

KINDS = ("products", "depthwise", "norms", "augmentation", "optimizer", "copies", "other")
# A call that an instruction comes from, by the end of its folder or file, and the kind that this makes it.
_PLACES = (
    ("convnext_jax/augment/", "augmentation"),
    ("convnext_jax/batches/", "augmentation"),
    ("convnext_jax/ops/depthwise", "depthwise"),
    ("/optax/", "optimizer"),
    ("convnext_jax/optim/", "optimizer"),
    ("convnext_jax/train/state.py", "optimizer"),
    ("convnext_jax/ops/layer_norm.py", "norms"),
    ("convnext_jax/layers/normalization.py", "norms"),
)
_PRODUCTS = ("convolution", "dot")
_MOVES = ("copy", "transpose", "reshape", "reverse", "slice", "dynamic-slice", "concatenate", "pad", "broadcast")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an instruction of a step costs.

    Attributes:
      name: of its value in the program.
      kind: one of `KINDS`.
      cycles: of a step, over all times that it is executed.
      times: how often that is.
      shape: of the first array of its value.
      place: file and line, or JAX's name of the operation where the compiler kept no line.
      backward: whether it is part of the gradient.
    """

    name: str
    kind: str
    cycles: int
    times: int
    shape: str
    place: str
    backward: bool


def step_costs(program: Program, step: Sequence[Executed]) -> list[Cost]:
    """Returns the instructions of a step that the compiler's model of time knows, the dearest first."""
    costs = []
    for each in step:
        if (cycles := each.instruction.cycles) is None:
            continue
        main = _main(program, each.instruction)
        origins = [main, each.instruction, *reversed(list(program.inside(each.instruction)))]
        if each.loop is not None:
            origins.append(each.loop)  # what the compiler makes up inside of a loop, it does for it
        calls = next(filter(None, map(program.place, origins)), ())
        operation = next(filter(None, (origin.operation for origin in origins)), "")
        costs.append(
            Cost(
                name=each.instruction.name,
                kind=_kind(each.instruction.opcode, main, calls),
                cycles=cycles * each.times,
                times=each.times,
                shape=each.instruction.shape.lstrip("(").partition("{")[0],
                place=_shown(calls) or operation or each.instruction.opcode,
                backward="transpose(" in operation,
            )
        )
    return sorted(costs, key=lambda cost: -cost.cycles)


def _main(program: Program, instruction: Instruction) -> Instruction:
    """Returns the instruction that a fusion is there for: its product, or else itself."""
    return next((each for each in program.inside(instruction) if each.opcode in _PRODUCTS), instruction)


def _kind(opcode: str, main: Instruction, calls: Sequence[str]) -> str:
    if opcode in _MOVES:
        return "copies"
    grouped = "feature_group_count=" in main.tail or "batch_group_count=" in main.tail
    if main.opcode in _PRODUCTS and grouped:
        return "depthwise"
    for place, kind in _PLACES:
        if any(place in call for call in calls):
            return "products" if main.opcode in _PRODUCTS and kind == "norms" else kind
    return "products" if main.opcode in _PRODUCTS else "other"


def _shown(calls: Sequence[str]) -> str:
    """Returns the innermost call of this package, or else the innermost of all, with the two last parts of its path."""
    call = next((each for each in calls if "/convnext_jax/" in each), calls[0] if calls else "")
    return "/".join(PurePath(call).parts[-2:])


def by_kind(costs: Sequence[Cost]) -> dict[str, int]:
    """Returns the cycles of each kind."""
    return {kind: sum(cost.cycles for cost in costs if cost.kind == kind) for kind in KINDS}
