"""Measures the algorithms of the depthwise convolution on this machine, the table that `depthwise_conv` chooses by.

Between runs, not in the middle of one: another choice changes a run's last bits.

``python -m convnext_jax.tools.measure_depthwise``
``python -m convnext_jax.tools.measure_depthwise --output convnext_jax/ops/depthwise_table.json``
"""

import functools
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_jax.tools import command_line
from convnext_jax.errors import UserError

if TYPE_CHECKING:
    from convnext_jax.ops.depthwise_table import Row

# Side of the map and channels: ConvNeXt-T's four stages at 224 pixels, and at 32 behind stems of stride 1, 2 and 4.
_MAPS = (
    ((56, 96), (28, 192), (14, 384), (7, 768)),
    ((32, 96), (16, 192), (8, 384), (4, 768)),
    ((16, 96), (8, 192), (4, 384), (2, 768)),
    ((8, 96), (4, 192), (2, 384), (1, 768)),
)
_OTHER_MAPS = ((32, 96), (16, 192), (8, 192), (4, 384))
_OTHER_SIZES = (3, 5, 9, 11, 31)
_BANDED_PIXELS = 256  # beyond them its matrices take gigabytes
_ROUNDS = 9


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Times the algorithms of the depthwise convolution, forward and the gradient by the kernel, on the device that"
        "\nJAX finds, at the shapes of ConvNeXt, and prints them in milliseconds; medians of interleaved rounds, in"
        "\nisolation: inside a network XLA fuses some of them with what stands beside them. Nothing else should run."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="a table to write this device's rows into")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="only this one (default: both)")
    parser.add_argument("--kernel_size", type=int, metavar="K", help="only this one")
    parser.add_argument("--map_size", type=int, metavar="SIDE", help="only this one")
    arguments = parser.parse_args()
    command_line.check_output(arguments.output)
    cases = [
        case
        for case in _cases()
        if arguments.dtype in (None, case[0])
        and arguments.kernel_size in (None, case[1])
        and arguments.map_size in (None, case[2])
    ]
    if not cases:
        raise UserError(
            f"--dtype {arguments.dtype} --kernel_size {arguments.kernel_size} --map_size {arguments.map_size} is no"
            " shape of the table; name fewer of the three"
        )

    import jax  # seconds to import; a mistake was answered without it

    device = jax.devices()[0]
    nvidia = device.platform == "gpu" and device.device_kind.startswith("NVIDIA")
    platform = "cuda" if nvidia else device.platform  # as programs are compiled for it
    rows = []
    for dtype, size, side, channels in cases:
        rows.append(_measure(dtype, size, side, channels, platform))
        print(_described(rows[-1]), flush=True)
    if arguments.output:
        _write(arguments.output, platform, device.device_kind, rows)


def _cases() -> list[tuple[str, int, int, int]]:
    """dtype, kernel size, side of the map and channels of each row."""
    maps = [case for network in _MAPS for case in network]
    sevens = itertools.product(("float32", "bfloat16"), (7,), maps)
    others = itertools.product(("float32",), _OTHER_SIZES, _OTHER_MAPS)
    return [(dtype, size, *shape) for dtype, size, shape in (*sevens, *others)]


def _measure(dtype: str, size: int, side: int, channels: int, platform: str) -> "Row":
    import jax
    import jax.numpy as jnp
    import numpy as np

    from convnext_jax.ops import depthwise_conv, depthwise_table

    # Enough to outlast the start of a program, and not many more than a step of training has.
    values, most = (2**21, 64) if platform == "cpu" else (2**24, 4096)
    batch = min(most, 2 ** round(math.log2(values / (side * side * channels))))
    random = np.random.default_rng(0)
    shapes = ((batch, side, side, channels), (size, size, 1, channels), (batch, side, side, channels))
    x, kernel, grad = (jnp.asarray(random.standard_normal(shape, np.float32)) for shape in shapes)
    x, grad = x.astype(dtype), grad.astype(dtype)

    forward, kernel_gradient = {}, {}
    for name in ("conv", "shift", "banded", "pallas"):
        if (name == "pallas" and platform != "cuda") or (name == "banded" and side * side > _BANDED_PIXELS):
            continue
        convolve = functools.partial(depthwise_conv, implementation=name)

        def by_kernel(x: Any, kernel: Any, grad: Any, convolve: Callable[..., Any] = convolve) -> Any:
            return jax.vjp(functools.partial(convolve, x), kernel)[1](grad)

        forward[name] = jax.jit(convolve).lower(x, kernel).compile()
        kernel_gradient[name] = jax.jit(by_kernel).lower(x, kernel, grad).compile()
    times = _milliseconds(forward, x, kernel), _milliseconds(kernel_gradient, x, kernel, grad)
    return depthwise_table.Row(dtype, size, side, side, channels, batch, *times)


def _milliseconds(functions: dict[str, Callable[..., Any]], *arrays: Any) -> dict[str, float]:
    """The median of each function's time; they take turns, so that a change of the machine's speed meets all."""
    import jax

    def seconds(function: Callable[..., Any], calls: int) -> float:
        start = time.perf_counter()
        for result in [function(*arrays) for _ in range(calls)]:
            jax.block_until_ready(result)
        return (time.perf_counter() - start) / calls

    # The hopeless ones, minutes a call at worst, are not run again.
    first = {name: seconds(function, 1) for name, function in functions.items()}
    contenders = [name for name, time in first.items() if time < 10 * min(first.values())]
    taken = {name: [] if name in contenders else [time] for name, time in first.items()}
    # Calls in a row to outlast the clock and the start of a program.
    calls = {name: max(1, math.ceil(0.002 / seconds(functions[name], 1))) for name in contenders}
    for _ in range(_ROUNDS):
        for name in contenders:
            taken[name].append(seconds(functions[name], calls[name]))
    return {name: float(f"{1e3 * statistics.median(times):.4g}") for name, times in taken.items()}


def _described(row: "Row") -> str:
    def ranking(milliseconds: Mapping[str, float]) -> str:
        names = sorted(milliseconds, key=milliseconds.__getitem__)
        return " ".join(f"{name} {milliseconds[name]:.4g}" for name in names)

    shape = f"{row.dtype:8}  {row.size}x{row.size}  [{row.batch},{row.height},{row.width},{row.channels}]"
    return f"{shape:32}  forward: {ranking(row.forward):40}  kernel gradient: {ranking(row.kernel_gradient)}"


def _write(path: Path, platform: str, kind: str, rows: list["Row"]) -> None:
    """Puts rows in the place of those of the same shapes and device, which comes first in the file."""
    import jax

    from convnext_jax.run.environment import describe_environment
    from convnext_jax.ops import depthwise_table

    environment = describe_environment()
    processor = f"{environment['processor']}, {os.cpu_count()} cores" if platform == "cpu" else kind
    machine = f"{processor}, jax {jax.__version__}"
    devices = depthwise_table.read_table(path) if path.exists() else []
    merged = {}
    for old in devices:
        if (old.platform, old.kind) == (platform, kind):
            merged |= {row.shape: row for row in old.rows}
    merged |= {row.shape: row for row in rows}
    others = [old for old in devices if (old.platform, old.kind) != (platform, kind)]
    measured = depthwise_table.Device(platform, kind, machine, tuple(merged[shape] for shape in sorted(merged)))
    # First, before patterns that stand for many kinds.
    depthwise_table.write_table(path, [measured, *others])


if __name__ == "__main__":
    command_line.run_main(main)
