"""Records a finished run or sweep in one JSON file: settings, hardware, versions, figures, and a curve for each seed.

python benchmarks/record_run.py --workdir runs/c100 --output benchmarks/results/NAME.json
"""

import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from convnext_jax.errors import UserError, first_line
from convnext_jax.storage.files import parse_json, write_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.workdir.claim import read_experiment, seed_runs
from convnext_jax.workdir.metrics_log import read_metrics


def main() -> None:
    """Runs the command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--workdir", type=Path, required=True, help="the folder of a finished run or sweep")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    check_new_file("--output", options.output)
    sweep = read(options.workdir / "sweep.json")
    record = record_run(options.workdir) if sweep is None else record_sweep(options.workdir, sweep)
    write_json(options.output, record)


def record_run(workdir: Path) -> dict[str, Any]:
    """Returns the record of a run with one seed or several.

    Raises:
      UserError: the run has not finished.
    """
    if not (workdir / "summary.json").exists():
        raise UserError(f"{workdir} holds no finished run: there is no summary.json")
    runs = seed_runs(workdir, read_experiment(workdir))
    record = {name: read(workdir / f"{name}.json") for name in ("config", "summary", "evaluation")}
    record["environment"] = read(runs[0][0] / "environment.json")
    curves = {str(one.run.seed): curve(directory / "metrics.jsonl") for directory, one in runs}
    return record | ({"curves": curves} if len(runs) > 1 else {"curve": curves.popitem()[1]})


def record_sweep(workdir: Path, sweep: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of a sweep: the settings and the outcome of each point, and the record of its run."""
    points = [point | {"run": record_run(workdir / point["folder"])} for point in sweep["points"] if point["figures"]]
    return sweep | {"points": points + [point for point in sweep["points"] if not point["figures"]]}


def read(path: Path) -> Any:
    """Returns the content of a JSON file, or None if there is no such file."""
    try:
        return parse_json(path.read_bytes()) if path.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); run the command that wrote it again") from error


def curve(path: Path) -> list[dict[str, float]]:
    """Returns, for each epoch, the means of the training metrics and the metrics of an evaluation at its end."""
    epochs: dict[int, dict[str, list[float]]] = {}
    for line in read_metrics(path):
        figures = epochs.setdefault(math.ceil(line["epoch"]), {})
        for name, value in line.items():
            if "/" in name:
                figures.setdefault(name, []).append(value)
        figures["seconds"] = [line["seconds"]]
    return [
        {"epoch": epoch} | {name: round(sum(values) / len(values), 6) for name, values in figures.items()}
        for epoch, figures in epochs.items()
    ]


if __name__ == "__main__":
    command_line.run_main(main)
