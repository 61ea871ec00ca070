"""What the command lines share: exit statuses, usage errors, and the reading of ``--config``.

Imports nothing slow, so that ``--help`` and most mistakes answer at once.
"""

import argparse
import errno
import functools
import gc
import io
import logging
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_dict, config_flags

from convnext_jax.config import (
    NO_VALUE,
    Experiment,
    check_field,
    may_be_none,
    own_field_kinds,
    parse_experiment,
    parse_sections,
    wrong_type,
)
from convnext_jax.errors import EXIT_FAILURE, EXIT_TEMPFAIL, EXIT_USAGE, Failure, UserError, first_line, system_reason
from convnext_jax.run import standard_streams
from convnext_jax.tools.arguments import check_path, check_text
from convnext_jax.tools.cli import CONSOLE_SCRIPT
from convnext_jax.tools.python_file import read_config_file
from convnext_jax.tools.shipped import find_file


def run_main(main: Callable[[], None]) -> NoReturn:
    """Runs a command and exits: 0 when done, 2 after a user's mistake, which is printed on one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where a ± or a name cannot be shown, its code is
            stream.reconfigure(errors="backslashreplace")
    # The package's own warnings are lines for the user. Orbax's, on absl's logger, are about its own options.
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # If a save fails, Orbax raises one error, and those of the other arrays end up with asyncio, a page for each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    threading.excepthook = _report_thread
    standard_streams.open_closed_streams()
    # A traced program is a million small objects that stay alive. Python searches all of them for garbage after every
    # few hundred new ones, which takes a twelfth of a start (benchmarks/notes.md).
    gc.set_threshold(100_000)
    try:
        status = _status_of(main)
    except BrokenPipeError:
        if not standard_streams.reader_is_gone():  # it was another pipe
            raise
        status = standard_streams.EXIT_READER_GONE
    sys.exit(standard_streams.finish_streams(status))


def _status_of(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        return end.code or 0
    except UserError as error:
        return _report(str(error), EXIT_USAGE)
    except Failure as error:
        return _report(str(error), EXIT_FAILURE)
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _report(f"{error.filename or 'the output'} cannot be used ({system_reason(error)})", EXIT_FAILURE)
    except ValueError as error:
        blamed = [name for name in os.environ if name.startswith("JAX_") and name in str(error).upper()]
        if not blamed or "jax" in sys.modules:
            raise
        given = f"{blamed[0]}={os.environ[blamed[0]]}"
        return _report(f"JAX does not start with {given} ({first_line(error)}); mend or unset it", EXIT_USAGE)
    except KeyboardInterrupt:
        return _report("interrupted; run the same command again to go on", EXIT_TEMPFAIL)
    return 0


def _report_thread(arguments: threading.ExceptHookArgs) -> None:
    """Shows what ended a thread, except one of Orbax's, whose error is raised again where the thread is waited for."""
    if arguments.thread is None or "orbax" not in type(arguments.thread).__module__:
        threading.__excepthook__(arguments)


def fail(message: str, status: int) -> NoReturn:
    """Prints ``error: <message>`` on one line and exits with a status."""
    sys.exit(_report(message, status))


