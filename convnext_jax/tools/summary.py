"""Prints a model part by part: output, parameters, multiply-adds, activation memory.

``python -m convnext_jax.tools.summary convnext_tiny --image_size 224 --num_classes 1000``
"""

import dataclasses
import json
from collections.abc import Sequence

from convnext_jax import command_line
from convnext_jax.models.architectures import STEMS, named_architecture


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Prints a model part by part: output of one image, parameters, multiply-adds and activation memory of one"
        "\nimage in a training step. Nothing is computed, so the largest model needs no memory."
    )
    parser.add_argument("model", metavar="NAME", help="a model, such as convnext_tiny")
    parser.add_argument("--image_size", type=int, default=224, help="side of the images in pixels (default: 224)")
    parser.add_argument("--num_classes", type=int, default=1000, help="outputs of the head (default: 1000)")
    parser.add_argument("--in_channels", type=int, default=3, help="channels of the images (default: 3)")
    parser.add_argument("--stem", choices=STEMS, help="another stem than the model's own")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="what it computes in")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    architecture = named_architecture(arguments.model)
    if arguments.stem:
        architecture = dataclasses.replace(architecture, stem=arguments.stem)
    architecture.check_image_size(arguments.image_size, arguments.image_size)

    from convnext_jax.models.summary import Part, summarize  # seconds to import; a mistake was answered without it

    parts = summarize(
        architecture,
        height=arguments.image_size,
        width=arguments.image_size,
        num_classes=arguments.num_classes,
        in_channels=arguments.in_channels,
        dtype=arguments.dtype,
    )
    columns = ("parameters", "macs", "activation_bytes")
    totals = [sum(getattr(part, column) for part in parts) for column in columns]
    total = Part("total", parts[-1].output, *totals)
    if arguments.json:
        content = {"model": arguments.model, "stem": architecture.stem, "image_size": arguments.image_size}
        content |= {"parts": [dataclasses.asdict(part) for part in parts], "total": dataclasses.asdict(total)}
        print(json.dumps(content, indent=2))
        return
    rows = [("part", "output", "parameters", "multiply-adds", "activations")]
    rows += [
        (
            part.name,
            "x".join(map(str, part.output)),
            f"{part.parameters:,}",
            f"{part.macs / 1e6:,.2f} M",
            f"{part.activation_bytes / 2**20:,.2f} MiB",
        )
        for part in (*parts, total)
    ]
    _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, second, *numbers = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first, second, *(cell.strip().rjust(len(cell)) for cell in numbers)]))


if __name__ == "__main__":
    command_line.run_main(main)
