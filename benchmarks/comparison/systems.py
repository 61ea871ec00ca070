"""The systems that are compared: the worker of each, the options of the worker, and the Python that it runs in."""

import argparse
import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.comparison.worker import ROOT
from convnext_jax.errors import UserError
from convnext_jax.storage.files import user_cache_folder


@dataclasses.dataclass(frozen=True)
class Kind:
    """A worker and the variant of its system.

    Attributes:
      worker: name of a module in `benchmarks.comparison`.
      dtype: dtype of the computation, ``float32`` or ``bfloat16``.
      options: the other options of the worker.
      requirements: the requirements file in `benchmarks`; empty if the worker runs in this environment.
    """

    worker: str
    dtype: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    requirements: str = ""


def _torch(dtype: str, compile: str | None, *, timm: bool = False) -> Kind:
    requirements = "requirements-timm.txt" if timm else "requirements-torch.txt"
    return Kind("torch_worker", dtype, {"compile": compile, "timm": timm}, requirements)


SYSTEMS: dict[str, Kind] = {
    "convnext_jax": Kind("convnext_jax_worker", "float32"),
    "convnext_jax_bfloat16": Kind("convnext_jax_worker", "bfloat16"),
    "plain_jax": Kind("plain_jax_worker", "float32"),
    "plain_jax_bfloat16": Kind("plain_jax_worker", "bfloat16"),
    "torch_eager": _torch("float32", None),
    "torch_compiled": _torch("float32", "default"),
    "torch_autotuned": _torch("float32", "max-autotune"),
    "torch_eager_bfloat16": _torch("bfloat16", None),
    "torch_compiled_bfloat16": _torch("bfloat16", "default"),
    "timm_compiled_bfloat16": _torch("bfloat16", "default", timm=True),
    "timm_autotuned_bfloat16": _torch("bfloat16", "max-autotune", timm=True),
}
CPU_SYSTEMS = ("convnext_jax", "torch_eager", "torch_compiled", "plain_jax")
GPU_SYSTEMS = ("convnext_jax_bfloat16", "timm_compiled_bfloat16", "timm_autotuned_bfloat16", "plain_jax_bfloat16")


def python_of(kind: Kind, torch_python: Path | None) -> str:
    """Returns the Python that a worker runs in.

    Args:
      kind: the kind of the system.
      torch_python: the Python to use for PyTorch. None installs PyTorch once, into an environment in the user's cache.

    Raises:
      UserError: the installation failed.
    """
    if not kind.requirements:
        return sys.executable
    python = torch_python or _environment(Path(__file__).parent.parent / kind.requirements)
    return str(python.absolute())  # not resolved: the symbolic link is what belongs to a virtual environment


def add_torch_python(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names a Python with PyTorch, for `python_of`."""
    parser.add_argument(
        "--torch_python", type=Path, metavar="FILE", help="a Python that has PyTorch; nothing is installed then"
    )


def check_torch_python(python: Path | None) -> None:
    """Raises UserError if ``--torch_python`` names no program."""
    if python is not None and not (python.is_file() and os.access(python, os.X_OK)):
        raise UserError(f"--torch_python: there is no program {python}; name a Python that has PyTorch")


def _environment(requirements: Path) -> Path:
    text = "".join(file.read_text() for file in sorted(requirements.parent.glob("requirements-*.txt")))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"{requirements.stem}-{version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    folder = user_cache_folder() / "benchmarks" / name
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        print(f"installing {requirements.relative_to(ROOT)} into {folder}", flush=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)],
        ):
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                said = (result.stderr or result.stdout).strip().splitlines() or [""]
                raise UserError(
                    f"{requirements.name} could not be installed into {folder}: {said[-1]};"
                    " use --torch_python to name a Python that has it"
                )
        done.touch()
    return python