def _report(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def typed() -> str:
    """Returns the command line of this process as the user typed it."""
    program = _program() or shlex.join(["python", sys.argv[0]])
    return f"{program} {shlex.join(sys.argv[1:])}".strip()


def _program() -> str | None:
    """Returns what stands before the arguments of a command of the package; None for a script, which has its name."""
    if sys.argv[0].startswith(f"{CONSOLE_SCRIPT} "):
        return sys.argv[0]
    module = getattr(sys.modules["__main__"].__spec__, "name", "").removesuffix(".__main__")
    return f"python -m {module}" if module.startswith("convnext_jax.") else None


def print_fields(fields: Mapping[str, object]) -> None:
    """Prints names and values in two columns."""
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name:<{width}}  {value}")


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose usage errors are one line like all others.

    It refuses empty arguments, and impossible paths: what becomes a ``Path``, or has the metavar DIR, FILE or PICTURE.
    """

    def __init__(self, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=_program(),
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawTextHelpFormatter,
        )

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """See ``argparse``."""
        if "action" not in options or options["action"] == "append":
            options["type"] = _checked(names[0], options)
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        """Prints the message and exits with status 2."""
        fail(f"{message}; see {self.prog} --help", EXIT_USAGE)


def _checked(name: str, options: Mapping[str, Any]) -> Callable[[str], Any]:
    """Returns the conversion of an argument, with the checks that all arguments have."""
    convert: Callable[[str], Any] = options.get("type", str)
    metavar = options.get("metavar", "")
    name = name if name.startswith("-") else metavar or name
    may_lack = name.startswith("-") and not options.get("required")

    @functools.wraps(convert, updated=())  # argparse's own messages have the name of the type
    def checked(text: str) -> Any:
        check_text(name, text, "give it a value" + ", or leave it out" * may_lack)
        value = convert(text)
        if isinstance(value, Path) or metavar in ("DIR", "FILE", "PICTURE"):
            check_path(name, Path(value))
        return value

    return checked


_PATH_FIELDS = ("data.data_dir", "data.manual_dir", "model.init_from")
_OVERRIDE = re.compile(r"--(?:no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)


def load_experiment(path: str, overrides: Sequence[str]) -> Experiment:
    """Reads a config file and the overrides of the command line.

    Args:
      path: a Python file with ``get_config()``, or ``file.py:argument`` for ``get_config(argument)``; or the name of
        one that comes with the package, see `find_file`.
      overrides: ``--config.section.field=value`` and the like: all that is left of the command line. If they name a
        model of another family than the file does, the fields that the file sets for its own family are dropped.

    Raises:
      UserError: no such file, a flag that does not exist, or a configuration that is wrong.
    """
    name, *argument = path.split(":", 1)
    try:
        path = ":".join([str(find_file(Path(name), "configs")), *argument])
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from None
    given: dict[str, str] = {}
    for index, argument in enumerate(overrides):
        if override := _OVERRIDE.fullmatch(argument):
            check_field(override[1])
            following = overrides[index + 1] if index + 1 < len(overrides) else None
            value = following if override[2] is None else override[2]
            # An empty one sets a field that may be None back, except for a path, which was meant to name something.
            nothing = value in NO_VALUE and may_be_none(override[1]) and override[1] not in _PATH_FIELDS
            if value is not None and not nothing:
                check_text(f"--config.{override[1]}", value, "give it a value, or leave it out")
            given[override[1]] = value or ""
        elif argument.startswith("-"):
            raise UserError(f"unknown flag {argument.partition('=')[0]}; see --help")
    config = read_config_file(path)
    overrides = _take_back(config, overrides)
    model: Any = config.model
    # What is wrong elsewhere is said before the network's family, and with it JAX, is imported.
    parse_sections(config)
    if "model.name" in given:
        _change_model(model, given["model.name"])
    own = [field.removeprefix("model.") for field in given if field.startswith("model.")]
    own = [name for name in own if name not in model]
    if own:
        kinds = own_field_kinds(model.name)
        for name in own:  # a wrong name is refused with all others, as one that the family does not have
            model[name] = config_dict.placeholder(kinds.get(name, str))
    config = _apply_overrides(config, path, overrides)
    _check_paths(config)
    return parse_experiment(config)


def _check_paths(config: Any) -> None:
    """Refuses what a path in a config file cannot be, such as one from a variable of the shell that is not set."""
    for field in _PATH_FIELDS:
        section, name = field.split(".")
        if isinstance(value := config.get(section, {}).get(name), str):
            check_text(f"config.{field}", value, "give it a value, or None")
            check_path(f"config.{field}", Path(value))


def _change_model(model: Any, name: str) -> None:
    """Names another model in its section. If it is of another family, what the file says of its own family goes."""
    from convnext_jax.models.registry import named_architecture

    own_field_kinds(name)  # refuses a name that does not exist
    before, after = type(named_architecture(model.name)), type(named_architecture(name))
    if after is not before:
        for field in own_field_kinds(model.name):
            if field in model:
                del model[field]
    model.name = name


def _take_back(config: config_dict.ConfigDict, overrides: Sequence[str]) -> list[str]:
    """Sets the fields that are given as None, which absl would take for a number; returns the other overrides."""
    left: list[tuple[str, list[str]]] = []
    rest = [*overrides]
    while rest:
        words = [rest.pop(0)]
        override = _OVERRIDE.fullmatch(words[0])
        path = override[1] if override else ""
        if override and may_be_none(path):  # so it is no switch, and has a value
            value = override[2]
            if value is None and rest:
                words.append(value := rest.pop(0))
            left = [each for each in left if each[0] != path]  # the last one counts
            if value in NO_VALUE:
                section, _, name = path.partition(".")
                fields: Any = config[section]
                fields[name] = None
                continue
        left.append((path, words))
    return [word for _, words in left for word in words]


def _apply_overrides(config: Any, path: str, overrides: Sequence[str]) -> Any:
    values = flags.FlagValues()
    arguments = ["train.py", *overrides]
    try:
        flag = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        for name in values:
            if isinstance(each := values[name], flags.MultiFlag):
                _let_the_last_one_count(each)
        unused = values(arguments)[1:]
    except flags.IllegalFlagValueError as error:
        raise UserError(_illegal_value(config, error)) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    except (AttributeError, KeyError) as error:
        raise UserError(f"{path}: {error.args[0] if error.args else error}") from error
    if unused:
        raise UserError(f"unexpected argument {unused[0]!r}; overrides read --config.section.field=value")
    return flag.value


def _let_the_last_one_count(flag: flags.MultiFlag) -> None:
    """Makes a flag that is given again forget what was given before. Those of tuples would join the values."""
    parse = flag.parse

    def parse_alone(arguments: Any) -> None:
        flag.present = 0
        parse(arguments)

    flag.parse = parse_alone


_ILLEGAL = re.compile(r"flag --config\.(\w+)\.(\w+)=(.*?): ", re.DOTALL)


def _illegal_value(config: config_dict.ConfigDict, error: flags.IllegalFlagValueError) -> str:
    """Says of which type a value must be, where absl says what Python's ``int`` could not do with it."""
    match = _ILLEGAL.match(str(error))
    if match is None:
        return str(error)
    section, name, value = match.groups()
    fields: Any = config[section]
    return wrong_type(f"config.{section}.{name}", value, fields.get_type(name), may_be_none(f"{section}.{name}"))


def check_names(experiment: Experiment) -> None:
    """Raises UserError if the experiment names a data set that does not exist, or image sizes that its model refuses.

    Whether the data's own images fit the model is known once they are loaded.
    """
    from convnext_jax.data.registry import check_name

    for size in experiment.run.image_sizes:
        experiment.model.architecture.check_image_size(size, size)
    try:
        check_name(experiment.data.name)
    except UserError as error:
        raise UserError(f"config.data.name: {error}") from None
