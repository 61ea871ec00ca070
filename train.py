"""Trains a model: ``python train.py --config configs/digits.py``."""

import json
import sys
from pathlib import Path
from typing import Any

from convnext_jax.tools import command_line
from convnext_jax.config import Experiment


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Trains a ConvNeXt. Run the same command again to go on after an interruption.",
        "Any field of the configuration can be set: --config.section.field=value;\n"
        "--print_config shows them all, --config.run.seeds=3 trains three seeds. Exit status: 0 done, 2 usage error,\n"
        "1 any other failure, 75 stopped by a signal with the state saved: run the same command again.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment, such as configs/cifar100.py")
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="where everything is written;\ndefault runs/<config name>-<hash of the configuration>",
    )
    parser.add_argument("--print_config", action="store_true", help="show the resolved configuration and exit")
    arguments, overrides = parser.parse_known_args()
    experiment = command_line.load_experiment(arguments.config, overrides)
    command_line.check_names(experiment)
    if arguments.print_config:
        print(json.dumps(experiment.to_dict(), indent=2))
        return
    _train(experiment, arguments.workdir or _default_workdir(arguments.config, experiment))


def _default_workdir(config: str, experiment: Experiment) -> Path:
    from convnext_jax.workdir.records import default_workdir

    return default_workdir(config, experiment)


def _train(experiment: Experiment, workdir: Path) -> None:
    # What follows takes seconds to import; a mistake above was answered without it.
    from convnext_jax import data
    from convnext_jax.run import loop
    from convnext_jax.run import prepare as preparation
    from convnext_jax.run import seeds
    from convnext_jax.workdir import records as workdirs
    from convnext_jax.run.compilation_cache import keep_compiled_programs
    from convnext_jax.sharding import make_mesh
    from convnext_jax.train.compiler import TrainPrograms

    keep_compiled_programs()
    preparation.check_optimizer(experiment)
    begun = all(workdirs.has_begun(directory) for directory, _ in workdirs.seed_runs(workdir, experiment))
    workdirs.claim(workdir, experiment)
    dataset = data.load(experiment.data)
    mesh = make_mesh()
    preparation.check_against_data(experiment, dataset, mesh)
    if not begun:
        preparation.check_pretrained(experiment, dataset)
    workdirs.DatasetRecord.of(dataset).write(workdir)
    print(f"workdir: {workdir}")
    try:
        with TrainPrograms() as programs:
            if experiment.run.seeds > 1:
                _report_seeds(workdir, seeds.train_seeds(experiment, dataset, workdir, mesh, programs))
            else:
                _report(workdir, loop.train(experiment, dataset, workdir, mesh, programs))
    except loop.Diverged as error:
        command_line.fail(str(error), command_line.EXIT_FAILURE)
    except loop.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(command_line.EXIT_TEMPFAIL)


def _report(workdir: Path, summary: dict[str, Any]) -> None:
    split, final = summary["split"], summary["final"]
    loss, top1, top5 = (f"{final[f'{split}/{name}']:.4f}" for name in ("loss", "top1", "top5"))
    average = f", of the EMA top-1 {final[f'{split}_ema/top1']:.4f}" if f"{split}_ema/top1" in final else ""
    print(
        f"done: {split} top-1 {top1}, top-5 {top5}, loss {loss}{average}"
        f" after {final['epoch']:g} epochs, {summary['seconds']:.0f} s; see {workdir}/curves.png"
    )


def _report_seeds(workdir: Path, summary: dict[str, Any]) -> None:
    from convnext_jax.evaluate.seeds import seed_table

    split, seeds = summary["split"], summary["seeds"]
    loss, top1, top5 = (
        f"{summary['mean'][name]:.4f} ± {summary['std'][name]:.4f}"
        for name in (f"{split}/loss", f"{split}/top1", f"{split}/top5")
    )
    print(seed_table({seed: one["final"] for seed, one in seeds.items()}, names=tuple(summary["mean"])))
    print(
        f"done: {split} top-1 {top1}, top-5 {top5}, loss {loss}"
        f" (mean ± standard deviation of {len(seeds)} seeds), {summary['seconds']:.0f} s; see {workdir}/summary.json"
    )


if __name__ == "__main__":
    command_line.run_main(main)
