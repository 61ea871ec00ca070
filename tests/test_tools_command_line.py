"""What all commands share, as a shell sees it."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

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
