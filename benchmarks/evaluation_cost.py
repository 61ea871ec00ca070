"""What evaluating a split costs beyond its forward passes, and what the figures and the page add.

    python benchmarks/evaluation_cost.py --workdir runs/c100 --output benchmarks/results/NAME.json

Evaluating from the pictures on the disk, and forward passes alone over batches that are on the devices already, take
turns. Compilation and the start of the process are in neither.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from convnext_jax import data
from convnext_jax.evaluate.offline import Selection, evaluate_parameters
from convnext_jax.evaluate.predictions import Predictor
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.report.evaluation_page import evaluation_page
from convnext_jax.run.environment import describe_environment
from convnext_jax.storage.cloud import local_path
from convnext_jax.storage.files import write_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.tools.benchmark.timing import time_calls


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--workdir", required=True, type=local_path, metavar="DIR")
    parser.add_argument("--data_dir", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.output is not None:
        check_new_file("--output", arguments.output)
    run = SavedRun.open(arguments.workdir, data_dir=arguments.data_dir, dtype=None)
    step = run.select("latest")
    params, batch_stats = run.restore(step)
    dataset = data.load(run.experiment.data)
    images = dataset.test.images
    predictor = Predictor(run.forward())
    program, size = predictor.compile(params, batch_stats, images)
    numbers = [np.minimum(np.arange(start, start + size), len(images) - 1) for start in range(0, len(images), size)]
    batches = [jax.device_put(images[each], run.sharding.batch) for each in numbers]

    def forward_alone() -> None:
        jax.block_until_ready([program(params, batch_stats, batch) for batch in batches])

    def evaluate() -> None:
        predictor(params, batch_stats, images)

    seconds = time_calls({"forward": forward_alone, "evaluate": evaluate}, arguments.rounds)
    ratios = [whole / alone for whole, alone in zip(seconds["evaluate"], seconds["forward"], strict=True)]
    evaluated, with_figures = _timed(
        lambda: evaluate_parameters(run, step, Selection(), predictor, dataset, (params, batch_stats))
    )
    _, with_page = _timed(lambda: evaluation_page(evaluated, command="").html())
    content = {
        "model": run.experiment.model.name,
        "examples": len(images),
        "batch_size": size,
        "forward_seconds_median": statistics.median(seconds["forward"]),
        "evaluate_seconds_median": statistics.median(seconds["evaluate"]),
        "evaluate_over_forward_median": statistics.median(ratios),
        "ratios": ratios,
        "evaluation_with_all_figures_seconds": with_figures,
        "page_seconds": with_page,
        "environment": describe_environment(),
    }
    command_line.print_fields({name: value for name, value in content.items() if name != "environment"})
    if arguments.output:
        write_json(arguments.output, content)


def _timed(call: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


if __name__ == "__main__":
    command_line.run_main(main)
