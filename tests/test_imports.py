"""Imports run one way, and what must answer at once imports nothing slow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# Each may import what stands before it, and its own.
LAYERS = (
    ("errors",),
    ("storage",),
    ("keys", "precision"),
    ("sharding",),
    ("memory",),
    ("ops",),
    ("layers",),
    ("models",),
    ("config",),
    ("data",),
    ("batches",),
    ("tasks",),
    ("augment",),
    ("optim",),
    ("train",),
    ("workdir",),
    ("evaluate",),
    ("report",),
    ("export",),
    ("run",),
    ("tools",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
PACKAGE = ROOT / "convnext_jax"
FILES = sorted(PACKAGE.rglob("*.py"))


def package_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, at its head or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("convnext_jax.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path):
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    for name in package_imports(path):
        imported = name.split(".")[1]
        assert imported == layer or RANK[imported] < RANK[layer], f"{layer} imports {imported}"


def test_no_modules_import_each_other():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    arrows = {
        module: {
            target
            for name in package_imports(path)
            if (target := name if name in modules else name.rpartition(".")[0]) in modules and target != module
        }
        for module, path in modules.items()
    }
    while arrows:
        last = {module for module, targets in arrows.items() if not targets & arrows.keys()}
        assert last, f"a circle among {', '.join(sorted(arrows))}"
        arrows = {module: targets for module, targets in arrows.items() if module not in last}


def test_at_most_six_files_stand_at_the_package_s_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def modules_after(code: str) -> set[str]:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["evaluate.offline", "evaluate.soup", "tools.soup"])
def test_offline_evaluation_knows_no_optimizer_and_no_loop(module: str):
    modules = modules_after(f"import convnext_jax.{module}")
    assert f"convnext_jax.{module}" in modules
    for unwanted in ("optim", "run.loop", "run.prepare", "train", "augment"):
        assert f"convnext_jax.{unwanted}" not in modules


SLOW = {"jax", "flax", "optax", "orbax", "tensorflow_datasets", "matplotlib", "sklearn", "PIL", "numpy.linalg"}


def test_the_command_line_loads_nothing_slow():
    modules = modules_after("import train, evaluate")
    assert "convnext_jax.tools.command_line" in modules
    assert not modules & SLOW


def test_the_console_script_loads_no_other_package():
    modules = modules_after("import convnext_jax.tools.cli")
    others = {name.partition(".")[0] for name in modules if not name.startswith("_")} - sys.stdlib_module_names
    bare = {name.partition(".")[0] for name in modules_after("")}
    assert others - bare == {"convnext_jax"}
    assert not modules & {"argparse", "convnext_jax.tools.command_line", "convnext_jax.tools.train"}


def test_a_mistake_outside_of_the_network_is_found_without_jax():
    code = """
from convnext_jax.errors import UserError
from convnext_jax.tools.command_line import load_experiment
try:
    load_experiment(CONFIG, ["--config.run.bach_size=3"])
except UserError as error:
    assert "did you mean 'batch_size'?" in str(error)
else:
    raise AssertionError
"""
    assert "jax" not in modules_after(code.replace("CONFIG", repr(str(ROOT / "configs" / "digits.py"))))


def test_the_package_itself_is_lazy():
    assert "jax" not in modules_after("import convnext_jax; convnext_jax.__all__")
    assert "jax" in modules_after("import convnext_jax; convnext_jax.list_models")
