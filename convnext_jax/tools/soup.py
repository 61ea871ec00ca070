"""Averages the last checkpoints of a run, evaluates the mean and writes it as weights to start from.

``python -m convnext_jax.tools.soup --workdir runs/c100 --last 5``
"""

from convnext_jax.errors import UserError
from convnext_jax.storage.cloud import is_cloud, local_path, to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder, data_options


@data_options("data_dir")
def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Averages the parameters of a run's last checkpoints, evaluates the mean on a whole split, and writes a folder"
        "\nof weights that config.model.init_from takes, with soup.json: the figures and the steps of the checkpoints."
    )
    parser.add_argument("--workdir", type=to_path, required=True, metavar="DIR", help="the workdir of train.py")
    parser.add_argument("--last", type=int, required=True, metavar="K", help="how many checkpoints, from the latest")
    parser.add_argument(
        "--split",
        choices=("test", "train", "validation"),
        help="which split (default: validation if the run held out one, else test)",
    )
    parser.add_argument("--data_dir", metavar="DIR", help="where the data are on this machine, if elsewhere")
    parser.add_argument("--batch_size", type=int, help="images at a time (default: what fits); changes no figure")
    parser.add_argument(
        "--output", type=local_path, metavar="DIR", help="the folder to make (default: soup_last_K in the workdir)"
    )
    arguments = parser.parse_args()
    for name, value, least in (("last", arguments.last, 2), ("batch_size", arguments.batch_size, 1)):
        if value is not None and value < least:
            parser.error(f"--{name} {value}: must be at least {least}")
    if arguments.output is None and is_cloud(arguments.workdir):
        parser.error(f"--workdir {arguments.workdir} is in a bucket: give --output, a folder on the disk")
    output = arguments.output or arguments.workdir / f"soup_last_{arguments.last}"
    if output.exists():
        raise UserError(f"{output} exists already; choose another --output")
    check_new_folder("--output", output)

    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.evaluate.soup import make_soup
    from convnext_jax.run.compilation_cache import keep_compiled_programs
    from convnext_jax.run.jax_settings import start_jax

    start_jax()
    keep_compiled_programs()
    soup, report = make_soup(
        arguments.workdir,
        last=arguments.last,
        split=arguments.split,
        data_dir=arguments.data_dir,
        batch_size=arguments.batch_size,
    )
    soup.write(output, beside={"soup.json": report})
    command_line.print_fields({name: value for name, value in report.items() if not isinstance(value, dict)})
    print(f"written to {output}; train from it with --config.model.init_from={output}")


if __name__ == "__main__":
    command_line.run_main(main)
