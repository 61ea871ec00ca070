"""What the command lines share: exit statuses and the reading of ``--config``.

Imports nothing heavy, so that ``--help`` and a mistake answer at once.
"""

import argparse
import gc
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import config_flags

from convnext_jax.config import Experiment, check_field, parse_experiment
from convnext_jax.errors import UserError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_TEMPFAIL = 75  # sysexits.h's EX_TEMPFAIL: the same command, run again, goes on


def run_main(main: Callable[[], None]) -> NoReturn:
    """Runs a command and exits: 0 when done, 2 for a mistake of the user's, told in one line."""
    # The package's own warnings are lines for the user; Orbax's, on absl's logger, speak of its options.
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    # A traced program is a million small objects that live on. Python looks through all of them for garbage after
    # every few hundred new ones, for a twelfth of a start (benchmarks/notes.md).
    gc.set_threshold(100_000)
    try:
        main()
    except UserError as error:
        fail(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on", EXIT_TEMPFAIL)
    sys.exit(0)


def fail(message: str, status: int) -> NoReturn:
    """Prints ``error: <message>`` on one line and exits with a status."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def print_fields(fields: Mapping[str, object]) -> None:
    """Prints names and values in two columns."""
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name:<{width}}  {value}")


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose usage errors are one line like every other."""

    def __init__(self, description: str, epilog: str | None = None) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawTextHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with status 2."""
        fail(f"{message}; see {self.prog} --help", EXIT_USAGE)


def load_experiment(path: str, overrides: Sequence[str]) -> Experiment:
    """Reads a config file and the overrides of the command line.

    Args:
      path: a Python file with ``get_config()``, or ``file.py:argument`` for ``get_config(argument)``.
      overrides: ``--config.section.field=value`` and the like, all that is left of the command line.

    Raises:
      UserError: no such file, a flag that does not exist, or a configuration that is wrong.
    """
    file = Path(path.partition(":")[0])
    try:
        check_file(file)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from None
    for argument in overrides:
        if override := re.match(r"--(no)?config\.([^=]*)", argument):
            check_field(override[2])
        elif argument.startswith("-"):
            raise UserError(f"unknown flag {argument.partition('=')[0]}; see --help")
    values = flags.FlagValues()
    arguments = ["train.py", f"--config={path}", *overrides]
    try:
        flag = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
        unused = values(arguments)[1:]
    except flags.Error as error:
        raise UserError(str(error)) from error
    except (AttributeError, KeyError) as error:
        # A locked ConfigDict names the field that does not exist, and the nearest one that does.
        raise UserError(f"{path}: {error.args[0] if error.args else error}") from error
    if unused:
        raise UserError(f"unexpected argument {unused[0]!r}; overrides read --config.section.field=value")
    return parse_experiment(flag.value)


def check_file(file: Path) -> None:
    """Raises UserError where there is no such file; the message lists the Python files beside it."""
    if not file.is_file():
        there = ", ".join(sorted(map(str, file.parent.glob("*.py")))) or "nothing"
        raise UserError(f"there is no file {file}; {file.parent} holds {there}")


def check_output(file: Path | None) -> None:
    """Raises UserError where an ``--output`` could not be written for want of its folder, before the work is done."""
    if file is not None and not file.parent.is_dir():
        raise UserError(f"--output {file}: there is no folder {file.parent}")


def check_names(experiment: Experiment) -> None:
    """Raises UserError where the experiment names a data set or a model that does not exist or cannot be built.

    That a model's image sizes fit it is known here, that of the data's own images only once they are loaded.
    """
    from convnext_jax.data.registry import check_name
    from convnext_jax.models.architectures import configured_architecture

    architecture = configured_architecture(experiment.model)
    for size in experiment.run.image_sizes:
        architecture.check_image_size(size, size)
    check_name(experiment.data.name)
