"""Compares what networks cost: ``python -m convnext_jax.tools.compare_networks --image_size 32``."""

import argparse
import dataclasses
import fnmatch
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convnext_jax.errors import UserError, check, nearest, writing
from convnext_jax.report.tables import markdown_table
from convnext_jax.storage.cloud import local_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.tools.plan.topology import Topology, check_compiler, compiler_mismatch, read_topology, start_on_cpu

if TYPE_CHECKING:
    from convnext_jax.models.interface import Architecture

BATCH_SIZES = (1, 64)
_REPEATS = 5


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Compares networks at one size of image: parameters, multiply-adds, what a training step keeps of each image,"
        "\nwith --time the milliseconds of an image in inference on this device, and with --topology those that TPU's"
        "\ncompiler models. It prints Markdown.",
        "Networks that need larger images are left out, with the smallest that works.",
    )
    parser.add_argument("network", nargs="*", default=["*"], help="names or patterns, such as 'resnet*' (default: all)")
    parser.add_argument("--image_size", type=int, default=32, metavar="PIXELS", help="side of the images (default: 32)")
    parser.add_argument("--num_classes", type=int, default=100, metavar="N", help="outputs (default: 100)")
    parser.add_argument("--time", action="store_true", help="time inference with batches of 1 and 64 images")
    parser.add_argument(
        "--topology",
        metavar="CHIPS",
        help="model inference with a batch of 64 on one chip of it, such as v5e:2x2; needs 'jax[tpu]', and minutes",
    )
    parser.add_argument("--json", type=local_path, metavar="FILE", help="a JSON file to write, with the hardware")
    parser.add_argument("--picture", type=local_path, metavar="FILE", help="multiply-adds against time; needs --time")
    arguments = parser.parse_args()
    for option, file in (("--json", arguments.json), ("--picture", arguments.picture)):
        if file is not None:
            check_new_file(option, file)
    if arguments.time and arguments.topology:
        parser.error("--time is of this device, --topology of another: give one of them")
    if arguments.picture and not arguments.time:
        parser.error("--picture shows the time: give --time too")
    for name in ("image_size", "num_classes"):
        check(f"--{name}", getattr(arguments, name), getattr(arguments, name) >= 1, "1 or more")
    topology = None if arguments.topology is None else _tpu(arguments.topology)
    if topology is not None:
        start_on_cpu(topology)
        if (mismatch := compiler_mismatch()) is not None:
            print(f"note: {mismatch}", file=sys.stderr)

    rows = []
    for name, architecture in _chosen(arguments.network).items():
        smallest = architecture.smallest_image
        if smallest > arguments.image_size:
            print(f"left out: {name} needs {smallest}x{smallest} pixels or more", file=sys.stderr)
            continue
        rows.append(measure(name, arguments.image_size, arguments.num_classes, timed=arguments.time, topology=topology))
        print(f"{name}: done", file=sys.stderr)
    if not rows:
        raise UserError(f"no network works on images of {arguments.image_size} pixels; give a larger --image_size")
    print(cost_table(rows))
    _write(rows, arguments, topology)


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """What a network costs.

    Attributes:
      name: of the network.
      parameters: number of scalars.
      macs: multiply-adds for one image.
      activation_bytes: what the backward pass keeps of each image.
      milliseconds: of an image in inference, the median of five calls, by the number of images in a call; empty if
        nothing was timed.
      modeled_milliseconds: of an image in inference with a batch of 64 on a chip, as its compiler models it; None if it
        was not asked.
    """

    name: str
    parameters: int
    macs: int
    activation_bytes: int
    milliseconds: dict[int, float]
    modeled_milliseconds: float | None = None


def measure(
    name: str, image_size: int, num_classes: int, *, timed: bool, topology: Topology | None = None
) -> NetworkCost:
    """Counts what a network costs, and times its forward pass in float32, or in bfloat16 on an accelerator.

    Args:
      name: of the network.
      image_size: side of the images in pixels.
      num_classes: outputs.
      timed: whether it is timed here.
      topology: of TPUs, for one of which it is compiled; None compiles it for none.
    """
    from convnext_jax.models.costs import summarize
    from convnext_jax.models.registry import named_architecture

    parts = summarize(named_architecture(name), height=image_size, width=image_size, num_classes=num_classes)
    return NetworkCost(
        name,
        sum(part.parameters for part in parts),
        sum(part.macs for part in parts),
        sum(part.activation_bytes for part in parts),
        _milliseconds(name, image_size, num_classes) if timed else {},
        None if topology is None else _modeled(name, image_size, num_classes, topology),
    )


