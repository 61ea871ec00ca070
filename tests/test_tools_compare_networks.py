"""The command that compares what networks cost."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from convnext_jax.errors import UserError
from convnext_jax.tools import compare_networks


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_networks", *map(str, arguments)])
    compare_networks.main()


def test_the_counts_are_those_of_the_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "resnet20", "resnet18", "convnext_atto", "--num_classes", 10)
    said = capsys.readouterr()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["convnext_atto", "resnet18", "resnet20"]
    # 41 million multiply-adds and 0.27 million parameters: He et al. 2016, table 6, and the usual count.
    assert rows[2][1] == "269,722" and float(rows[2][2].split()[0]) == pytest.approx(40.8, abs=0.3)


def test_networks_for_larger_images_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "alexnet*")
    said = capsys.readouterr()
    assert "| alexnet_small_stem " in said.out and "| alexnet " not in said.out
    assert "left out: alexnet needs 63x63 pixels or more" in said.err
    with pytest.raises(UserError, match="no network works on images of 32 pixels; give a larger --image_size"):
        call(monkeypatch, "alexnet")


def test_times_are_written_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "lenet5", "--time", "--json", tmp_path / "a.json", "--picture", tmp_path / "a.png")
    (row,) = json.loads((tmp_path / "a.json").read_text())["networks"]
    assert row["name"] == "lenet5" and set(row["milliseconds"]) == {"1", "64"}
    assert all(0 < each < 1000 for each in row["milliseconds"].values())
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 500


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no network is called 'resnet19': did you mean 'resnet18'?"):
        call(monkeypatch, "resnet19")
    with pytest.raises(SystemExit):
        call(monkeypatch, "--picture", "a.png")
    assert "--picture shows the time: give --time too" in capsys.readouterr().err
