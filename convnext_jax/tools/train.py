"""Trains a network: ``convnext-jax train --config digits``, or ``python train.py`` in a checkout."""

from convnext_jax.run.signals import end_this_process_at_once, ignore_signals
from convnext_jax.run.standard_streams import open_closed_streams

if __name__ == "__main__":
    open_closed_streams()
    end_this_process_at_once()  # if a signal comes; before the imports below take their time

import json
import sys
from pathlib import Path
from typing import Any

from convnext_jax.config import Experiment
from convnext_jax.errors import EXIT_TEMPFAIL
from convnext_jax.run.process_flags import ProcessFlags
from convnext_jax.storage.cloud import to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder
from convnext_jax.workdir.tracking import check_tracker


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Trains a network on images. Run the same command again to go on after an interruption.",
        "Any field of the configuration can be set: --config.section.field=value;\n"
        "--print_config shows them all, --config.run.seeds=3 trains three seeds. Exit status: 0 done, 2 usage error,\n"
        "1 any other failure, 75 stopped by a signal with the state saved: run the same command again.",
    )
    config = "the experiment, such as configs/cifar100.py;\nor one that comes with the package, such as cifar100"
    parser.add_argument("--config", required=True, metavar="FILE", help=config)
    parser.add_argument(
        "--workdir",
        type=to_path,
        metavar="DIR",
        help="where everything is written, a folder or gs://bucket/folder;\n"
        "default runs/<config name>-<hash of the configuration>",
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="make the run in --workdir longer, to config.run.epochs;\nfor the schedules step and warmup_stable_decay",
    )
    parser.add_argument("--print_config", action="store_true", help="show the resolved configuration and exit")
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of process 0, if several train together and neither a TPU\nslice nor srun says so; see docs/scaling.md",
    )
    parser.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    parser.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
    patience = "how long they wait for each other (default: 300)"
    parser.add_argument("--coordinator_timeout", type=float, metavar="SECONDS", default=300, help=patience)
    arguments, overrides = parser.parse_known_args()
    processes = ProcessFlags(
        arguments.coordinator, arguments.num_processes, arguments.process_id, arguments.coordinator_timeout
    )
    experiment = command_line.load_experiment(arguments.config, overrides)
    command_line.check_names(experiment)
    if arguments.print_config:
        print(json.dumps(experiment.to_dict(), indent=2))
        return
    if arguments.extend and arguments.workdir is None:
        parser.error("--extend needs --workdir, the run to make longer")
    check_tracker(experiment.run.tracker)
    workdir = arguments.workdir or _default_workdir(arguments.config, experiment)
    check_new_folder("--workdir", workdir)
    _train(experiment, workdir, processes, extend=arguments.extend)
    ignore_signals()


def _default_workdir(config: str, experiment: Experiment) -> Path:
    from convnext_jax.workdir.claim import default_workdir

    return default_workdir(config, experiment)


def _train(experiment: Experiment, workdir: Path, processes: ProcessFlags, *, extend: bool) -> None:
    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.run.compilation_cache import keep_compiled_programs
    from convnext_jax.run.distributed import join_processes
    from convnext_jax.run.jax_settings import start_jax
    from convnext_jax.run.loop import Stopped
    from convnext_jax.run.rollback import train_to_the_end
    from convnext_jax.run.seeds import train_seeds
    from convnext_jax.sharding import make_mesh
    from convnext_jax.train.compiler import StepCompiler

    several = experiment.run.seeds > 1
    run, report = (train_seeds, _report_seeds) if several else (train_to_the_end, _report)
    with join_processes(processes) as peers, StepCompiler() as compiler:
        with peers.together():
            start_jax()
            mesh = make_mesh(fsdp=experiment.run.fsdp)
        keep_compiled_programs()
        try:
            summary = run(experiment, workdir, mesh, compiler=compiler, peers=peers, extend=extend)
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(EXIT_TEMPFAIL)
    if summary:  # in no process but the lead
        report(workdir, summary)


def _report(workdir: Path, summary: dict[str, Any]) -> None:
    from convnext_jax.workdir.metrics_log import LABELS

    split, final = summary["split"], summary["final"]
    names = [name for name in LABELS if f"{split}/{name}" in final]
    figures = ", ".join(f"{LABELS[name]} {final[f'{split}/{name}']:.4f}" for name in names)
    ema = f"{split}_ema/{names[0]}"
    average = f", of the EMA {LABELS[names[0]]} {final[ema]:.4f}" if ema in final else ""
    print(
        f"done: {split} {figures}{average} after {final['epoch']:g} epochs, {summary['seconds']:.0f} s;"
        f" see {workdir}/curves.png"
    )


def _report_seeds(workdir: Path, summary: dict[str, Any]) -> None:
    from convnext_jax.report.tables import seed_table
    from convnext_jax.workdir.metrics_log import LABELS

    split, seeds = summary["split"], summary["seeds"]
    figures = ", ".join(
        f"{LABELS[name]} {summary['mean'][f'{split}/{name}']:.4f} ± {summary['std'][f'{split}/{name}']:.4f}"
        for name in LABELS
        if f"{split}/{name}" in summary["mean"]
    )
    print(seed_table({seed: one["final"] for seed, one in seeds.items()}, names=tuple(summary["mean"])))
    print(
        f"done: {split} {figures} (mean ± standard deviation of {len(seeds)} seeds), {summary['seconds']:.0f} s;"
        f" see {workdir}/summary.json"
    )


if __name__ == "__main__":
    command_line.run_main(main)
