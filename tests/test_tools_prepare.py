"""The command line that prepares data ahead of time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def _run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convnext_jax.tools.prepare", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_it_tells_what_it_made(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for split in ("train", "val"):
        for level, name in enumerate(("dark", "light")):
            folder = pictures / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), 255 * level, np.uint8)).save(folder / "0.png")
    (pictures / "train" / "light" / "notes.txt").touch()
    arguments = ("image_folder", "--data_dir", pictures, "--image_size", 4)
    done = _run(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    (train,), (test,) = ((tmp_path / "cache").rglob(f"{split}_images.npy") for split in ("train", "test"))
    assert done.stdout.splitlines() == [
        f"data: image_folder in {pictures}: train 2 pictures, test 2, 2 classes, 4x4x3; left out 1 file (1 .txt)",
        f"train: in {train}",
        f"test: in {test}",
        "mean: 0.5000 0.5000 0.5000",
        "std:  0.5000 0.5000 0.5000",
    ]
    done = _run(*arguments, "--channels", 2, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "2 classes, 4x4x2; left out 1 file (1 .txt)" in done.stdout
    # Alpha is the same everywhere.
    assert done.stdout.splitlines()[-2:] == ["mean: 0.5000 1.0000", "std:  0.5000 1.0000"]
    assert sorted(path.name for path in pictures.iterdir()) == ["train", "val"]


def test_it_tells_what_is_held_out() -> None:
    done = _run("digits", "--image_size", 8, "--validation_fraction", 0.2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == [
        "data: digits in scikit-learn: train 1,151 pictures, validation 287, test 359, 10 classes, 8x8x3",
        "train: made on loading",
        "validation: made on loading",
        "test: made on loading",
    ]


def test_help_is_quick() -> None:
    times = []
    for _ in range(2):  # the first may compile modules
        started = time.monotonic()
        done = _run("--help")
        times.append(time.monotonic() - started)
        assert done.returncode == 0 and "--manual_dir" in done.stdout
    assert min(times) < 2, "twice what it takes on a busy machine"


def test_missing_data_without_a_network(tmp_path: Path) -> None:
    started = time.monotonic()
    nowhere = "http://127.0.0.1:9"  # a proxy that refuses: no test reaches the network, and none waits for it
    done = _run("cifar10", "--data_dir", tmp_path, https_proxy=nowhere, http_proxy=nowhere, no_proxy="")
    assert done.returncode == 2
    assert time.monotonic() - started < 10
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith(f"error: cifar10 is not in {tmp_path} yet")
    for part in (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "fetch it by hand as cifar-10-binary.tar.gz and name its folder with --manual_dir=DIR",
    ):
        assert part in message
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "cifar10").iterdir()), "nothing half prepared stays"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar11"], "error: unknown data set 'cifar11': did you mean cifar10?"),
        (["digits", "--image_size", "0"], "error: --image_size=0: must be in [1, 4096]"),
        (["digits", "--channels", "5"], "error: --channels=5: must be in [1, 4]"),
        (["digits", "--validation_fraction", "1"], "error: --validation_fraction=1.0: must be in [0, 1)"),
        (
            ["image_folder", "--data_dir", "/nonexistent"],
            "error: /nonexistent does not exist: name the folder that holds train/ with --data_dir=DIR",
        ),
        ([], "the following arguments are required: name"),
    ],
)
def test_mistakes_end_with_status_2(arguments: list[str], message: str) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
