"""What the documents promise: links that lead somewhere, commands that are understood, an example that works."""

import argparse
import fnmatch
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from documents import DOCUMENTS, blocks, name_of, without_blocks

from convnext_jax.data import check_name
from convnext_jax.errors import UserError
from convnext_jax.models import MODELS
from convnext_jax.storage import cloud
from convnext_jax.tools.command_line import Parser, check_names, load_experiment

# A command is written down where it would run. No other program is found, and nothing but Bash itself does anything.
STUBS = """
PATH=/nonexistent NOTED="$PWD/noted"
note() { printf '%s\\x1f' "$@" >> "$NOTED"; printf '\\x1e' >> "$NOTED"; }
command_not_found_handle() { note "$@"; }
for each in python pip mkdocs ruff pyright; do eval ".venv/bin/$each() { note .venv/bin/$each \\"\\$@\\"; }"; done
"""
# In a text; one without arguments names a tool.
INLINE = re.compile(
    r"`((?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:python -m [^\s`]+|python [^\s`]+\.py|convnext-jax [^\s`]+) [^`]+)`"
)
PLACEHOLDER = re.compile(r"\.\.\.|\bNAME\b")


def noted(script: str, folder: Path) -> list[list[str]]:
    """The programs that a shell script would start, each with its arguments."""
    (folder / "convnext_jax").mkdir(exist_ok=True)
    (folder / "noted").unlink(missing_ok=True)
    subprocess.run(["bash", "-c", STUBS + script], cwd=folder, capture_output=True, timeout=30, check=False)
    found = (folder / "noted").read_text().split("\x1e")[:-1] if (folder / "noted").exists() else []
    commands = [command.split("\x1f")[:-1] for command in found]
    nested = [word.partition("=")[2] for command in commands for word in command if word.startswith("--command=")]
    return commands + [command for script in nested for command in noted(script, folder)]


def python_commands(commands: list[list[str]]) -> list[list[str]]:
    """Those that are this project's, from the name of the script or module on."""
    ours = []
    for command in commands:
        for index, word in enumerate(command):
            if word.rpartition("/")[2] == "python":
                ours.append(command[index + 1 :])
            elif word == "convnext-jax":
                ours.append(["-m", f"convnext_jax.tools.{command[index + 1].replace('-', '_')}", *command[index + 2 :]])
    return [words for words in ours if words and (words[0].endswith(".py") or words[:1] == ["-m"])]


class Parsed(Exception):
    """What a parser has understood, and what it left."""


def understand(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a command parsed by its own parser, and its configuration by the loader."""
    scripts = {"train.py": "convnext_jax.tools.train", "evaluate.py": "convnext_jax.tools.evaluate"}
    if words[0] in scripts:
        words = ["-m", scripts[words[0]], *words[1:]]
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file(), words[0]
        return
    module, *arguments = words[1:]
    if not module.startswith("convnext_jax.tools."):
        assert module in ("pytest", "venv", "pip", "hatchling"), module
        return
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    if spec.submodule_search_locations:
        module = f"{module}.__main__"

    def parse(parser: Parser, *given: object) -> None:
        raise Parsed(*argparse.ArgumentParser.parse_known_args(parser, *given))

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Parser, "parse_known_args", parse)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.setattr(cloud, "_check_reachable", lambda path: None)  # of a bucket
    with pytest.raises(Parsed) as parsed:
        importlib.import_module(module).main()
    options, left = parsed.value.args
    if hasattr(options, "config"):
        check_names(load_experiment(options.config, left))
    elif hasattr(options, "sweep"):
        check_names(load_experiment(runpy.run_path(str(options.sweep))["BASE"], left))
    else:
        assert left == []
    for name in [options.model] if hasattr(options, "model") else getattr(options, "network", []):
        assert fnmatch.filter(MODELS, name), name
    if module == "convnext_jax.tools.prepare":
        check_name(options.name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_to_files(document: Path):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_blocks_are_of_a_known_language_and_shell_is_shell(document: Path):
    found = blocks(document.read_text())
    assert document.read_text().count("```") == 2 * len(found)
    assert {language for language, _ in found} <= {"python", "sh", ""}
    for script in (content for language, content in found if language == "sh"):
        checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert checked.stderr == "", script


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_are_understood(document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    text = document.read_text()
    # The blocks of a document are one script, since a later one uses variables of an earlier one.
    scripts = ["\n".join(content for language, content in blocks(text) if language == "sh")]
    scripts += [command for command in INLINE.findall(without_blocks(text)) if not PLACEHOLDER.search(command)]
    for script in scripts:
        for words in python_commands(noted(script, tmp_path)):
            with monkeypatch.context() as patched:
                understand(words, patched)


def test_commands_are_found(tmp_path: Path):
    assert len(DOCUMENTS) >= 30
    scripts = [content for path in DOCUMENTS for language, content in blocks(path.read_text()) if language == "sh"]
    commands = python_commands([command for script in scripts for command in noted(script, tmp_path)])
    assert len(commands) >= 80 and len({tuple(words[:2]) for words in commands}) >= 15


@pytest.mark.parametrize(
    "script",
    [
        "python train.py --config configs/digits.py --config.run.epoch=3",
        "until .venv/bin/python train.py --config configs/digit.py; do true; done",
        "for name in lenet5 lenet6; do python train.py --config configs/digits.py --config.model.name=$name; done",
        "gcloud ssh --command='cd convnext_jax && .venv/bin/python evaluate.py --workdirs runs/c100'",
        "find photos | python -m convnext_jax.tools.predict --workdir runs/c100 - --top 3",
        "python -m convnext_jax.tools.summary convnext_tinny",
        "python -m convnext_jax.tools.predictions --workdir runs/c100 photos/",
        "convnext-jax benchmark --config configs/digits.py --part step",
    ],
)
def test_a_wrong_command_is_noticed(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    commands = python_commands(noted(script, tmp_path))
    assert commands
    with pytest.raises((UserError, SystemExit, AssertionError)):
        for words in commands:
            understand(words, monkeypatch)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_tools_that_are_named_exist(document: Path):
    for tool in re.findall(r"python -m convnext_jax\.tools\.(\w+)", document.read_text()):
        folder = ROOT / "convnext_jax" / "tools"
        assert tool == "NAME" or (folder / f"{tool}.py").exists() or (folder / tool / "__main__.py").exists(), tool


@pytest.mark.parametrize("tool", ["prepare", "benchmark"])
def test_a_tool_says_how_it_is_called(tool: str):
    command = [sys.executable, "-m", f"convnext_jax.tools.{tool}", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert shown.startswith(f"usage: python -m convnext_jax.tools.{tool} ")


def test_the_rows_of_the_worked_example_are_those_of_the_tables():
    example = (ROOT / "docs/adding_a_family.md").read_text()
    tables = "".join((ROOT / file).read_text() for file in ("convnext_jax/models/table.py", "tests/networks.py"))
    rows = [row for language, block in blocks(example) if language == "python" for row in block.splitlines()]
    assert len(rows) >= 3 and [row for row in rows if row not in tables] == []


def test_the_published_figures_are_those_of_the_configs():
    """Of docs/papers.md, whose figures with two decimals are accuracies."""
    shown = re.findall(r"\b\d\d\.\d\d\b", (ROOT / "docs/papers.md").read_text())
    given = "".join(path.read_text() for path in (ROOT / "configs/papers").glob("*.py"))
    assert len(shown) >= 15 and [figure for figure in shown if figure not in given] == []
