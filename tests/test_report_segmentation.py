"""The page of a segmentation and its pictures: colors, overlays, errors, and which images are shown."""

import base64
import html.parser
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_masks import CLASS_NAMES, MASK_NAMES, masks_dataset, train_masks

from convnext_jax import data
from convnext_jax.data.dataset import IGNORED
from convnext_jax.evaluate.offline import evaluate_workdir
from convnext_jax.evaluate.segmentation import SegmentationEvaluation
from convnext_jax.report.overlays import RED, class_colors, error_picture, mask_picture, overlay
from convnext_jax.report.segmentation_page import segmentation_page

DATASET = masks_dataset(test=30)


@pytest.fixture(scope="module", params=["segmentation", "multitask"])
def evaluation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SegmentationEvaluation:
    workdir = train_masks(tmp_path_factory.mktemp("run") / "w", DATASET, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda config: DATASET)
        (evaluated,) = evaluate_workdir(workdir)
    assert isinstance(evaluated, SegmentationEvaluation)
    return evaluated


class _Reader(html.parser.HTMLParser):
    """Collects the pictures of a page and the texts of its figures, and checks that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[tuple[str, np.ndarray]] = []
        self.captions: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        if tag == "img":
            with Image.open(io.BytesIO(base64.b64decode(given["src"].partition(",")[2]))) as picture:
                self.pictures.append((given["alt"], np.asarray(picture)))
        if tag not in ("meta", "link", "br", "img", "input", "path", "use", "rect", "circle"):
            self.open.append(tag)
            if tag == "figcaption":
                self.captions.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("path", "use", "rect", "circle"):
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "figcaption" in self.open:
            self.captions[-1] += data


def test_the_page_has_the_best_the_middle_and_the_worst_images(evaluation: SegmentationEvaluation):
    page = segmentation_page(evaluation, command="python evaluate.py").html()
    reader = _Reader(page)
    assert not reader.open and not re.search(r"https?://(?!www\.w3\.org)", page)
    scores = evaluation.overlaps.figures()["mean_iou"]
    order = np.argsort(scores, kind="stable")
    shown = [int(re.search(r"number (\d+)", caption)[1]) for caption in reader.captions]  # type: ignore[index]
    assert shown == [*order[:8], *order[11:19], *order[:-9:-1]], "30 images: of the 14 in between, the middle eight"
    assert [caption.split("%")[0] for caption in reader.captions] == [f"{100 * scores[number]:.1f}" for number in shown]
    first = shown[0]
    image, truth, predicted = DATASET.test.images[first], DATASET.test.masks[first], evaluation.outputs.masks[first]
    expected = {
        f"image of number {first}": image,
        f"truth of number {first}": overlay(image, truth, 4),
        f"prediction of number {first}": overlay(image, predicted, 4),
        f"errors of number {first}": error_picture(image, truth, predicted),
    }
    assert (truth != predicted).any()
    for (name, picture), (other, pixels) in zip(expected.items(), reader.pictures[:4], strict=True):
        assert name == other
        np.testing.assert_array_equal(picture, pixels)


def test_the_page_has_all_figures_and_classes(evaluation: SegmentationEvaluation):
    figures, page = evaluation.figures, segmentation_page(evaluation, command="").html()
    for name in ("mean_iou", "dice", "pixel_accuracy", "boundary_f1"):
        assert f"<strong>{figures[name]:.2%}</strong>" in page
    table = re.search(r"the lowest IoU first</caption>.*?</table>", page, re.DOTALL)
    assert table is not None
    listed = re.findall(r'<th scope="row">(.*?)</th>', table[0])
    by_iou = sorted(MASK_NAMES, key=lambda name: figures["per_class"][name]["iou"])
    assert listed == by_iou
    assert re.search(r"const confusion = .*\"counts\"", page) and "counted in pixels" in page
    assert "The loss of the masks is cross-entropy + Dice in training" in page
    for name, (red, green, blue) in zip(MASK_NAMES, class_colors(4), strict=True):
        assert f'<span style="background: rgb({red}, {green}, {blue})"></span>{name}' in page
    of_both = evaluation.outputs.image_logits is not None
    assert ("top-1 of images" in page) == of_both and ("Reliability diagram" in page) == of_both
    assert all((f">{name}<" in page) == of_both for name in CLASS_NAMES)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_page_of_few_images_shows_each_once(evaluation: SegmentationEvaluation, count: int):
    few = SegmentationEvaluation(
        **{
            **vars(evaluation),
            "examples": type(DATASET.test)(*(array[:count] for array in vars(DATASET.test).values())),
            "overlaps": evaluation.overlaps[:count],
            "outputs": type(evaluation.outputs)(
                *(None if array is None else array[:count] for array in evaluation.outputs)
            ),
        }
    )
    captions = _Reader(segmentation_page(few, command="").html()).captions
    numbers = [re.search(r"number (\d+)", caption)[1] for caption in captions]  # type: ignore[index]
    assert len(numbers) == len(set(numbers)) == count


def test_each_class_has_its_own_color_whatever_the_number_of_classes():
    many = class_colors(255)
    assert many.shape == (255, 3) and len({tuple(color) for color in many.tolist()}) == 255
    for count in (1, 3, 8, 9, 40):
        np.testing.assert_array_equal(class_colors(count), many[:count])
    # Okabe and Ito's, as they are published.
    assert [bytes(color).hex().upper() for color in many[:8]] == [
        "000000", "E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7",
    ]  # fmt: skip
    # Neighbors of the grid that the others come from are 25 apart.
    some = many[:16].astype(int)
    distances = np.abs(some[:, None] - some).sum(-1) + 1000 * np.eye(16, dtype=int)
    assert distances.min() > 75


def test_an_overlay_has_the_color_of_the_class_over_the_brightness_of_the_image():
    image = np.zeros((20, 20, 3), np.uint8)
    image[..., 0] = 100  # red, of a brightness of 30
    mask = np.zeros((20, 20), np.uint8)
    mask[:10] = 1
    over = overlay(image, mask, 2)
    assert over[0, 0].tolist() == [round(0.4 * 30 + 0.6 * value) for value in (230, 159, 0)]
    assert over[-1, 0].tolist() == [12, 12, 12]
    mask[10:] = IGNORED
    hatched = {tuple(color) for color in overlay(image, mask, 2)[10:].reshape(-1, 3).tolist()}
    assert hatched == {(30, 30, 30), (255, 255, 255)}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_channels_have_overlays_and_strips_leave_no_seam(channels: int, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 11, channels)).astype(np.uint8)
    mask = rng.integers(0, 3, (40, 11)).astype(np.uint8)
    mask[5:30] = IGNORED
    whole = overlay(image, mask, 3)
    monkeypatch.setattr("convnext_jax.report.overlays._STRIP", 16)
    np.testing.assert_array_equal(overlay(image, mask, 3), whole)
    assert whole.shape == (40, 11, 3)
    assert error_picture(image, mask, np.zeros_like(mask)).shape == (40, 11, 3)


def test_errors_are_red_and_only_they():
    image, truth = np.full((16, 16, 1), 90, np.uint8), np.zeros((16, 16), np.uint8)
    predicted = truth.copy()
    predicted[:4], truth[4:8] = 1, IGNORED
    predicted[4:8] = 1  # not wrong: it does not count
    picture = error_picture(image, truth, predicted)
    assert (picture[:4] == RED).all()
    assert not (picture[4:] == RED).all(-1).any()
    assert {tuple(color) for color in picture[8:].reshape(-1, 3).tolist()} == {(162, 162, 162)}
    assert (picture[4:8] == 255).all(-1).any()


def test_the_indices_of_a_mask_s_picture_are_its_classes(tmp_path: Path):
    mask = np.array([[0, 1], [2, IGNORED]], np.uint8)
    mask_picture(mask, 3).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as read:
        assert read.mode == "P"
        np.testing.assert_array_equal(np.asarray(read), mask)
        colors = np.asarray(read.convert("RGB"))
    assert colors[0, 1].tolist() == class_colors(3)[1].tolist() and colors[1, 1].tolist() == [255, 255, 255]
