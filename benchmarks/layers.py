"""Compares single layers with PyTorch's, eager, on a CPU: convolutions of all kinds, and attention.

    python benchmarks/layers.py --output benchmarks/results/NAME.json

Both have the same numbers. Before anything is timed, their outputs and gradients are compared. Each is a process, and
in every round they take turns. A ratio is taken within each round, and the median over the rounds is given. Both keep
the memory of the process between calls, as a network does between its layers. PyTorch is installed into an environment
of its own.
"""

import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.comparison.layer_cases import LAYERS, PARTS
from benchmarks.comparison.rounds import Disagreement
from benchmarks.comparison.systems import SYSTEMS, add_torch_python, check_torch_python, python_of
from benchmarks.comparison.worker import Worker, WorkerFailed
from convnext_jax.errors import EXIT_FAILURE, check
from convnext_jax.report.tables import markdown_table
from convnext_jax.storage.files import write_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

SECONDS = 0.2  # that a call should take, about
TOLERANCE = 1e-4  # of the largest number of an array
# Otherwise large arrays are given back to Linux after each call, and every page of the next ones costs a fault.
KEEP_MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1"


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    parser.add_argument("--rounds", type=int, default=7)
    add_torch_python(parser)
    options = parser.parse_args()
    check_new_file("--output", options.output)
    check_torch_python(options.torch_python)
    check("--rounds", options.rounds, options.rounds >= 1, "1 or more")
    try:
        record = compare(options.rounds, options.torch_python)
    except (WorkerFailed, Disagreement) as error:
        command_line.fail(str(error), EXIT_FAILURE)
    write_json(options.output, record)
    print(layer_table(record))


def compare(rounds: int, torch_python: Path | None) -> dict[str, Any]:
    """Measures all layers and returns the record."""
    torch = python_of(SYSTEMS["torch_eager"], torch_python)
    commands = {
        "convnext_jax": [sys.executable, "-m", "benchmarks.comparison.jax_layers_worker"],
        "torch_eager": [torch, "-m", "benchmarks.comparison.torch_layers_worker"],
    }
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "GLIBC_TUNABLES": KEEP_MEMORY}
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = {
            name: stack.enter_context(Worker(name, command, environment, {}, folder / f"{name}.log"))
            for name, command in commands.items()
        }
        for number, layer in enumerate(LAYERS):
            difference = _difference(workers, number, folder)
            if not difference < TOLERANCE:
                raise Disagreement(f"{layer.name}: the numbers differ by {difference:.1e} of the largest")
            found[layer.name] = {"difference": difference} | {
                part: _measure(workers, f"{number}:{part}", rounds) for part in PARTS
            }
            print(f"{layer.name}: done", file=sys.stderr)
        described = {name: worker.description for name, worker in workers.items()}
    environment = described["convnext_jax"]["environment"] | {"command": sys.argv}
    versions = described["convnext_jax"]["versions"] | described["torch_eager"]["versions"]
    return {
        "benchmark": "layers",
        "rounds": rounds,
        "versions": versions,
        "layers": found,
        "environment": environment,
    }


def _difference(workers: dict[str, Worker], number: int, folder: Path) -> float:
    """Returns the largest difference of a layer's output and gradients, as a share of each one's largest number."""
    arrays = []
    for name, worker in workers.items():
        file = folder / f"{name}.npz"
        worker.save(f"{number}:results", file)
        with np.load(file) as results:
            arrays.append(list(results.values()))
    differences = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(*arrays, strict=True)]
    return float(np.max(differences))  # NaN if one is


def _measure(workers: dict[str, Worker], part: str, rounds: int) -> dict[str, Any]:
    counts = {}
    for name, worker in workers.items():
        worker.call(part, 2)
        counts[name] = max(1, round(SECONDS / worker.call(part, 1)["seconds"]))
    milliseconds: dict[str, list[float]] = {name: [] for name in workers}
    disturbed = 0.0
    for number in range(rounds):
        for name in list(workers)[:: 1 - 2 * (number % 2)]:
            seconds, share = workers[name].measure(part, counts[name])
            milliseconds[name].append(1000 * seconds)
            disturbed = max(disturbed, share)
    ratios = [ours / theirs for ours, theirs in zip(*milliseconds.values(), strict=True)]
    medians = {name: round(statistics.median(each), 3) for name, each in milliseconds.items()}
    return {
        "milliseconds": medians,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "taken_by_others": disturbed,
    }


def layer_table(record: dict[str, Any]) -> str:
    """Returns the record as a Markdown table: milliseconds, and our time over PyTorch's."""
    rows = []
    for name, parts in record["layers"].items():
        row = [name]
        for part in PARTS:
            milliseconds = parts[part]["milliseconds"]
            row += [f"{milliseconds[system]:.2f}" for system in ("convnext_jax", "torch_eager")]
            row.append(f"{parts[part]['ratio']:.2f}")
        rows.append(row)
    header = ["layer", "forward, ms", "PyTorch", "ratio", "with gradients, ms", "PyTorch", "ratio"]
    return markdown_table([header, *rows])


if __name__ == "__main__":
    command_line.run_main(main)
