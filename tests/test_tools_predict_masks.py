"""The command that segments pictures: files, sizes, lines, and mistakes; and the same in Python."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from tiny_masks import CLASS_NAMES, MASK_NAMES, masks_dataset, train_masks

from convnext_jax import data
from convnext_jax.data.dataset import IGNORED
from convnext_jax.data.decode import resize_and_crop
from convnext_jax.errors import Failure, UserError
from convnext_jax.evaluate.offline import evaluate_workdir
from convnext_jax.evaluate.preprocessing import Preprocessing
from convnext_jax.evaluate.segmentation import SegmentationEvaluation
from convnext_jax.evaluate.segmenter import load
from convnext_jax.report.overlays import overlay
from convnext_jax.tools import predict as tool

DATASET = masks_dataset()
IMAGES = np.asarray(DATASET.test.images)
Call = Callable[..., list[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for task in ("segmentation", "multitask", "classification"):
        train_masks(root / task, DATASET, task)
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the training's size, one of them wide, and one of the same name in another folder."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    Image.fromarray(IMAGES[0]).save(folder / "a.png")
    Image.fromarray(IMAGES[1]).resize((96, 48), Image.Resampling.BICUBIC).save(folder / "wide.png")
    Image.fromarray(IMAGES[2]).save(folder / "more" / "a.bmp")
    return folder


@pytest.fixture
def call(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command and returns the lines that it prints."""

    def run(*arguments: object, task: str = "segmentation") -> list[str]:
        monkeypatch.setattr(sys, "argv", ["predict", "--workdir", str(runs / task), *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out.splitlines()

    return run


def indices(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        assert mask.mode == "P"
        return np.asarray(mask)


def test_each_picture_has_a_mask_of_its_size_and_an_overlay(call: Call, runs: Path, photos: Path, tmp_path: Path):
    lines = [json.loads(line) for line in call(photos, "--masks", tmp_path / "m", "--format", "jsonl")]
    pictures = ("a.png", "wide.png", "more/a.bmp")
    assert [(line["picture"], line["mask"]) for line in lines] == [
        (str(photos / name), mask) for name, mask in zip(pictures, ("a.png", "wide.png", "a_2.png"), strict=True)
    ]
    names = {"a", "a_overlay", "wide", "wide_overlay", "a_2", "a_2_overlay"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == {f"{name}.png" for name in names}
    segmenter = load(runs / "segmentation")
    masks = segmenter.predict([photos / name for name in pictures])
    np.testing.assert_array_equal(indices(tmp_path / "m" / "a.png"), masks[0])
    np.testing.assert_array_equal(indices(tmp_path / "m" / "a_2.png"), masks[2])
    assert len(np.unique(masks)) > 1 and (masks[0] != masks[2]).any()
    with Image.open(tmp_path / "m" / "a_overlay.png") as over:
        np.testing.assert_array_equal(np.asarray(over), overlay(IMAGES[0], masks[0], 4))
    # Of 96x48 pixels the center square is what the network sees: each of its pixels is 3x3 of the picture.
    wide = indices(tmp_path / "m" / "wide.png")
    assert wide.shape == (48, 96) and (wide[:, :24] == IGNORED).all() and (wide[:, 72:] == IGNORED).all()
    np.testing.assert_array_equal(wide[:, 24:72], masks[1].repeat(3, 0).repeat(3, 1))
    for line, mask in zip(lines, masks, strict=True):
        shares = {MASK_NAMES[number]: (mask == number).mean() for number in range(4)}
        assert {each["class"]: each["share"] for each in line["classes"]} == pytest.approx(shares)
        assert [each["share"] for each in line["classes"]] == sorted(shares.values(), reverse=True)


@pytest.mark.parametrize("size", [(16, 16), (40, 25), (25, 40), (7, 9), (100, 33), (1, 50), (333, 512)])
def test_a_mask_at_full_size_undoes_the_resizing(size: tuple[int, int]):
    width, height = size
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (16, 16)).astype(np.uint8)
    preprocess = Preprocessing(16, 16, (0.5,), (0.5,))
    full = preprocess.at_full_size(small, height, width)
    assert full.shape == (height, width)
    if min(size) >= 16:  # nothing was lost, so that the nearest pixels are the same again
        again = np.asarray(resize_and_crop("a mask", Image.fromarray(full), 16, Image.Resampling.NEAREST))
        np.testing.assert_array_equal(again, small)
    seen = full != IGNORED
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert seen.sum() == len(rows) * len(columns), "a rectangle"
    for along, side in ((rows, height), (columns, width)):
        assert abs((along[0] + along[-1]) - (side - 1)) <= max(side / 16, 1), "in the middle"


def test_the_table_has_a_line_for_each_picture_and_with_both_tasks_the_classes_of_images(
    call: Call, runs: Path, photos: Path, tmp_path: Path
):
    head, line = call(photos / "a.png", "--masks", tmp_path / "m", "--top_k", "2")
    assert head.split() == ["largest", "1", "largest", "2", "mask", "picture"]
    segmenter = load(runs / "segmentation")
    share = (segmenter.predict(photos / "a.png")[0, :, :, None] == np.arange(4)).mean((0, 1))
    first, second = np.argsort(-share, kind="stable")[:2]
    cells = [MASK_NAMES[first], f"{share[first]:.4f}", MASK_NAMES[second], f"{share[second]:.4f}"]
    assert line.split() == [*cells, "a.png", str(photos / "a.png")]
    assert line.index(str(photos)) == head.index("picture")
    (line,) = call(photos / "a.png", "--masks", tmp_path / "b", "--format", "jsonl", task="multitask")
    told = json.loads(line)
    masks, probabilities = load(runs / "multitask").predict_both(photos / "a.png")
    assert probabilities is not None
    assert {each["class"]: each["probability"] for each in told["predictions"]} == pytest.approx(
        dict(zip(CLASS_NAMES, probabilities[0].tolist(), strict=True))
    )
    np.testing.assert_array_equal(indices(tmp_path / "b" / "a.png"), masks[0])


def test_names_that_would_meet_are_kept_apart(call: Call, tmp_path: Path):
    (tmp_path / "p").mkdir()
    for number, name in enumerate(("a.png", "a_overlay.png", "A.bmp", "a_2.png", f"{'x' * 240}.png")):
        Image.fromarray(IMAGES[number]).save(tmp_path / "p" / name)
    # The first has the name of an overlay to come.
    given = [tmp_path / "p" / name for name in ("a_overlay.png", "a.png", "A.bmp", "a_2.png", f"{'x' * 240}.png")]
    lines = [json.loads(line) for line in call(*given, "--masks", tmp_path / "m", "--format", "jsonl")]
    masks = {Path(line["picture"]).name: line["mask"] for line in lines}
    files = {path.name.lower() for path in (tmp_path / "m").iterdir()}
    assert len(files) == 10 == 2 * len(set(masks.values())), masks
    assert all(mask.lower() in files and f"{mask[:-4]}_overlay.png".lower() in files for mask in masks.values())


def test_masks_below_the_folder_that_is_read_are_no_pictures(call: Call, photos: Path, tmp_path: Path):
    shutil.copytree(photos, tmp_path / "p")
    for number in range(15):  # two batches and more, so that there are masks before the folders below are listed
        shutil.copy(photos / "a.png", tmp_path / "p" / f"{number}.png")
    assert len(call(tmp_path / "p", "--masks", tmp_path / "p" / "masks", "--batch_size", "1")) == 1 + 18
    assert len(list((tmp_path / "p" / "masks").iterdir())) == 2 * 18
    (tmp_path / "p" / "b.png").write_bytes(b"none")
    with pytest.raises(Failure, match="1 of 4 pictures could not be read"):
        call(tmp_path / "p" / "b.png", photos, "--masks", tmp_path / "other")
    assert len(list((tmp_path / "other").iterdir())) == 6


def test_what_does_not_fit_the_run_is_refused(
    call: Call, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for task in ("segmentation", "multitask"):
        with pytest.raises(UserError, match=rf"predicts masks \(config.task.name={task}\): give --masks DIR"):
            call(photos, task=task)
    with pytest.raises(UserError, match="classifies images and predicts no masks: leave --masks out"):
        call(photos, "--masks", tmp_path / "m", task="classification")
    assert not (tmp_path / "m").exists()
    with pytest.raises(UserError, match="--top_k 5: the network in .* has 4 classes"):
        call(photos, "--masks", tmp_path / "m", "--top_k", "5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").write_bytes(b"mine")
    for arguments, message in (
        (["--masks", tmp_path / "full"], "there are files in it, which stay; give a new or empty folder"),
        (["--masks", tmp_path / "m", "--explain", "a.png"], "--explain is for classification, and --masks for"),
    ):
        with pytest.raises(SystemExit, match="^2$"):
            call(photos, *arguments)
        assert message in capsys.readouterr().err
    assert (tmp_path / "full" / "a.png").read_bytes() == b"mine"


def test_a_segmenter_predicts_what_the_evaluation_does(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "load", lambda config: DATASET)
    for task in ("segmentation", "multitask"):
        (evaluation,) = evaluate_workdir(runs / task)
        assert isinstance(evaluation, SegmentationEvaluation)
        segmenter = load(runs / task, batch_size=8)
        masks, probabilities = segmenter.predict_both(IMAGES)
        np.testing.assert_array_equal(masks, evaluation.outputs.masks)
        assert masks.dtype == np.uint8 and segmenter.classes == MASK_NAMES
        np.testing.assert_array_equal(segmenter.predict([Image.fromarray(each) for each in IMAGES[:3]]), masks[:3])
        if task == "multitask":
            np.testing.assert_allclose(probabilities, softmax(evaluation.outputs.image_logits, -1), rtol=1e-4)
        else:
            assert probabilities is None
        assert load(runs / task, image_size=32).predict(IMAGES[0].repeat(2, 0).repeat(2, 1)[None]).shape == (1, 32, 32)
    with pytest.raises(UserError, match=r"images of uint8 \[13, 16, 16, 1\] are given"):
        segmenter.predict(IMAGES[..., :1])
    with pytest.raises(UserError, match="leave --masks out, or in Python take convnext_jax.load"):
        load(runs / "classification")
    with pytest.raises(UserError, match="weights='swa': must be raw or ema"):
        load(runs / "segmentation", weights="swa")
