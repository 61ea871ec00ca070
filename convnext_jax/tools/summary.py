"""Prints a model part by part, or the groups in which an optimiser treats its parameters.

``python -m convnext_jax.tools.summary convnext_tiny --image_size 224 --num_classes 1000``
``python -m convnext_jax.tools.summary convnext_tiny --groups --optimizer muon --layer_decay 0.8``
"""

import argparse
import dataclasses
import json

from convnext_jax.tools import command_line
from convnext_jax.config import OPTIMIZERS, parse_experiment
from convnext_jax.models.architectures import STEMS, Architecture, named_architecture
from convnext_jax.report.tables import plain_table


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Prints a model part by part: output of one image, parameters, multiply-adds and activation memory of one"
        "\nimage in a training step; or, with --groups, what an optimiser does to which parameters. Nothing is"
        "\ncomputed, so the largest model needs no memory."
    )
    parser.add_argument("model", metavar="NAME", help="a model, such as convnext_tiny")
    parser.add_argument("--image_size", type=int, default=224, help="side of the images in pixels (default: 224)")
    parser.add_argument("--num_classes", type=int, default=1000, help="outputs of the head (default: 1000)")
    parser.add_argument("--in_channels", type=int, default=3, help="channels of the images (default: 3)")
    parser.add_argument("--stem", choices=STEMS, help="another stem than the model's own")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="what it computes in")
    parser.add_argument("--groups", action="store_true", help="print the groups of parameters instead of the parts")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="of the groups (default: adamw)")
    parser.add_argument("--layer_decay", type=float, metavar="FACTOR", help="print each layer's learning rate too")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    architecture = named_architecture(arguments.model)
    if arguments.stem:
        architecture = dataclasses.replace(architecture, stem=arguments.stem)
    if arguments.groups:
        _print_groups(arguments, architecture)
    elif arguments.optimizer or arguments.layer_decay is not None:
        parser.error("--optimizer and --layer_decay are for --groups")
    else:
        _print_parts(arguments, architecture)


def _print_parts(arguments: argparse.Namespace, architecture: Architecture) -> None:
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
    print(plain_table(rows, numbers=(2, 3, 4)))


def _print_groups(arguments: argparse.Namespace, architecture: Architecture) -> None:
    given = {"name": arguments.optimizer, "layer_decay": arguments.layer_decay}
    optim = parse_experiment({"optim": {name: value for name, value in given.items() if value is not None}}).optim

    from convnext_jax.models import abstract_model, create_model  # as above
    from convnext_jax.optim.summary import summarize_groups, summarize_layers

    _, params, _ = abstract_model(
        lambda: create_model(architecture, num_classes=arguments.num_classes, in_channels=arguments.in_channels)
    )
    groups = summarize_groups(params, optim.name)
    layers = summarize_layers(params, optim.layer_decay) if arguments.layer_decay is not None else []
    tensors, parameters = (sum(getattr(group, column) for group in groups) for column in ("tensors", "parameters"))
    if arguments.json:
        content = {"model": arguments.model, "stem": architecture.stem, "optimizer": optim.name}
        content |= {"groups": [dataclasses.asdict(group) for group in groups]}
        content |= {"layers": [dataclasses.asdict(layer) for layer in layers]} if layers else {}
        print(json.dumps(content | {"total": {"tensors": tensors, "parameters": parameters}}, indent=2))
        return
    rows = [("group", "optimizer", "weight decay", "tensors", "parameters", "pattern")]
    for group in groups:
        decay = "yes" if group.weight_decay else "no"
        rows.append((group.group, group.optimizer, decay, f"{group.tensors:,}", f"{group.parameters:,}", group.pattern))
    rows.append(("total", "", "", f"{tensors:,}", f"{parameters:,}", ""))
    print(plain_table(rows, numbers=(3, 4)))
    if layers:
        print()
        rows = [("layer", "learning rate", "tensors", "parameters")]
        rows += [(row.layer, f"x {row.factor:.4g}", f"{row.tensors:,}", f"{row.parameters:,}") for row in layers]
        print(plain_table(rows, numbers=(2, 3)))


if __name__ == "__main__":
    command_line.run_main(main)