def _modeled(name: str, image_size: int, num_classes: int, topology: Topology) -> float:
    from convnext_jax.tools.plan.inference import modeled_milliseconds

    return modeled_milliseconds(name, image_size, num_classes, BATCH_SIZES[-1], topology)


def _tpu(name: str) -> Topology:
    topology = read_topology(name)
    if not topology.is_tpu:
        raise UserError(f"--topology {name}: only the compilers of TPUs say how long a program takes; try v5e:2x2")
    check_compiler(topology)
    return topology


def cost_table(rows: Sequence[NetworkCost]) -> str:
    """Returns the costs as a Markdown table."""
    sizes = sorted(rows[0].milliseconds)
    head = ["network", "parameters", "multiply-adds", "activations", *(f"ms an image, batch {size}" for size in sizes)]
    modeled = rows[0].modeled_milliseconds is not None
    if modeled:
        head.append(f"modeled ms an image, batch {BATCH_SIZES[-1]}")
    body = [
        [
            row.name,
            f"{row.parameters:,}",
            f"{row.macs / 1e6:,.1f} M",
            f"{row.activation_bytes / 2**20:,.2f} MiB",
            *(f"{row.milliseconds[size]:.3g}" for size in sizes),
            *([f"{row.modeled_milliseconds:.3g}"] if modeled else []),
        ]
        for row in rows
    ]
    return markdown_table([head, *body])


def _chosen(patterns: Sequence[str]) -> "dict[str, Architecture]":
    from convnext_jax.models.table import MODELS  # JAX takes seconds to import

    for pattern in patterns:
        if not fnmatch.filter(MODELS, pattern):
            raise UserError(f"no network is called {pattern!r}: {nearest(pattern, MODELS)}")
    return {name: MODELS[name] for name in MODELS if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}


def _milliseconds(name: str, image_size: int, num_classes: int) -> dict[int, float]:
    import jax
    import jax.numpy as jnp

    from convnext_jax.models.parameters import merge_model, split_model
    from convnext_jax.models.registry import create_model
    from convnext_jax.tools.benchmark.timing import time_calls

    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    definition, *arrays = split_model(create_model(name, num_classes=num_classes, dtype=dtype))

    @jax.jit
    def forward(arrays: Any, images: jax.Array) -> jax.Array:
        return merge_model(definition, *arrays)(images)

    calls = {}
    for size in BATCH_SIZES:
        images = jnp.zeros((size, image_size, image_size, 3), jnp.float32)
        program = forward.lower(arrays, images).compile()

        def call(program: Any = program, images: jax.Array = images) -> None:
            jax.block_until_ready(program(arrays, images))

        call()
        calls[str(size)] = call
    return {
        int(size): 1e3 * statistics.median(times) / int(size) for size, times in time_calls(calls, _REPEATS).items()
    }


def _write(rows: Sequence[NetworkCost], arguments: argparse.Namespace, topology: Topology | None) -> None:
    json_file, picture, image_size = arguments.json, arguments.picture, arguments.image_size
    if json_file is not None:
        from convnext_jax.run.environment import describe_environment
        from convnext_jax.storage.files import write_json
        from convnext_jax.tools.plan.planning import compiler_release

        content = {
            "image_size": image_size,
            "topology": arguments.topology,
            "compiler": None if topology is None else compiler_release(topology),
            "networks": [dataclasses.asdict(row) for row in rows],
        }
        with writing(json_file, "--json"):
            write_json(json_file, content | {"environment": describe_environment()})
    if picture is not None:
        from convnext_jax.report.cost_chart import cost_chart

        points = {row.name: (row.milliseconds[BATCH_SIZES[-1]], row.macs / 1e6) for row in rows}
        with writing(picture, "--picture"):
            title = f"Inference at {image_size}x{image_size} pixels, batch {BATCH_SIZES[-1]}"
            cost_chart(points, title).savefig(picture, dpi=120)


if __name__ == "__main__":
    command_line.run_main(main)
