"""Eight simulated devices for every test; what the tests share."""

import atexit
import gc
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

# Before anything asks for a device. A test that does not say otherwise runs on the first of them.
jax.config.update("jax_num_cpu_devices", 8)

# Most of the suite's time is XLA's compiler, and most of that its optimizer, which these small programs do not need.
# test_end_to_end.py runs the commands with it. Before the first device, too, and inherited by other processes.
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if jax.__version_info__ < (0, 11):
    # The old code generator, where there still is one: half the time of the new.
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
if QUICK_COMPILATION not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILATION}".strip()

# A program that one test compiled, the others need not. pytest-xdist's processes inherit the variable.
if "CONVNEXT_JAX_TEST_CACHE" not in os.environ:
    os.environ["CONVNEXT_JAX_TEST_CACHE"] = tempfile.mkdtemp(prefix="convnext_jax-tests-")
    atexit.register(shutil.rmtree, os.environ["CONVNEXT_JAX_TEST_CACHE"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["CONVNEXT_JAX_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
# For the commands that a test starts: nothing of theirs goes into the user's own cache.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["CONVNEXT_JAX_TEST_CACHE"]

# Traced programs are millions of objects that stay alive, and Python would search them all again and again.
gc.set_threshold(100_000)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


@pytest.fixture
def shared_data() -> Path:
    """The prepared real data beside the checkout; tests of it are skipped where it is absent."""
    path = ROOT.parent / "shared" / "tensorflow_datasets"
    if not path.is_dir():
        pytest.skip(f"no prepared data sets in {path}")
    return path


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs evaluate.py in this process and returns what it prints."""
    main = runpy.run_path(str(ROOT / "evaluate.py"))["main"]

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return run
