"""Configurations and sweeps that a user wrote: what they may do, and how their mistakes are said."""

import sys
from pathlib import Path

import pytest

from convnext_jax.config import Experiment, parse_experiment
from convnext_jax.errors import UserError
from convnext_jax.tools.python_file import read_config_file, run_file

HEAD = "from convnext_jax.config import default_config\ndef get_config(epochs='9'):\n  config = default_config()\n"


def write(folder: Path, text: str, name: str = "config.py") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_file_imports_the_modules_beside_it_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = [*sys.path]
    write(tmp_path, "EPOCHS = 7\n", "its_neighbor.py")
    write(tmp_path, "SIZES = (24, 32)\n", "its_other_neighbor.py")
    text = f"from its_neighbor import EPOCHS\n{HEAD}  from its_other_neighbor import SIZES\n"
    path = write(tmp_path, f"{text}  config.run.update(epochs=EPOCHS, image_sizes=SIZES)\n  return config\n")
    monkeypatch.chdir("/")
    for given in (path, path.lstrip("/")):
        run = read_config_file(given).run
        assert (run.epochs, run.image_sizes) == (7, (24, 32))
    assert sys.path == before


@pytest.mark.parametrize("name", ["my-config.py", "2024.digits.v2.py", "my config é.py", "json.py"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str):
    path = write(tmp_path, f"{HEAD}  config.run.epochs = int(epochs)\n  return config\n", name)
    assert read_config_file(path).run.epochs == 9
    assert read_config_file(f"{path}:3").run.epochs == 3


@pytest.mark.parametrize("kind", ["dict", "config_dict.ConfigDict"])
def test_a_configuration_need_not_start_from_the_defaults(tmp_path: Path, kind: str):
    text = "from ml_collections import config_dict\ndef get_config():\n"
    config = read_config_file(write(tmp_path, f"{text}  return {kind}({{'run': {{'epochs': 7}}}})\n"))
    assert config.run.epochs == 7 and config.optim.clip_norm is None
    config.run.epochs = Experiment().run.epochs
    assert parse_experiment(config) == Experiment()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", r"config\.py: SyntaxError: .*line 1\)$"),
        ("\nimport no_such_package\n", r"config\.py, line 2: ModuleNotFoundError: No module named 'no_such_package'$"),
        ("import broken\n", r"config\.py, line 1: NameError: name 'absent' is not defined$"),
        (f"{HEAD}  return absent\n", r"config\.py, line 4: NameError: name 'absent' is not defined$"),
        (f"{HEAD}  config.run.batch_size = 1 // 0\n", r"config\.py, line 4: ZeroDivisionError: .* by zero$"),
        (f"{HEAD}  config.optim.learning_rate = '1e-3'\n", r"config\.py, line 4: TypeError: .*learning_rate.*float"),
        (
            f"{HEAD}  config.optim.lerning_rate = 1\n",
            r"config\.py, line 4: .*lerning_rate.*Did you mean \"learning_rate",
        ),
        (f"{HEAD}  config.nonsense = 1\n", r"config\.py, line 4: .*nonsense"),
        (HEAD, r"config\.py: get_config\(\) returns None; it must return the changed default_config\(\)"),
        ("def get_config():\n  return {'nonsense': 1}\n", r"config\.py: .*nonsense"),
        ("def get_config(size):\n  pass\n", r"config\.py: TypeError: get_config\(\) missing .* argument: 'size'$"),
        ("config = {}\n", r"config\.py has no function get_config\(\)"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_says_where_it_is(tmp_path: Path, text: str, message: str):
    write(tmp_path, "VALUE = absent\n", "broken.py")
    with pytest.raises(UserError, match=message):
        read_config_file(write(tmp_path, text))
    assert str(tmp_path) not in sys.path


def test_what_a_file_refuses_itself_is_said_as_it_is(tmp_path: Path):
    text = (
        "from convnext_jax.errors import UserError\ndef get_config(name):\n  raise UserError(f'{name} is no recipe')\n"
    )
    with pytest.raises(UserError, match="^soup is no recipe$"):
        read_config_file(f"{write(tmp_path, text)}:soup")


def test_a_sweep_is_run_in_the_same_way(tmp_path: Path):
    write(tmp_path, "RATES = (1e-3, 2e-3)\n", "rates_beside_it.py")
    sweep = "from rates_beside_it import RATES\nPOINTS = [{'optim.learning_rate': rate} for rate in RATES]\n"
    assert run_file(Path(write(tmp_path, sweep)))["POINTS"][1] == {"optim.learning_rate": 2e-3}
    with pytest.raises(UserError, match=r"config\.py, line 3: ZeroDivisionError"):
        run_file(Path(write(tmp_path, f"{sweep}1 / 0\n")))
