"""The command that classifies pictures: order, formats, what cannot be read, and the contact sheet."""

import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from networks import TINY
from photographs import photographs
from PIL import Image
from tiny import NUM_CLASSES, tiny_experiment
from tiny_run import write_run

import convnext_jax
from convnext_jax.errors import Failure, UserError
from convnext_jax.models import create_model, split_model
from convnext_jax.models.weights import ModelFolder
from convnext_jax.report.contact_sheet import Cell, contact_sheet, heat_over
from convnext_jax.tools import predict as tool

Call = Callable[..., list[str]]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in a folder of folders, with files beside them that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(("b.png", "a.JPG", "dogs/10.png", "dogs/2.webp", "cats/1.jpeg")):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photographs(20 + number, 24)[number]).save(folder / name)
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.png").write_bytes(b"none")
    (folder / "dogs" / "loop").symlink_to(folder)
    return folder


ORDER = ("a.JPG", "b.png", "cats/1.jpeg", "dogs/10.png", "dogs/2.webp")


@pytest.fixture
def call(workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command and returns the lines that it prints."""

    def run(*arguments: object, run: Path = workdir) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["predict", "--workdir", str(run), *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out.splitlines()

    return run


def test_a_folder_is_taken_in_the_order_of_its_names(call: Call, workdir: Path, photos: Path):
    lines = [json.loads(line) for line in call(photos, "--format", "jsonl", "--batch_size", "2")]
    paths = [str(photos / name) for name in ORDER]
    assert [line["picture"] for line in lines] == paths
    classifier = convnext_jax.load(workdir)
    for line, row in zip(lines, classifier.predict(paths), strict=True):
        assert [each["class"] for each in line["predictions"]] == [classifier.classes[i] for i in np.argsort(-row)]
        np.testing.assert_allclose([each["probability"] for each in line["predictions"]], np.sort(row)[::-1], rtol=1e-5)


def test_the_table_has_a_line_for_each_picture(call: Call, workdir: Path, photos: Path, tmp_path: Path):
    given = photos / "b.png", photos / "a.JPG", photos / "b.png"
    assert call(*given, "--top_k", "2", "--output", tmp_path / "table.txt") == []
    head, *lines = (tmp_path / "table.txt").read_text().splitlines()
    assert head.split() == ["top", "1", "top", "2", "picture"]
    classifier = convnext_jax.load(workdir)
    for line, path, row in zip(lines, given, classifier.predict(given), strict=True):
        first, second = np.argsort(-row)[:2]
        names = classifier.classes
        assert line == f"{names[first]} {row[first]:.4f}  {names[second]} {row[second]:.4f}  {path}"
        assert line.index(str(path)) == head.index("picture")


def test_paths_come_from_standard_input_too(call: Call, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos / 'b.png'}\n\n{photos / 'cats'}\n"))
    lines = call(photos / "a.JPG", "-", "--format", "jsonl")
    assert [json.loads(line)["picture"] for line in lines] == [str(photos / name) for name in (ORDER[0], *ORDER[1:3])]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(UserError, match="no pictures were given"):
        call("-")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"there are no pictures in {tmp_path / 'empty'}"):
        call(photos, tmp_path / "empty")


def test_a_picture_that_cannot_be_read_is_named_and_loses_no_other(
    call: Call, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(photos, tmp_path / "p", symlinks=True)
    (tmp_path / "p" / "dogs" / "loop").unlink()  # it leads out of the copy
    (tmp_path / "p" / "aa.png").write_bytes(b"no picture at all")
    (tmp_path / "p" / "dogs" / "1.png").write_bytes((photos / "b.png").read_bytes()[:200])
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{tmp_path / 'gone.png'}\n"))
    with pytest.raises(Failure, match="^3 of 8 pictures could not be read$"):
        call(tmp_path / "p", "-", "--batch_size", "2", "--format", "jsonl")
    out, err = capsys.readouterr()
    assert [Path(json.loads(line)["picture"]).name for line in out.splitlines()] == [Path(name).name for name in ORDER]
    assert [line.split(" cannot be read (")[0] for line in err.splitlines()] == [
        f"picture {tmp_path / name}" for name in ("p/aa.png", "p/dogs/1.png", "gone.png")
    ]


def test_more_classes_than_there_are_cannot_be_shown(call: Call, photos: Path):
    assert len(json.loads(call(photos / "b.png", "--format", "jsonl")[0])["predictions"]) == NUM_CLASSES
    with pytest.raises(UserError, match=r"--top_k 5: the network in .* has 4 classes; take 4 or fewer"):
        call(photos / "b.png", "--top_k", "5")


def test_five_classes_are_shown_if_there_are_more(call: Call, photos: Path, tmp_path: Path):
    params = split_model(create_model(TINY, num_classes=6))[1]
    weights = ModelFolder(
        params, {}, "convnext_atto", dataclasses.asdict(TINY), tuple("abcdef"), (0.5,) * 3, (0.25,) * 3, "a test"
    )
    weights.write(tmp_path / "weights")
    head, line = call(photos / "b.png", "--image_size", "16", run=tmp_path / "weights")
    assert head.startswith("top 1     top 2     top 3     top 4     top 5     picture")
    assert len(set(line.split()[:10:2]) & set("abcdef")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "there is no picture or folder nowhere.png; see"),
        (["--top_k", "0", "."], "--top_k 0: must be at least 1; see"),
        (["--stage", "3", "."], "--stage is for --explain; see"),
        (["--explain", "a.jpg", "."], "--explain a.jpg: the contact sheet is a .png file; see"),
        (["--weights", "swa", "."], "argument --weights: invalid choice: 'swa'"),
    ],
)
def test_a_mistake_ends_with_status_2(
    call: Call, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match="^2$"):
        call(*arguments)
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(("option", "file"), [("--explain", "nowhere/a.png"), ("--output", "nowhere/a.txt")])
def test_a_file_in_no_folder_is_refused_before_the_work(call: Call, photos: Path, option: str, file: str):
    with pytest.raises(UserError, match=f"{option} {file}: there is no folder nowhere; make it"):
        call(photos, option, file)


def test_a_run_that_cannot_be_loaded_is_named(call: Call, photos: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"no checkpoint '7'; there are 5, 10; or say best or latest"):
        call(photos, "--step", "7")
    with pytest.raises(UserError, match=f"{tmp_path} is no workdir of train.py"):
        call(photos, run=tmp_path)
    experiment = tiny_experiment()
    without = dataclasses.replace(experiment, optim=dataclasses.replace(experiment.optim, ema_decay=0.0))
    with pytest.raises(UserError, match="--weights ema: the run in .* keeps no average"):
        call(photos, "--weights", "ema", run=write_run(tmp_path, without))


def test_a_contact_sheet_shows_where_the_network_looks(
    call: Call, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tool, "MOST_EXPLAINED", 3)
    sheet = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["predict"])
    call(photos, "--explain", sheet, "--batch_size", "2")
    call(photos / "b.png", "--explain", tmp_path / "one.png", "--stage", "1")
    with Image.open(sheet) as many, Image.open(tmp_path / "one.png") as one:
        many.load(), one.load()
    # Two pictures in a row, each beside its three best classes, and the third below them.
    assert 2 * 4 * 128 < many.width and 2 * 128 < many.height < 3 * 180
    assert 4 * 128 < one.width < many.width and 128 < one.height < many.height
    with pytest.raises(UserError, match=r"stage 4 of this network cannot be explained; those that can are 1 \(8x8\)"):
        call(photos, "--explain", sheet, "--stage", "4")


def test_heat_is_yellow_where_it_is_largest_and_leaves_the_picture_gray_where_it_is_none():
    picture = Image.new("RGB", (64, 64), (200, 60, 60))
    over = np.asarray(heat_over(picture, np.array([[0.0, 0.0], [0.0, 7.0]])), np.int32)
    assert len(set(over[0, 0])) == 1, "gray"
    red, green, blue = over[-1, -1]
    assert red > 1.5 * blue and green > 1.5 * blue
    assert np.array_equal(heat_over(picture, np.zeros((2, 2))), np.broadcast_to(over[0, 0], (64, 64, 3)))


def test_a_long_class_name_is_not_cut_and_no_line_runs_into_the_next():
    def ink(name: str) -> np.ndarray:
        """The columns of the sheet that have something dark below the pictures."""
        cells = [Cell(Image.new("RGB", (50, 50), "white"), (text, "1%")) for text in (name, "x")]
        return np.flatnonzero((np.asarray(contact_sheet([cells], ""))[:, :, 0] < 128).any(0))

    short, long, too_long = (ink("m" * count) for count in (5, 15, 100))
    assert short.max() < long.max() < too_long.max() < 600
    for columns in (short, long, too_long):
        second = columns[np.flatnonzero(np.diff(columns) > 8)[-1] + 1 :]
        assert 4 <= len(second) <= 30, "the x and the 1% of the second cell stand alone"
