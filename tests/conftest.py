"""Eight simulated devices for every test; what the tests share."""

import sys
from pathlib import Path

import jax
import pytest

# Before anything asks for a device. A test that does not say otherwise runs on the first of them.
jax.config.update("jax_num_cpu_devices", 8)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


@pytest.fixture
def shared_data() -> Path:
    """The prepared real data beside the checkout; tests of it are skipped where it is absent."""
    path = ROOT.parent / "shared" / "tensorflow_datasets"
    if not path.is_dir():
        pytest.skip(f"no prepared data sets in {path}")
    return path
