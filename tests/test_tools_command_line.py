"""What all commands share, as a shell sees it."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from tiny import tiny_experiment
from tiny_run import write_run

from convnext_jax.config import DataConfig
from convnext_jax.errors import UserError

SCRIPT = """
from convnext_jax.errors import Failure
from convnext_jax.tools.command_line import run_main

def main():
    print("0.5 ± 0.1", {name!r})
    raise Failure("50 ± 1 µs")

run_main(main)
"""


@pytest.mark.parametrize(
    ("encoding", "name", "out", "error"),
    [
        ("utf-8", "café", "0.5 ± 0.1 café\n", "error: 50 ± 1 µs\n"),
        ("utf-8", os.fsdecode(b"caf\xe9"), "0.5 ± 0.1 caf\\udce9\n", "error: 50 ± 1 µs\n"),
        ("latin-1", "café", "0.5 ± 0.1 café\n", "error: 50 ± 1 µs\n"),
        ("ascii", "café", "0.5 \\xb1 0.1 caf\\xe9\n", "error: 50 \\xb1 1 \\xb5s\n"),
    ],
)
def test_what_a_terminal_cannot_show_ends_no_command(encoding: str, name: str, out: str, error: str):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(name=name)], env=environment, capture_output=True)
    assert (done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)) == (1, out, error)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("evaluate", ()),
        ("export", ("--format", "onnx_int8", "--output", "out")),
        ("replay", ("--step", "1")),
        ("soup", ("--last", "2")),
    ],
)
def test_data_that_moved_are_named_with_the_option_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, arguments: tuple[str, ...]
):
    data = DataConfig(name="image_folder", data_dir=str(tmp_path / "gone"))
    write_run(tmp_path / "run", dataclasses.replace(tiny_experiment(), data=data))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [tool, "--workdir", "run", *arguments])
    with pytest.raises(UserError, match="gone does not exist: name the folder that holds train/ with --data_dir=DIR$"):
        importlib.import_module(f"convnext_jax.tools.{tool}").main()
