"""The wheel and the source distribution: what is in them, that they can be built again, and that they work."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

import convnext_jax

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NAME = f"convnext_jax-{convnext_jax.__version__}"


def build(source: Path, output: Path, *targets: str) -> None:
    options = [word for target in targets for word in ("--target", target)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(output), *options]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions of the checkout."""
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, folder, "sdist", "wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"{NAME}-py3-none-any.whl"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "convnext_jax").rglob("*") if path.is_file()}
    for kind in ("configs", "sweeps"):
        files = (path for path in (ROOT / kind).rglob("*") if path.is_file())
        expected |= {f"convnext_jax/{path.relative_to(ROOT).as_posix()}" for path in files}
    expected = {name for name in expected if "__pycache__" not in name}
    information = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert names == expected | information | {f"{NAME}.dist-info/licenses/LICENSE"}
    assert {"convnext_jax/py.typed", "convnext_jax/configs/digits.py", "convnext_jax/report/page.css"} <= names


def test_a_build_from_the_source_distribution_is_the_same_to_the_last_byte(built: Path, wheel: Path, tmp_path: Path):
    source = built / f"{NAME}.tar.gz"
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / NAME, tmp_path, "sdist", "wheel")
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    assert (tmp_path / source.name).read_bytes() == source.read_bytes()


def test_an_installed_wheel_trains_in_an_empty_folder(wheel: Path, tmp_path: Path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(installed)]
    subprocess.run([*command, str(wheel)], check=True)

    def run(*arguments: str) -> str:
        script = [sys.executable, str(installed / "bin" / "convnext-jax"), *arguments]
        environment = os.environ | {"PYTHONPATH": str(installed)}
        done = subprocess.run(script, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"convnext-jax {convnext_jax.__version__}\n"
    tiny = ("--config.model.name=lenet5", "--config.run.epochs=1", "--config.optim.warmup_epochs=0")
    shown = run("train", "--config", "digits", "--workdir", "run", *tiny)
    assert shown.startswith("done: test top-1 0.") and "after 1 epochs" in shown
    recorded = json.loads((empty / "run" / "environment.json").read_text())
    assert recorded["command"][:3] == ["convnext-jax train", "--config", "digits"]
    assert [path.name for path in empty.iterdir()] == ["run"]


# --- what is said in more than one place


def requirements(file: str) -> list[str]:
    """The lines of a requirements file without comments and other files."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def test_the_requirements_are_those_of_the_package():
    assert sorted(requirements("requirements.txt")) == sorted(PROJECT["dependencies"] + EXTRAS["digits"])
    assert set(EXTRAS["gcs"]) <= set(requirements("requirements-dev.txt"))


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == convnext_jax.__version__ == str(citation["version"])
    assert PROJECT["license"] == citation["license"]


def third_party(path: Path) -> set[str]:
    """The top-level modules that a file imports, anywhere in it, from other distributions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"convnext_jax"}


# Parts of dependencies: of orbax-checkpoint, of etils, which reads buckets through it, and of jax.
BROUGHT_ALONG = {"etils", "fsspec", "ml-dtypes"}


def normal(requirement: str) -> str:
    """The name of a distribution as they are compared."""
    return re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-")


def test_the_package_imports_what_it_depends_on():
    homes = metadata.packages_distributions()
    files = [*(ROOT / "convnext_jax").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    imported = set().union(*map(third_party, files))
    declared = {normal(each) for each in itertools.chain(PROJECT["dependencies"], *EXTRAS.values())} | BROUGHT_ALONG
    unknown = [name for name in imported if not {name, *map(normal, homes.get(name, ()))} & declared]
    assert unknown == []
    assert "sklearn" not in imported, "the digits are read without it"
    assert {"jax", "numpy", "PIL"} <= imported


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_the_workflow_runs_what_a_developer_runs(version: str):
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert version in job["strategy"]["matrix"]["python"]
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


def test_the_image_is_made_of_files_that_exist():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")]
    assert ignored == "*" and {line[1:] for line in kept if line.startswith("!")} == copied
    locks = {name for line in lines for name in re.findall(r"constraints/\S+", line)}
    assert locks and all((ROOT / name).exists() for name in copied | locks)
    stages = [line.split()[-1] for line in lines if line.startswith("FROM ")]
    users = [line for line in lines if line.startswith("USER ")]
    assert stages[-1] == "cpu" and "cuda" in stages and users == ["USER 1000"] * 2
