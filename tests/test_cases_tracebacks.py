"""Every command with every wrong path and name: one line and status 2, in seconds; and without its output."""

import dataclasses
import gc
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from PIL import Image

from convnext_jax.config import default_config, parse_experiment
from convnext_jax.tools.command_line import run_main
from convnext_jax.workdir.claim import write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord, SplitRecord

CONFIG = str(ROOT / "configs" / "digits.py")
SWEEP = str(ROOT / "sweeps" / "digits_lr.py")
LONG = "x" * 300  # file systems end at 255

# What may stand for each kind of argument, and is wrong. {tmp} is the folder that `made` has filled.
ALWAYS = {"empty": "", "blank": " ", "line break": "a\nb", "nul": "a\0b", "no text": "a\udcffb"}
PATHS = ALWAYS | {"long": LONG, "below a file": "{tmp}/text.txt/a", "a circle of links": "{tmp}/circle"}
A_FILE = PATHS | {
    "missing": "{tmp}/missing",
    "a folder": "{tmp}/folder",
    "text": "{tmp}/text.txt",
    "a picture": "{tmp}/picture.png",
    "binary junk": "{tmp}/junk.bin",
    "nothing in it": "{tmp}/nothing.txt",
}
A_FOLDER = PATHS | {
    "missing": "{tmp}/missing",
    "a file": "{tmp}/text.txt",
    "another folder": "{tmp}/folder",
    "a picture": "{tmp}/picture.png",
}
NEW_FILE = PATHS | {"a folder": "{tmp}/folder", "missing folder": "{tmp}/missing/a.json", "sealed": "{tmp}/sealed/a"}
NEW_FOLDER = PATHS | {"a file": "{tmp}/text.txt", "sealed": "{tmp}/sealed/a", "below a device": "/dev/null/a"}
NAME = ALWAYS | {"unknown": "no_such_thing", "long": LONG, "a path": "{tmp}/text.txt"}
BUCKET = {"another bucket": "s3://bucket/a", "no bucket": "gs://"}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
      module: its module.
      right: arguments that make it right.
      wrong: by argument, what is wrong for it. A name without dashes is the position among the arguments.
    """

    module: str
    right: tuple[str, ...]
    wrong: dict[str, dict[str, str]]


CONFIG_FIELDS = {
    "--config.data.data_dir": PATHS,
    "--config.data.manual_dir": PATHS,
    "--config.model.init_from": PATHS,
    "--config.model.name": NAME,
    "--config.data.name": NAME,
}
WORKDIR = ("--workdir", "{tmp}/run")
COMMANDS = (
    Command(
        "convnext_jax.tools.train",
        ("--config", CONFIG, "--workdir", "{tmp}/new"),
        {"--config": A_FILE, "--workdir": NEW_FOLDER | BUCKET, **CONFIG_FIELDS},
    ),
    Command(
        "convnext_jax.tools.evaluate",
        WORKDIR,
        {
            "--workdir": A_FOLDER | BUCKET,
            "--output": NEW_FOLDER | BUCKET,
            "--data_dir": PATHS,
            "--step": ALWAYS,
            "--weights": NAME,
            "--split": NAME,
            "--dtype": NAME,
            "--data_changed": NAME,
            "--tta": NAME,
            "--format": NAME,
            "--corrupted": PATHS | {"missing": "{tmp}/missing", "a file": "{tmp}/text.txt"},
        },
    ),
    Command(
        "convnext_jax.tools.benchmark.__main__",
        ("--config", CONFIG, "--parts", "forward"),
        {"--config": A_FILE, "--output": NEW_FILE, "--parts": NAME, "--backend": NAME, **CONFIG_FIELDS},
    ),
    Command(
        "convnext_jax.tools.compare",
        ("{tmp}/run", "--output", "{tmp}/new"),
        {"workdir": A_FOLDER | BUCKET, "--output": NEW_FOLDER},
    ),
    Command(
        "convnext_jax.tools.compare_plans",
        ("{tmp}/table.json", "--picture", "{tmp}/new.png"),
        {"FILE": A_FILE, "--picture": NEW_FILE},
    ),
    Command(
        "convnext_jax.tools.compare_networks",
        ("lenet5",),
        {"network": NAME, "--json": NEW_FILE, "--picture": NEW_FILE},
    ),
    Command(
        "convnext_jax.tools.export",
        (*WORKDIR, "--format", "timm", "--output", "{tmp}/new"),
        {
            "--workdir": A_FOLDER | BUCKET,
            "--format": NAME,
            "--output": NEW_FOLDER,
            "--step": ALWAYS,
            "--weights": NAME,
            "--dtype": NAME,
        },
    ),
    Command(
        "convnext_jax.tools.import_torch",
        ("{tmp}/a.safetensors", "--model", "convnext_atto", "--output", "{tmp}/new"),
        {"WEIGHTS": A_FILE, "--model": NAME, "--output": NEW_FOLDER},
    ),
    Command(
        "convnext_jax.tools.plan.__main__",
        ("--config", CONFIG, "--topology", "cpu:1"),
        {"--config": A_FILE, "--topology": NAME, "--json": NEW_FILE, "--picture": NEW_FILE, **CONFIG_FIELDS},
    ),
    Command(
        "convnext_jax.tools.predict",
        ("{tmp}/picture.png", *WORKDIR),
        {
            "PICTURE": PATHS | {"missing": "{tmp}/missing", "no pictures": "{tmp}/folder"},
            "--workdir": A_FOLDER | BUCKET,
            "--output": NEW_FILE,
            "--explain": NEW_FILE,
            "--step": ALWAYS,
            "--weights": NAME,
            "--format": NAME,
        },
    ),
    Command(
        "convnext_jax.tools.prepare",
        ("digits",),
        {"name": NAME, "--data_dir": PATHS, "--manual_dir": PATHS},
    ),
    Command(
        "convnext_jax.tools.replay",
        (*WORKDIR, "--step", "1"),
        {"--workdir": A_FOLDER | BUCKET, "--output": NEW_FOLDER | BUCKET, "--data_dir": PATHS, "--step": NAME},
    ),
    Command(
        "convnext_jax.tools.road",
        ("{tmp}/run", "--picture", "{tmp}/road.png"),
        {"workdir": A_FOLDER | BUCKET, "--picture": NEW_FILE, "--size": NAME},
    ),
    Command(
        "convnext_jax.tools.soup",
        (*WORKDIR, "--last", "2"),
        {"--workdir": A_FOLDER | BUCKET, "--output": NEW_FOLDER, "--data_dir": PATHS, "--last": NAME, "--split": NAME},
    ),
    Command(
        "convnext_jax.tools.summary",
        ("convnext_atto",),
        {"NAME": NAME, "--stem": NAME, "--optimizer": NAME, "--dtype": NAME},
    ),
    Command(
        "convnext_jax.tools.sweep.__main__",
        (SWEEP, "--workdir", "{tmp}/new"),
        {"FILE": A_FILE, "--workdir": NEW_FOLDER},
    ),
    Command("benchmarks.chaos", ("--kills", "0", "--terms", "0"), {"--output": NEW_FILE}),
    Command("benchmarks.checkpoint_cost", ("--config", CONFIG), {"--config": A_FILE, "--output": NEW_FILE}),
    Command("benchmarks.streaming", (), {"--output": NEW_FILE}),
    Command("benchmarks.convolution_gradients", (), {"--output": NEW_FILE}),
    Command(
        "benchmarks.exported_models",
        ("{tmp}/folder", "--workdir", "{tmp}/run", "--output", "{tmp}/new.json"),
        {"FOLDER": A_FOLDER, "--output": NEW_FILE},
    ),
    Command(
        "benchmarks.imported_weights",
        ("--facebookresearch", "{tmp}", "--output", "{tmp}/new.json"),
        {"--facebookresearch": A_FOLDER, "--output": NEW_FILE},
    ),
    Command("benchmarks.figures", (), {}),
    Command(
        "benchmarks.frontier", ("{tmp}/table.json", "--output", "{tmp}/new.png"), {"FILE": A_FILE, "--output": NEW_FILE}
    ),
    Command(
        "benchmarks.road_picture",
        ("{tmp}/table.json", "--output", "{tmp}/new.png"),
        {"FILE": A_FILE, "--output": NEW_FILE},
    ),
    Command("benchmarks.evaluation_cost", WORKDIR, {"--workdir": A_FOLDER, "--output": NEW_FILE}),
    Command(
        "benchmarks.compare",
        (),
        {"--model": NAME, "--stem": NAME, "--systems": NAME, "--torch_python": A_FILE, "--output": NEW_FILE},
    ),
    Command("benchmarks.layers", ("--output", "{tmp}/new.json"), {"--torch_python": A_FILE, "--output": NEW_FILE}),
    Command(
        "benchmarks.plain_jax_plan",
        ("--topology", "v5e:2x4", "--output", "{tmp}/new.json"),
        {"--topology": NAME, "--output": NEW_FILE},
    ),
    Command("benchmarks.comparison_table", ("{tmp}/table.json",), {"RECORD": A_FILE}),
    Command(
        "benchmarks.record_run",
        ("--workdir", "{tmp}/run", "--output", "{tmp}/record.json"),
        {"--workdir": A_FOLDER, "--output": NEW_FILE},
    ),
)
CASES = [
    pytest.param(command, argument, value, id=f"{command.module}-{argument}-{kind}")
    for command in COMMANDS
    for argument, values in command.wrong.items()
    for kind, value in values.items()
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind, and a run of the digits that has begun and saved nothing."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "text.txt").write_text("some words\n")
    (folder / "nothing.txt").touch()
    Image.new("RGB", (4, 4)).save(folder / "picture.png")
    (folder / "junk.bin").write_bytes(bytes(range(256)) * 8)
    (folder / "folder").mkdir()
    (folder / "sealed").mkdir()
    (folder / "sealed").chmod(0o555)  # the commands heed it even where the superuser could write
    (folder / "circle").symlink_to(folder / "circle")
    config = default_config()
    config.data.name = "digits"
    write_claim(folder / "run", parse_experiment(config))
    names = tuple(map(str, range(10)))
    record = DatasetRecord("digits", names, (0.5,) * 3, (0.2,) * 3, {"train": SplitRecord(2, (32, 32, 3), "0" * 64)})
    record.write(folder / "run")
    return folder


@pytest.fixture
def as_a_process(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what a command sets for its whole process."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    monkeypatch.chdir(made)
    root, absl = logging.getLogger(), logging.getLogger("absl")
    handlers, threshold, level = root.handlers[:], gc.get_threshold(), absl.level
    yield
    root.handlers[:] = handlers
    absl.setLevel(level)
    gc.set_threshold(*threshold)


def outcome(
    command: Command, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Any, str]:
    monkeypatch.setattr(sys, "argv", [command.module, *arguments])
    with pytest.raises(SystemExit) as end:
        run_main(importlib.import_module(command.module).main)
    return end.value.code, capsys.readouterr().err


def arguments_with(command: Command, argument: str, value: str) -> list[str]:
    """Returns the right arguments of a command, one of them changed or added."""
    arguments = list(command.right)
    if argument in arguments:
        arguments[arguments.index(argument) + 1] = value
    elif argument.startswith("-"):
        arguments.append(f"{argument}={value}")
    else:
        arguments[0] = value
    return arguments


@pytest.mark.usefixtures("as_a_process")
@pytest.mark.parametrize(("command", "argument", "value"), CASES)
def test_what_is_wrong_is_said_in_one_line(
    command: Command,
    argument: str,
    value: str,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    arguments = [each.replace("{tmp}", str(made)) for each in arguments_with(command, argument, value)]
    began = time.monotonic()
    status, said = outcome(command, arguments, monkeypatch, capsys)
    assert status == 2, said
    (line,) = said.splitlines()
    assert line.startswith("error: ") and len(line) < 1000
    given = value.replace("{tmp}", str(made))
    assert argument.removeprefix("--") in line or (given.strip() and given in line)
    assert time.monotonic() - began < 20


def test_no_command_is_missing():
    tools = ROOT / "convnext_jax" / "tools"
    names = {f"convnext_jax.tools.{path.stem}" for path in tools.glob("*.py") if "run_main(main)" in path.read_text()}
    names |= {f"convnext_jax.tools.{path.parent.name}.__main__" for path in tools.glob("*/__main__.py")}
    programs = (path for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text())
    names |= {f"benchmarks.{path.stem}" for path in programs}
    assert names == {command.module for command in COMMANDS}


# --- the output


def command_line_of(command: Command) -> list[str]:
    return [sys.executable, "-m", command.module.removesuffix(".__main__")]


def buffered() -> dict[str, str]:
    """Returns the environment of a process whose output is buffered, as it usually is."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run_without_reader(arguments: list[str]) -> tuple[int, str]:
    """Returns the status and the rest of the output of a process whose stdout is a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(arguments, cwd=ROOT, env=buffered(), stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "command",
    # Those that measure take seconds to import, and end as all others.
    [command for command in COMMANDS if not command.module.startswith("benchmarks")],
    ids=lambda command: command.module,
)
def test_a_reader_that_has_gone_is_no_error(command: Command):
    status, said = run_without_reader([*command_line_of(command), "--help"])
    assert (status, said) == (128 + signal.SIGPIPE, "")


PRINTING = "from convnext_jax.tools.command_line import run_main\n"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("def main():\n for _ in range(10_000): print('a line of some length')", 141, ""),
        ("def main():\n print('begun', flush=True); print('never said', file=sys.stderr)", 141, ""),
        ("def main():\n print('begun'); raise UserError('what was wrong')", 2, "error: what was wrong\n"),
        ("def main():\n print('begun'); sys.exit(75)", 75, ""),
    ],
    ids=["in the middle of much", "flushed", "with a mistake", "with a status"],
)
def test_a_reader_that_goes_in_the_middle_is_no_error(code: str, status: int, said: str):
    script = f"import sys\nfrom convnext_jax.errors import UserError\n{PRINTING}{code}\nrun_main(main)"
    assert run_without_reader([sys.executable, "-c", script]) == (status, said)


def test_another_broken_pipe_is_an_error():
    code = "import os\ndef main():\n reading, writing = os.pipe(); os.close(reading); os.write(writing, b'a')"
    done = subprocess.run([sys.executable, "-c", f"{PRINTING}{code}\nrun_main(main)"], cwd=ROOT, capture_output=True)
    assert done.returncode == 1 and b"BrokenPipeError" in done.stderr


def test_a_full_disk_below_the_output_is_named():
    command = [sys.executable, "-c", f"{PRINTING}def main(): print('begun')\nrun_main(main)"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=ROOT, env=buffered(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written (No space left on device)\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_what_is_printed_to_a_closed_stream_goes_into_no_file(closed: str, tmp_path: Path):
    code = """
