"""The command that compares what networks cost."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from convnext_jax.errors import UserError
from convnext_jax.tools import compare_networks
from convnext_jax.tools.plan.topology import Topology


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


def test_the_time_that_the_compiler_of_a_tpu_models_is_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, ...]] = []

    def modeled(*arguments: object) -> float:
        asked.append(arguments)
        return 0.0125

    monkeypatch.setattr("convnext_jax.tools.compare_networks.check_compiler", lambda topology: None)
    monkeypatch.setattr("convnext_jax.tools.compare_networks.start_on_cpu", lambda topology: None)
    monkeypatch.setattr("convnext_jax.tools.compare_networks.compiler_mismatch", lambda: "libtpu 1 is not 2")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2")
    monkeypatch.setattr("convnext_jax.tools.plan.inference.modeled_milliseconds", modeled)
    call(monkeypatch, "lenet5", "--topology", "v6e:2x2", "--json", tmp_path / "a.json")
    said = capsys.readouterr()
    assert "modeled ms an image, batch 64" in said.out and "0.0125" in said.out
    assert "note: libtpu 1 is not 2" in said.err
    ((name, image_size, num_classes, batch_size, topology),) = asked
    assert (name, image_size, num_classes, batch_size) == ("lenet5", 32, 100, 64)
    assert isinstance(topology, Topology) and topology.chip is not None and topology.chip.name == "v6e"
    written = json.loads((tmp_path / "a.json").read_text())
    assert (written["topology"], written["compiler"]) == ("v6e:2x2", "libtpu 1.2")
    assert written["networks"][0]["modeled_milliseconds"] == 0.0125


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no network is called 'resnet19': did you mean 'resnet18'?"):
        call(monkeypatch, "resnet19")
    with pytest.raises(UserError, match="--topology h100:1: only the compilers of TPUs say how long a program takes"):
        call(monkeypatch, "lenet5", "--topology", "h100:1")
    with pytest.raises(UserError, match="--topology v5e: unknown; known are cpu:N, v4:XxYxZ, v5e:XxY"):
        call(monkeypatch, "lenet5", "--topology", "v5e")
    with pytest.raises(SystemExit):
        call(monkeypatch, "--picture", "a.png")
    assert "--picture shows the time: give --time too" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(monkeypatch, "lenet5", "--time", "--topology", "v5e:2x2")
    assert "--time is of this device, --topology of another" in capsys.readouterr().err
