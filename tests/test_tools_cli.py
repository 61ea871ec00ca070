"""The command convnext-jax, and the configs and sweeps that come with the package."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from convnext_jax.errors import UserError
from convnext_jax.tools import command_line
from convnext_jax.tools.cli import COMMANDS
from convnext_jax.tools.command_line import load_experiment
from convnext_jax.tools.shipped import find_file, shipped_names
from convnext_jax.tools.sweep.points import read_points

START = "import sys\nfrom convnext_jax.tools.cli import main\nmain()"


def convnext_jax(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs what the console script runs."""
    command = [sys.executable, "-c", START, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_commands_are_those_of_the_folder():
    tools = ROOT / "convnext_jax" / "tools"
    names = {path.stem for path in tools.glob("*.py") if "run_main(main)" in path.read_text()}
    names |= {path.parent.name for path in tools.glob("*/__main__.py")}
    assert names == set(COMMANDS)


def test_help_has_a_line_for_each_command():
    done = convnext_jax("--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: convnext-jax COMMAND ...\n")
    assert re.findall(r"^  (\w+)  +\S", done.stdout, re.MULTILINE) == list(COMMANDS)
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no command is given"),
        (("",), "no command is given"),
        (("trian",), "'trian' is no command; did you mean 'train'? allowed: "),
        (("--config", "digits"), "'--config' is no command; allowed: train, "),
        (("a\nb",), r"'a\nb' is no command; "),
        (("x" * 5000,), "is no command; allowed: train, "),
    ],
)
def test_what_is_no_command_is_refused(arguments: tuple[str, ...], message: str):
    done = convnext_jax(*arguments)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("error: ") and message in line and line.endswith("; see convnext-jax --help")
    assert len(line) < 500


@pytest.mark.parametrize(("given", "name"), [("import-torch", "import_torch"), ("sweep", "sweep"), ("train", "train")])
def test_a_command_has_the_name_that_was_given(given: str, name: str):
    done = convnext_jax(given, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: convnext-jax {given} [-h]")
    assert name in COMMANDS


def test_a_command_exits_as_it_would_alone():
    done = convnext_jax("evaluate", "--workdir", "configs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: configs is no workdir of train.py: there is no configs/config.json\n"


def test_training_answers_signals_before_its_imports(tmp_path: Path):
    (tmp_path / "ml_collections.py").write_text(
        f"import os, signal, time\nos.kill(os.getpid(), signal.{signal.SIGTERM.name})\ntime.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    for command in (("-c", START, "train"), (str(ROOT / "train.py"),), ("-m", "convnext_jax.tools.train")):
        words = [sys.executable, *command, "--config", "digits"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr.partition(";")[0]) == (75, "SIGTERM: nothing new to save"), command


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["convnext-jax evaluate", "--workdir", "my run"], "convnext-jax evaluate --workdir 'my run'"),
        (["evaluate.py", "--workdir", "runs/a"], "python evaluate.py --workdir runs/a"),
        (["evaluate.py"], "python evaluate.py"),
    ],
)
def test_the_command_line_is_shown_as_it_was_typed(monkeypatch: pytest.MonkeyPatch, argv: list[str], text: str):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert command_line.typed() == text


# --- configs and sweeps


def test_a_config_is_found_by_its_name_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for path in ("digits", "digits.py", "configs/digits.py"):
        assert load_experiment(path, []).data.name == "digits"
    steps = [load_experiment(f"papers/road:{step}", []).model.architecture for step in ("quarter/kernel9", "kernel9")]
    assert [step.width for step in steps] == [24, 96]  # pyright: ignore[reportAttributeAccessIssue]
    assert find_file(Path("sweeps/digits_lr.py"), "sweeps").read_text().startswith('"""Learning rates')


def test_a_file_that_exists_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = (ROOT / "configs" / "digits.py").read_text().replace("epochs = 30", "epochs = 7")
    (tmp_path / "configs" / "digits.py").write_text(own)
    shutil.copy(tmp_path / "configs" / "digits.py", tmp_path / "cifar10")  # a file without an ending, too
    assert load_experiment("configs/digits.py", []).run.epochs == 7
    assert load_experiment("cifar10", []).run.epochs == 7
    assert load_experiment("digits", []).run.epochs == 30
    (tmp_path / "pets").mkdir()  # a folder of pictures is no config
    assert load_experiment("pets", []).data.name == "oxford_iiit_pet"


def test_an_unknown_config_has_the_nearest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    message = "--config digts: there is no file digts, and none of that name comes with the package; did you mean 'digi"
    with pytest.raises(UserError, match=message):
        load_experiment("digts", [])
    (tmp_path / "mine.py").touch()
    with pytest.raises(UserError, match=r"^there is no file mime\.py; \. holds mine\.py$"):
        find_file(Path("mime.py"), "configs")


def test_every_config_and_sweep_is_known():
    for kind in ("configs", "sweeps"):
        files = {path.relative_to(ROOT / kind).as_posix() for path in (ROOT / kind).rglob("*.py")}
        assert {f"{name}.py" for name in shipped_names(kind)} == files and len(files) >= 5


def test_a_sweep_and_its_base_are_found_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    points = read_points(Path("digits_lr"), [], Path("runs"))
    assert {point.experiment.data.name for point in points} == {"digits"} and len(points) == 6
