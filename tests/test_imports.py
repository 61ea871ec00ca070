"""Imports run one way, and what must answer at once imports nothing slow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# Each may import what stands before it and its own.
LAYERS = (
    ("errors", "spread", "tables"),
    ("config", "random"),
    ("ops",),
    ("models",),
    ("data",),
    ("compilation_cache", "distributed", "environment", "signals"),
    ("augment",),
    ("optim",),
    ("train",),
    ("workdir",),
    ("checkpoint",),
    ("evaluate",),
    ("logging",),
    ("curves",),
    ("preparation",),
    ("loop",),
    ("seeds",),
    ("command_line",),
    ("tools",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted((ROOT / "convnext_jax").rglob("*.py"))


def package_imports(path: Path) -> set[str]:
    """The layers of the package that a file imports, at its head or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("convnext_jax.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "convnext_jax")))
def test_imports_run_one_way(path: Path):
    layer = path.relative_to(ROOT / "convnext_jax").parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    for imported in package_imports(path):
        assert imported == layer or RANK[imported] < RANK[layer], f"{layer} imports {imported}"


def modules_after(code: str) -> set[str]:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["evaluate.offline", "evaluate.soup", "tools.soup"])
def test_offline_evaluation_knows_no_optimiser_and_no_loop(module: str):
    modules = modules_after(f"import convnext_jax.{module}")
    assert f"convnext_jax.{module}" in modules
    for unwanted in (
        "convnext_jax.optim",
        "convnext_jax.run.loop",
        "convnext_jax.run.seeds",
        "convnext_jax.train.step",
        "convnext_jax.augment",
    ):
        assert unwanted not in modules


def test_the_command_line_loads_nothing_slow():
    modules = modules_after("import train, evaluate")
    slow = (
        "jax",
        "flax",
        "optax",
        "orbax",
        "tensorflow_datasets",
        "matplotlib",
        "sklearn",
        "PIL",
        "numpy.linalg",
    )
    assert "convnext_jax.tools.command_line" in modules
    assert not modules & set(slow)


def test_the_package_itself_is_lazy():
    assert "jax" not in modules_after("import convnext_jax; convnext_jax.__all__")
    assert "jax" in modules_after("import convnext_jax; convnext_jax.list_models")
