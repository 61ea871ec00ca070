"""The command that prints the road from ResNet to ConvNeXt, and draws what runs came to."""

import dataclasses
import sys
from pathlib import Path

import pytest
from PIL import Image
from test_report_comparison import experiment, log, run

from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.models import MODELS
from convnext_jax.models.road_steps import road
from convnext_jax.tools import road as command


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["road", *map(str, arguments)])
    command.main()


def settings(architecture: object, name: str = "road_tiny", **changes: object) -> Experiment:
    base = experiment(epochs=2, **changes)
    return dataclasses.replace(base, model=dataclasses.replace(base.model, name=name, architecture=architecture))


def rows(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_the_table_has_every_step_in_order(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    call(monkeypatch, "--num_classes", "1000")
    table = rows(capsys.readouterr().out)
    assert list(table)[2:] == list(road())
    assert table["resnet"][1] == "25,557,032" and table["resnet"][-1] == "78.8%"
    assert table["separate_downsampling"][1] == "28,589,128" and table["separate_downsampling"][-1] == "82.0%"


def test_runs_have_their_figures_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = road()
    folders = [
        run(tmp_path / "resnet", log(0.1, 0.25), settings(networks["resnet"])),
        run(tmp_path / "gelu0", log(0.2, 0.5), settings(networks["gelu"])),
        run(tmp_path / "gelu1", log(0.2, 0.52), settings(networks["gelu"], seed=1)),
        run(tmp_path / "long", log(0.2, 0.9), settings(networks["width"], rate=0.5)),
        run(tmp_path / "now", log(0.2, 0.9), settings(networks["inverted"]), finished=False),
        run(tmp_path / "other", log(0.2, 0.9), settings(MODELS["resnet18"], "resnet18")),
    ]
    call(monkeypatch, *folders, "--picture", tmp_path / "road.png")
    said = capsys.readouterr()
    table = rows(said.out)
    assert table["resnet"][-1] == "25.00%" and table["gelu"][-1] == "50.00% 52.00%"
    assert all(row[-1] == "not measured" for name, row in table.items() if name in ("width", "inverted", "kernel9"))
    assert said.err.splitlines() == [
        f"skipped: {tmp_path}/long was trained otherwise than {tmp_path}/resnet",
        f"skipped: {tmp_path}/now has not finished",
        f"skipped: {tmp_path}/other: its network is no step of the road",
    ]
    with Image.open(tmp_path / "road.png") as picture:
        assert picture.size[0] > 500


def test_runs_of_other_networks_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(tmp_path / "other", log(0.2, 0.9), settings(MODELS["resnet18"], "resnet18"))
    with pytest.raises(UserError, match=r"none of these runs is a finished step of the road; train some with configs/"):
        call(monkeypatch, folder, "--picture", tmp_path / "road.png")


def test_a_picture_of_no_runs_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--picture", "road.png")
    assert ended.value.code == 2 and "--picture draws runs: give their workdirs" in capsys.readouterr().err
