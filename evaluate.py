"""Evaluates a checkpoint: ``python evaluate.py --workdir runs/c100``."""

from convnext_jax.precision import DTYPES
from convnext_jax.storage.cloud import to_path
from convnext_jax.tools import command_line


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Evaluates a checkpoint of train.py exactly: each example of the split counts once.",
        "Writes evaluation.json. The machine may have other devices than the training had.\n"
        "Of a run with several seeds each is evaluated, and their mean and standard deviation are given.",
    )
    parser.add_argument("--workdir", type=to_path, required=True, metavar="DIR", help="the workdir of train.py")
    parser.add_argument("--step", default="latest", help="which checkpoint: latest (default), best, or a step")
    parser.add_argument("--weights", default="raw", choices=("raw", "ema"), help="which weights of it (default: raw)")
    parser.add_argument(
        "--split", default="test", choices=("test", "train", "validation"), help="which split (default: test)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="where the data are on this machine, if elsewhere")
    parser.add_argument(
        "--data_changed", choices=("ok",), help="evaluate on other examples of the same classes than those trained on"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="what to compute in, if not what the config says")
    parser.add_argument("--batch_size", type=int, help="images at a time (default: what fits); changes no figure")
    parser.add_argument(
        "--output", type=to_path, metavar="DIR", help="where evaluation.json goes (default: the workdir)"
    )
    arguments = parser.parse_args()
    if arguments.batch_size is not None and arguments.batch_size < 1:
        parser.error(f"--batch_size {arguments.batch_size}: must be at least 1")

    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.evaluate import offline
    from convnext_jax.report.tables import seed_table
    from convnext_jax.run.compilation_cache import keep_compiled_programs

    keep_compiled_programs()
    selection = offline.Selection(
        step=arguments.step,
        weights=arguments.weights,
        split=arguments.split,
        data_dir=arguments.data_dir,
        data_changed=arguments.data_changed == "ok",
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
    )
    evaluation = offline.summary_of(offline.evaluate_workdir(arguments.workdir, selection))
    path = offline.write_evaluation(evaluation, arguments.output or arguments.workdir)
    if "seeds" in evaluation:
        print(seed_table(evaluation["seeds"], names=tuple(evaluation["mean"])))
    else:
        command_line.print_fields({name: value for name, value in evaluation.items() if not isinstance(value, dict)})
    print(f"written to {path}")


if __name__ == "__main__":
    command_line.run_main(main)
