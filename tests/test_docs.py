"""What the documents promise: links that lead somewhere, commands that are understood, an example that works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from convnext_jax.tools.command_line import check_names, load_experiment

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
COMMAND = re.compile(r"^python train\.py (.*?)(?: +#.*)?$", re.MULTILINE)
COMMANDS = sorted({command for path in DOCUMENTS for command in COMMAND.findall(path.read_text())})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_there_are_links_and_commands():
    assert len(DOCUMENTS) >= 12 and len(COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_has_a_right_configuration(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    config = words.pop(words.index("--config") + 1)
    own = {"--config", "--print_config", "--extend"} | set(
        words[words.index("--workdir") :][:2] if "--workdir" in words else ()
    )
    check_names(load_experiment(config, [word for word in words if word not in own]))


@pytest.mark.parametrize("document", [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"], ids=lambda path: path.name)
def test_tools_that_are_named_exist(document: Path):
    for tool in re.findall(r"python -m convnext_jax\.tools\.(\w+)", document.read_text()):
        folder = ROOT / "convnext_jax" / "tools"
        assert (folder / f"{tool}.py").exists() or (folder / tool / "__main__.py").exists(), tool


@pytest.mark.parametrize("tool", ["prepare", "benchmark"])
def test_a_tool_says_how_it_is_called(tool: str):
    command = [sys.executable, "-m", f"convnext_jax.tools.{tool}", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert shown.startswith(f"usage: python -m convnext_jax.tools.{tool} ")


def test_the_rows_of_the_worked_example_are_those_of_the_tables():
    example = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a family of networks")[2]
    tables = "".join((ROOT / file).read_text() for file in ("convnext_jax/models/table.py", "tests/networks.py"))
    rows = [row for block in re.findall(r"```python\n(.*?)```", example, re.DOTALL) for row in block.splitlines()]
    assert len(rows) >= 3 and [row for row in rows if row not in tables] == []