import os, sys
def main():
    with open(sys.argv[1], "w") as file:
        assert file.fileno() > 2
        print("printed"); print("said", file=sys.stderr)
        os.write(1, b"written"); os.write(2, b"written")
        sys.stderr.isatty(), sys.stdin.read()
        file.write("content")
"""
    (tmp_path / "a.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{PRINTING}{code}\nrun_main(main)")
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} a.py out {closed}"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 0 and (tmp_path / "out").read_text() == "content"


def test_what_an_encoding_lacks_is_printed_in_another_way():
    code = "def main(): print('±')"
    done = subprocess.run(
        [sys.executable, "-c", f"{PRINTING}{code}\nrun_main(main)"],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\xb1\n", b"")


# --- variables of JAX


VARIABLES = {
    "JAX_PLATFORMS=cuda": "error: JAX_PLATFORMS=cuda cannot be used on this machine: there is none; ",
    "JAX_NUM_CPU_DEVICES=many": "error: JAX does not start with JAX_NUM_CPU_DEVICES=many (",
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_that_jax_cannot_use_is_named(variable: str, tmp_path: Path):
    name, value = variable.split("=")
    command = [sys.executable, "train.py", "--config", CONFIG, "--workdir", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {name: value}, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(VARIABLES[variable])
    assert not (tmp_path / "run").exists()


def test_variables_that_would_change_a_run_are_not_used():
    code = """
from convnext_jax.run.jax_settings import start_jax
start_jax()
import jax, jax.numpy as jnp
print(jnp.ones(1).dtype, jax.random.bits(jax.random.key(1), (2,)).tolist(), jnp.ones((2, 3)) * jnp.ones(3) * 1)
"""
    changed = {
        "JAX_ENABLE_X64": "1",
        "JAX_DISABLE_JIT": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_RANDOM_SEED_OFFSET": "7",
        "JAX_TRANSFER_GUARD": "disallow",
    }
    plain, with_all = (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        for env in (os.environ, os.environ | changed)
    )
    assert with_all.stdout == plain.stdout and plain.stderr == ""
    assert {line.partition(" is not used")[0] for line in with_all.stderr.splitlines()} == set(changed)
