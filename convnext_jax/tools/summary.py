"""Prints a model part by part, or what an optimizer does to which parameters.

``python -m convnext_jax.tools.summary convnext_tiny --image_size 224 --num_classes 1000``
``python -m convnext_jax.tools.summary convnext_tiny --roles --optimizer muon --layer_decay 0.8``
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from convnext_jax.config import CHOICES, parse_sections
from convnext_jax.report.tables import plain_table
from convnext_jax.tools import command_line

OPTIMIZERS, LEVELS = CHOICES["optim", "name"], CHOICES["optim", "layer_decay_levels"]


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Prints a model part by part: output for one image, parameters, multiply-adds and activation memory of one"
        "\nimage in a training step; or, with --roles, what an optimizer does to which parameters. Nothing is computed,"
        "\nso the largest model needs no memory."
    )
    parser.add_argument("model", metavar="NAME", help="a model, such as convnext_tiny")
    parser.add_argument("--image_size", type=int, default=224, help="side of the images in pixels (default: 224)")
    parser.add_argument("--num_classes", type=int, default=1000, help="outputs of the head (default: 1000)")
    parser.add_argument("--in_channels", type=int, default=3, help="channels of the images (default: 3)")
    parser.add_argument("--stem", help="another stem than the model's own")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="what it computes in")
    parser.add_argument("--roles", action="store_true", help="print the roles of the parameters instead of the parts")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="for --roles (default: adamw)")
    parser.add_argument("--layer_decay", type=float, metavar="FACTOR", help="print each level's learning rate too")
    parser.add_argument("--layer_decay_levels", choices=LEVELS, help="what a level is (default: grouped)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    given = {"name": arguments.optimizer, "layer_decay": arguments.layer_decay}
    given["layer_decay_levels"] = arguments.layer_decay_levels
    given = {name: value for name, value in given.items() if value is not None}
    if given and not arguments.roles:
        parser.error("--optimizer, --layer_decay and --layer_decay_levels are for --roles")
    optim = parse_sections({"optim": given})["optim"]

    from convnext_jax.models.registry import named_architecture  # seconds to import, as all below

    architecture = named_architecture(arguments.model, {"stem": arguments.stem} if arguments.stem else {})
    if arguments.roles:
        _print_roles(arguments, architecture, optim)
    else:
        _print_parts(arguments, architecture)


def _print_parts(arguments: argparse.Namespace, architecture: Any) -> None:
    from convnext_jax.models.costs import PartCost, summarize

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
    total = PartCost("total", parts[-1].output, *totals)
    if arguments.json:
        content = {"model": arguments.model, "image_size": arguments.image_size}
        content |= {"architecture": dataclasses.asdict(architecture)}
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
    print(plain_table(rows, numbers=(2, 3, 4)))


def _print_roles(arguments: argparse.Namespace, architecture: Any, optim: Any) -> None:
    from convnext_jax.models import abstract_model, create_model
    from convnext_jax.optim.summary import summarize_levels, summarize_roles

    model = abstract_model(
        lambda: create_model(architecture, num_classes=arguments.num_classes, in_channels=arguments.in_channels)
    )
    roles = summarize_roles(model, optim.name)
    levels: Sequence[Any] = ()
    if arguments.layer_decay is not None:
        levels = summarize_levels(model, optim.layer_decay, optim.layer_decay_levels)
    tensors, parameters = (sum(getattr(role, column) for role in roles) for column in ("tensors", "parameters"))
    if arguments.json:
        content = {"model": arguments.model, "optimizer": optim.name}
        content |= {"roles": [dataclasses.asdict(role) for role in roles]}
        content |= {"levels": [dataclasses.asdict(level) for level in levels]} if levels else {}
        print(json.dumps(content | {"total": {"tensors": tensors, "parameters": parameters}}, indent=2))
        return
    rows = [("role", "optimizer", "weight decay", "tensors", "parameters")]
    for role in roles:
        decay = "yes" if role.weight_decay else "no"
        rows.append((role.role, role.optimizer, decay, f"{role.tensors:,}", f"{role.parameters:,}"))
    rows.append(("total", "", "", f"{tensors:,}", f"{parameters:,}"))
    print(plain_table(rows, numbers=(3, 4)))
    if levels:
        print()
        rows = [("learning rate", "tensors", "parameters", "layers")]
        rows += [(f"x {row.factor:.4g}", f"{row.tensors:,}", f"{row.parameters:,}", row.layers) for row in levels]
        print(plain_table(rows, numbers=(0, 1, 2)))


if __name__ == "__main__":
    command_line.run_main(main)
