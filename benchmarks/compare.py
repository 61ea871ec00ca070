"""Compares this project with PyTorch and plain JAX: a forward pass and a training step, same machine, same shapes.

    python benchmarks/compare.py --output benchmarks/results/NAME.json
    python benchmarks/compare.py --stem conv3x3_s1 --batch_size 128 --output benchmarks/results/NAME.json

All systems hold the same network with the same weights. They train with AdamW on the same batch again and again,
without augmentation or drop path. Before anything is timed, their logits are compared, and their loss after some steps.

Each system is a process. In every round the systems take turns: one runs a few forward passes and training steps while
the others wait. A ratio is taken within each round, and the median over the rounds is given. PyTorch is installed into
an environment of its own.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.comparison.case import Case
from benchmarks.comparison.protocol import Job
from benchmarks.comparison.record import make_record
from benchmarks.comparison.rounds import Disagreement, WarmUp, check_agreement, measure_rounds, warm_up
from benchmarks.comparison.systems import (
    CPU_SYSTEMS,
    GPU_SYSTEMS,
    SYSTEMS,
    add_torch_python,
    check_torch_python,
    python_of,
)
from benchmarks.comparison.table import result_table
from benchmarks.comparison.worker import Worker, WorkerFailed
from convnext_jax.errors import EXIT_FAILURE, UserError, nearest
from convnext_jax.models.convnext import STEMS, ConvNeXtArchitecture
from convnext_jax.models.registry import named_architecture
from convnext_jax.models.table import MODELS
from convnext_jax.storage.files import write_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file


def main() -> None:
    """Runs the command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--model", default="convnext_tiny", help="a ConvNeXt V1")
    parser.add_argument("--stem", default="patch4", help="one of " + ", ".join(_stems()))
    parser.add_argument("--image_size", type=_positive, default=32, metavar="PIXELS")
    parser.add_argument("--batch_size", type=_positive, default=64)
    parser.add_argument("--num_classes", type=_positive, default=100)
    gpu = shutil.which("nvidia-smi") is not None
    parser.add_argument(
        "--systems",
        type=lambda text: text.split(","),
        default=GPU_SYSTEMS if gpu else CPU_SYSTEMS,
        metavar="NAME,NAME,...",
        help="ratios are relative to the first, which must be one of this project's;\nknown: " + ", ".join(SYSTEMS),
    )
    parser.add_argument("--rounds", type=_positive, default=7)
    parser.add_argument("--steps", type=_positive, default=4, help="how often each part runs in a round")
    add_torch_python(parser)
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="an environment variable for all systems"
    )
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    options = parser.parse_args()
    case, variables = _case(options), dict(map(_variable, options.env))
    _check_systems(options.systems)
    check_torch_python(options.torch_python)
    if options.output is not None:
        check_new_file("--output", options.output)
    try:
        record = compare(options, case, variables)
    except (WorkerFailed, Disagreement) as error:
        command_line.fail(str(error), EXIT_FAILURE)
    print(result_table(record))
    if options.output is not None:
        write_json(options.output, record)


def compare(options: argparse.Namespace, case: Case, variables: dict[str, str]) -> dict[str, Any]:
    """Measures the systems that the options name and returns the record."""
    # This imports JAX, which takes seconds. Mistakes in the command are reported before.
    from benchmarks.comparison.inputs import network_macs, write_inputs

    pythons = {name: python_of(SYSTEMS[name], options.torch_python) for name in options.systems}
    folder = Path(tempfile.mkdtemp(prefix="convnext_jax-compare-"))
    # Each process allocates accelerator memory as it needs it, instead of reserving most of it at the start.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | variables
    workers: dict[str, Worker] = {}
    differences: dict[str, dict[str, float]] = {}
    reference: WarmUp | None = None
    with contextlib.ExitStack() as stack:
        write_inputs(case, folder)
        for name, python in pythons.items():
            _print(f"{name}: building, compiling, warming up")
            kind = SYSTEMS[name]
            command = [python, "-m", f"benchmarks.comparison.{kind.worker}"]
            job = Job(case, kind.options | {"dtype": kind.dtype}, folder)
            worker = stack.enter_context(Worker(name, command, environment, job.to_json(), folder / f"{name}.log"))
            outcome = warm_up(worker, options.steps, folder)
            reference = reference or outcome
            exact = all(SYSTEMS[one].dtype == "float32" for one in (name, options.systems[0]))
            exact = exact and worker.description["device"] == "cpu"
            differences[name] = check_agreement(name, outcome, reference, exact=exact)
            workers[name] = worker
        _print("measuring")
        times = measure_rounds(workers, rounds=options.rounds, count=options.steps, report=_print)
    shutil.rmtree(folder)  # kept if a worker failed, since its output is in it
    descriptions = {name: worker.description for name, worker in workers.items()}
    descriptions[options.systems[0]]["environment"]["command"] = sys.argv
    settings = {"rounds": options.rounds, "steps_per_call": options.steps, "variables": variables}
    return make_record(case, network_macs(case), descriptions, differences, times, settings)


def _print(line: str) -> None:
    print(line, flush=True)


def _case(options: argparse.Namespace) -> Case:
    if options.model not in _models():
        raise UserError(f"--model: {options.model!r} is not compared: {nearest(options.model, _models())}")
    if options.stem not in _stems():
        raise UserError(f"--stem: {options.stem!r} is not compared: {nearest(options.stem, _stems())}")
    architecture = named_architecture(options.model, {"stem": options.stem})
    assert isinstance(architecture, ConvNeXtArchitecture)
    architecture.check_image_size(options.image_size, options.image_size)
    (window,) = STEMS[options.stem]
    return Case(
        model=options.model,
        depths=architecture.depths,
        dims=architecture.dims,
        stem=options.stem,
        window=dataclasses.astuple(window),
        image_size=options.image_size,
        batch_size=options.batch_size,
        num_classes=options.num_classes,
        threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def _models() -> list[str]:
    """Returns the networks that the other systems have too, which are those of ConvNeXt V1."""
    convnexts = {name: each for name, each in MODELS.items() if isinstance(each, ConvNeXtArchitecture)}
    return [name for name, each in convnexts.items() if each == ConvNeXtArchitecture(each.depths, each.dims)]


def _stems() -> list[str]:
    """Returns the stems that are a single convolution."""
    return [name for name, windows in STEMS.items() if len(windows) == 1]


def _check_systems(names: Sequence[str]) -> None:
    for name in names:
        if name not in SYSTEMS:
            raise UserError(f"--systems: unknown system {name!r}: {nearest(name, SYSTEMS)}")
    if len(set(names)) < len(names):
        raise UserError(f"--systems: {','.join(names)} names a system twice")
    if not names[0].startswith("convnext_jax"):
        raise UserError(f"--systems: the first is {names[0]}; it must be convnext_jax or convnext_jax_bfloat16")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(f"--env {text}: it must read NAME=VALUE")
    return name, value


if __name__ == "__main__":
    command_line.run_main(main)
