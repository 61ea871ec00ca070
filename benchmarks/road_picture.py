"""Draws the road from ResNet to ConvNeXt from the record of a sweep, as `convnext_jax.tools.road` does from its runs.

    python benchmarks/road_picture.py benchmarks/results/road_6epochs_h200.json --output road.png

Steps that the record does not have are drawn without a bar.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from convnext_jax.errors import UserError, first_line
from convnext_jax.storage.files import parse_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

METRIC = "validation/top1"


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("record", type=Path, metavar="FILE", help="a JSON file with the points of sweeps/road.py")
    parser.add_argument("--output", type=Path, required=True, help="the PNG file to write")
    parser.add_argument("--title", default="From ResNet to ConvNeXt")
    options = parser.parse_args()
    check_new_file("--output", options.output)

    from convnext_jax.models.costs import parameters_and_macs  # JAX takes seconds to import
    from convnext_jax.models.road_steps import STEPS, road
    from convnext_jax.report.road_chart import Bar, road_chart

    measured = accuracies_of(options.record, [step.name for step in STEPS])
    networks = road("tiny", small_images=True)
    bars = [
        Bar(step.what, parameters_and_macs(networks[step.name], 32, 32, 100)[1] / 1e9, measured.get(step.name, []))
        for step in STEPS
    ]
    road_chart(bars, options.title).savefig(options.output, dpi=120)
    print(f"{len(measured)} of {len(STEPS)} steps: {options.output}")


def accuracies_of(path: Path, steps: Sequence[str]) -> dict[str, list[float]]:
    """Returns the top-1 of each step in percent, one value for each seed.

    Raises:
      UserError: the file has no points of these steps.
    """
    measured: dict[str, list[float]] = {}
    try:
        record: Any = parse_json(path.read_bytes())
        for point in record["points"]:
            if point["step"] in steps:
                measured.setdefault(point["step"], []).append(100 * float(point[METRIC]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} has no points of the road: {first_line(error)}; give the record of a sweep") from error
    if not measured:
        raise UserError(f"{path} has no points of the road; give the record of a sweep")
    return measured


if __name__ == "__main__":
    command_line.run_main(main)
