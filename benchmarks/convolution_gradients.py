"""Times the gradient of a dense convolution by its map inside of a loop: XLA's own form, and the one that we use.

``python -m benchmarks.convolution_gradients --output benchmarks/results/convolution_gradients_epyc_2cores.json``

The forms alternate, and each time is the median over the rounds, in milliseconds for a batch of 32.
"""

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

# Side of the map, channels, side of the window, stride.
CASES = (
    (32, 16, 3, 1),
    (32, 64, 3, 1),
    (24, 32, 3, 1),
    (16, 128, 3, 1),
    (8, 256, 3, 1),
    (32, 64, 3, 2),
    (32, 64, 5, 1),
)
BATCH, STEPS, ROUNDS = 32, 5, 7


def forms(size: int, stride: int) -> dict[str, Callable[..., Any]]:
    """Returns, by name, functions from a map, a kernel and the gradient of the outputs to the gradient of the map."""
    import jax

    from convnext_jax.ops.dense_convolution import Window, dense_conv, xla_conv

    around = size // 2, size // 2
    window = Window(stride, (around, around))

    def gradient(convolve: Callable[..., Any], x: Any, kernel: Any, grad: Any) -> Any:
        return jax.vjp(lambda x: convolve(window, x, kernel), x)[1](grad)[0]

    return {"xla": functools.partial(gradient, xla_conv), "ours": functools.partial(gradient, dense_conv)}


def in_loop(function: Callable[..., Any], *arrays: Any) -> Any:
    """Returns the compiled program that calls a function some times, with other arrays each time."""
    import jax

    def body(index: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        given, _ = carry
        return jax.tree.map(lambda array: array + 1e-9 * index, given), function(*given)

    def run(*given: Any) -> Any:
        return jax.lax.fori_loop(0, STEPS, body, (given, function(*given)))

    return jax.jit(run).lower(*arrays).compile()


def measure(side: int, channels: int, size: int, stride: int) -> dict[str, float]:
    """Returns the median milliseconds of each form."""
    import jax

    outputs = -(-side // stride)
    shapes = (BATCH, side, side, channels), (size, size, channels, channels), (BATCH, outputs, outputs, channels)
    arrays = [jax.random.normal(jax.random.key(number), shape) for number, shape in enumerate(shapes)]
    programs = {name: in_loop(function, *arrays) for name, function in forms(size, stride).items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program(*arrays))
            times[name].append(1000 * (time.perf_counter() - started) / (STEPS + 1))
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    arguments = parser.parse_args()
    check_new_file("--output", arguments.output)
    from convnext_jax.run.environment import describe_environment
    from convnext_jax.storage.files import write_json

    rows = []
    for side, channels, size, stride in CASES:
        row = {"side": side, "channels": channels, "window": size, "stride": stride}
        row |= {"milliseconds": measure(side, channels, size, stride)}
        rows.append(row)
        print(row, flush=True)
    write_json(arguments.output, {"batch": BATCH, "rows": rows, "environment": describe_environment()})


if __name__ == "__main__":
    command_line.run_main(main)
