"""Runs in a bucket: killed, gone on with, evaluated from anywhere. The bucket is an emulator on loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from conftest import ROOT
from etils import epath
from PIL import Image
from test_run_loop import without_clocks

from convnext_jax.config import DataConfig
from convnext_jax.data import load
from convnext_jax.data.load import holds_out_test
from convnext_jax.errors import UserError
from convnext_jax.storage import cloud
from convnext_jax.storage.cloud import files_below, is_cloud, local_path, to_path
from convnext_jax.workdir.checkpoint_folder import move_checkpoint

SMALL = ["--config.model.depths=(1,1,1,1)", "--config.model.dims=(8,8,8,8)", "--config.model.stem=patch4"]
SMALL += ["--config.run.epochs=3", "--config.run.eval_every_epochs=1", "--config.run.keep_latest=4"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "tests" / "bucket_server.py"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
            yield "gs://bucket"
        server.kill()


def start(workdir: str, *flags: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "train.py", "--config", "configs/digits.py", "--workdir", workdir, *SMALL, *flags]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def stop_at(process: "subprocess.Popen[str]", line: str, number: signal.Signals) -> tuple[int, str]:
    """Sends a signal once a line is printed; returns the status and what was printed."""
    assert process.stderr is not None
    printed = ""
    for text in process.stderr:
        printed += text
        if line in text:
            process.send_signal(number)
            break
    rest = process.communicate()[1]
    return process.returncode, printed + rest


def test_a_run_in_a_bucket_is_killed_and_goes_on_and_is_evaluated_elsewhere(bucket: str, tmp_path: Path):
    start(str(tmp_path / "local")).communicate()
    workdir = f"{bucket}/deep/run"
    killed = start(workdir)
    while killed.poll() is None and not (to_path(workdir) / "checkpoints/22/commit_success.txt").exists():
        time.sleep(0.05)
    killed.kill()  # as it saves step 44, or not long after
    assert "starting at step 0" in killed.communicate()[1] and killed.returncode == -signal.SIGKILL
    status, printed = stop_at(start(workdir), "compiled in", signal.SIGTERM)
    assert status == 75, printed
    assert (resumed := re.search(r"resuming at step (\d+) of 66", printed)) and int(resumed[1]) >= 22, printed
    assert "was last used by process" in printed, "the lock of the killed one is taken over"
    process = start(workdir)
    _, printed = process.communicate()
    assert process.returncode == 0, printed
    assert without_clocks(to_path(workdir)) == without_clocks(tmp_path / "local")
    written = files_below(to_path(workdir))
    assert {"config.json", "dataset.json", "metrics.jsonl", "summary.json", "curves.png", "run.lock"} <= set(written)
    assert len([name for name in written if name.startswith("tensorboard/")]) >= 2
    assert "checkpoints/66/checksums.json" in written
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (workdir, str(tmp_path / "local")):
        command = [sys.executable, str(ROOT / "evaluate.py"), "--workdir", folder, "--output", str(elsewhere)]
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (elsewhere / "evaluation.json").rename(elsewhere / Path(folder).name)
    assert (elsewhere / "run").read_bytes() == (elsewhere / "local").read_bytes()


def test_a_second_start_in_a_bucket_is_refused(bucket: str):
    workdir = to_path(f"{bucket}/used")
    (workdir / "run.lock").write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    process = start(str(workdir))
    _, printed = process.communicate()
    assert process.returncode == 2
    assert (
        "gs://bucket/used is in use by process 7 on elsewhere (if that host is gone, its lock ends 10 minutes"
        in printed
    )


def test_pictures_in_a_bucket_are_copied_once(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pictures = to_path(f"{bucket}/pictures")
    for index, name in enumerate(("train/cat/a.png", "train/dog/b.png", "test/cat/c.png", "test/dog/d.png")):
        path = tmp_path / "picture.png"
        Image.fromarray(np.full((8, 8, 3), 60 * index, np.uint8)).save(path)
        (pictures / name).write_bytes(path.read_bytes())
    copy = cloud.local_copy(pictures, tmp_path / "copies")
    assert files_below(copy) == ["test/cat/c.png", "test/dog/d.png", "train/cat/a.png", "train/dog/b.png"]
    before = {name: (copy / name).stat().st_mtime_ns for name in files_below(copy)}
    (pictures / "train/dog/b.png").write_bytes((pictures / "test/cat/c.png").read_bytes())
    (pictures / "train/cat/a.png").unlink()
    assert cloud.local_copy(pictures, tmp_path / "copies") == copy
    after = {name: (copy / name).stat().st_mtime_ns for name in files_below(copy)}
    assert {name for name in after if after[name] != before[name]} == {"train/dog/b.png"}
    assert set(before) - set(after) == {"train/cat/a.png"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (pictures / "train/cat/a.png").write_bytes((tmp_path / "picture.png").read_bytes())
    dataset = load(DataConfig("image_folder", data_dir=str(pictures)))
    assert (
        dataset.describe() == "data: image_folder in gs://bucket/pictures: train 2 pictures, test 2, 2 classes, 8x8x3"
    )
    with pytest.raises(UserError, match="there is nothing in gs://bucket/nowhere"):
        cloud.local_copy(to_path(f"{bucket}/nowhere"), tmp_path / "copies")


def test_a_test_folder_in_a_bucket_is_seen(bucket: str):
    for name in ("tested/train/cat/a.png", "tested/test/cat/b.png", "untested/train/cat/a.png"):
        to_path(f"{bucket}/{name}").write_bytes(b"")
    found = {name: holds_out_test(DataConfig("image_folder", f"{bucket}/{name}")) for name in ("tested", "untested")}
    assert found == {"tested": False, "untested": True}


def test_the_bucket_of_prepared_data_sets_is_nothing_to_other_data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "s3://bucket/data")
    assert load(DataConfig("digits")).name == "digits"
    for name in ("image_folder", "mask_folder"):
        with pytest.raises(UserError, match=r"name the folder .* --config\.data\.data_dir"):
            load(DataConfig(name))


def test_what_says_that_a_checkpoint_is_complete_is_moved_last(monkeypatch: pytest.MonkeyPatch):
    moved: list[str] = []

    class Bucket:
        def find(self, folder: str, detail: bool) -> dict[str, Any]:
            names = ("checksums.json", "commit_success.txt", "params/d/0")
            return {f"{folder.removeprefix('gs://')}/{name}": {} for name in names}

        def mv(self, path: str, target: str) -> None:
            assert target == path.replace("checkpoints", "aside")
            moved.append(path)

    monkeypatch.setattr("fsspec.filesystem", lambda name: Bucket())
    move_checkpoint(cast(Path, epath.Path("gs://bucket/checkpoints/5")), cast(Path, epath.Path("gs://bucket/aside/5")))
    assert len(moved) == 3 and moved[-1] == "gs://bucket/checkpoints/5/commit_success.txt"


def test_what_is_no_bucket_is_said(monkeypatch: pytest.MonkeyPatch):
    assert to_path("runs/c100") == Path("runs/c100") and not is_cloud(Path("runs/c100"))
    for wrong, message in (
        ("s3://bucket/run", r"folders of s3:// are not supported"),
        ("hdfs:/run", r"folders of hdfs:// are not supported"),
        ("gs://", r"which bucket\? It reads gs://bucket/folder"),
    ):
        with pytest.raises(UserError, match=message):
            to_path(wrong)
    with pytest.raises(UserError, match="must be on the disk, not in a bucket"):
        local_path("gs://bucket/folder")
    monkeypatch.setattr(cloud.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="need a package that is not installed; pip install gcsfs"):
        to_path("gs://bucket/run")


def test_a_bucket_that_cannot_be_reached_is_one_line(tmp_path: Path):
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}
    command = [sys.executable, "evaluate.py", "--workdir", "gs://bucket/run"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: gs://bucket/run cannot be reached (") and done.stderr.count("\n") == 1
