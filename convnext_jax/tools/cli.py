"""The command ``convnext-jax`` of an installed package: ``convnext-jax train --config digits``.

Imports nothing slow: a command is imported once it is known which.
"""

import runpy
import sys

import convnext_jax
from convnext_jax.errors import EXIT_USAGE, nearest
from convnext_jax.run.standard_streams import EXIT_READER_GONE, finish_streams, open_closed_streams

CONSOLE_SCRIPT = "convnext-jax"
# The modules of this folder, in the order in which a user meets them.
COMMANDS = {
    "train": "train a network, or go on after an interruption",
    "evaluate": "evaluate checkpoints: figures with intervals, and a report",
    "predict": "classify or segment your own pictures",
    "prepare": "download, verify and decode a data set ahead of time",
    "sweep": "train many configurations and rank them",
    "compare": "compare runs, also while they train",
    "soup": "average the last checkpoints of a run",
    "export": "write a network in the format of other software",
    "import_torch": "make weights to start from out of a PyTorch checkpoint",
    "replay": "take a step of a run again and show its numbers",
    "summary": "print a network part by part",
    "compare_networks": "compare what networks cost",
    "road": "print the road from ResNet to ConvNeXt",
    "benchmark": "measure the speed of a training here, or its largest batch",
    "plan": "plan a training on chips that are not here",
    "compare_plans": "compare plans on more and more chips",
}


def main() -> None:
    """Runs the command that the first argument names, as ``python -m convnext_jax.tools.NAME`` would."""
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    name = given.replace("-", "_")
    if name in COMMANDS:
        sys.argv = [f"{CONSOLE_SCRIPT} {given}", *sys.argv[2:]]
        runpy.run_module(f"convnext_jax.tools.{name}", run_name="__main__")
        return
    open_closed_streams()
    try:
        status = _answer(given)
    except BrokenPipeError:
        status = EXIT_READER_GONE
    sys.exit(finish_streams(status))


def _answer(given: str) -> int:
    """Answers a first argument that names no command, and returns the exit status."""
    if given in ("-h", "--help"):
        print(_help())
    elif given == "--version":
        print(f"{CONSOLE_SCRIPT} {convnext_jax.__version__}")
    else:
        wrong = f"{given!r:.100} is no command; {nearest(given, COMMANDS)}" if given.strip() else "no command is given"
        print(f"error: {wrong}; see {CONSOLE_SCRIPT} --help", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        (
            f"usage: {CONSOLE_SCRIPT} COMMAND ...",
            "",
            "Trains, evaluates and uses ConvNeXt and other networks on small images.",
            "",
            *(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()),
            "",
            f"{CONSOLE_SCRIPT} COMMAND --help shows the options of a command, {CONSOLE_SCRIPT} --version the version.",
        )
    )


if __name__ == "__main__":
    main()
