"""evaluate.py on segmentations: figures against loops and scikit-learn, what training logged, and mistakes."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score
from tiny_masks import MASK_NAMES, masks_dataset, train_masks

from convnext_jax import data
from convnext_jax.data.dataset import IGNORED, Dataset
from convnext_jax.errors import UserError
from convnext_jax.evaluate.boundaries import boundary_sums
from convnext_jax.evaluate.classifier import load
from convnext_jax.evaluate.comparison import compare, group_seeds
from convnext_jax.evaluate.offline import evaluate_workdir, summary_of
from convnext_jax.evaluate.segmentation import SegmentationEvaluation, confusion_of
from convnext_jax.evaluate.selected import Selection
from convnext_jax.evaluate.soup import make_soup
from convnext_jax.evaluate.uncertainty import resampled_sums
from convnext_jax.models import merge_model
from convnext_jax.tasks.segmentation import Overlaps, confusion_figures
from convnext_jax.workdir.metrics_log import read_metrics

DATASET = masks_dataset()
MASKS: Any = DATASET.test.masks


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmentation of two seeds in one workdir, the same for three epochs, one of both tasks, and a classifier."""
    root = tmp_path_factory.mktemp("runs")
    train_masks(root / "a0", DATASET)
    train_masks(root / "a1", DATASET, seed=1)
    train_masks(root / "longer", DATASET, epochs=3)
    train_masks(root / "both", DATASET, "multitask")
    train_masks(root / "labels", DATASET, "classification")
    return root


@pytest.fixture(autouse=True)
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(data, "load", lambda config: DATASET)
    yield


def evaluated(workdir: Path, **selection: Any) -> SegmentationEvaluation:
    (evaluation,) = evaluate_workdir(workdir, Selection(**selection))
    assert isinstance(evaluation, SegmentationEvaluation)
    return evaluation


def logged(workdir: Path, prefix: str = "test/") -> dict[str, float]:
    last = [line for line in read_metrics(workdir / "metrics.jsonl") if f"{prefix}loss" in line][-1]
    return {name.removeprefix(prefix): value for name, value in last.items() if name.startswith(prefix)}


def directly(evaluation: SegmentationEvaluation) -> np.ndarray:
    """The logits of the pixels, [N,H,W,K]."""
    model = merge_model(evaluation.run.model.definition, evaluation.params, evaluation.batch_stats)
    outputs = model((jnp.asarray(DATASET.test.images) / 255.0 - 0.5) / 0.25)
    return np.asarray(getattr(outputs, "pixels", outputs))


def test_the_figures_are_those_of_loops_and_of_scikit_learn(runs: Path):
    evaluation = evaluated(runs / "a0")
    figures, predicted = evaluation.figures, directly(evaluation).argmax(-1)
    np.testing.assert_array_equal(evaluation.outputs.masks, predicted)
    confusion = np.zeros((4, 4), int)
    for true, taken in zip(MASKS.ravel(), predicted.ravel(), strict=True):
        if true != IGNORED:
            confusion[true, taken] += 1
    assert figures["confusion"] == confusion.tolist()
    valid = MASKS != IGNORED
    true, taken = MASKS[valid], predicted[valid]
    assert not valid.all() and len(set(taken.tolist())) > 1, "ignored pixels, and several classes"
    np.testing.assert_array_equal(confusion, confusion_matrix(true, taken, labels=range(4)))
    there = sorted({*true.tolist(), *taken.tolist()})
    assert figures["mean_iou"] == pytest.approx(jaccard_score(true, taken, labels=there, average="macro"))
    assert figures["dice"] == pytest.approx(f1_score(true, taken, labels=there, average="macro"))
    assert figures["pixel_accuracy"] == pytest.approx(accuracy_score(true, taken))
    assert 0.05 < figures["mean_iou"] < 0.95, "a network that is always right would not tell much"
    for number, (name, own) in enumerate(figures["per_class"].items()):
        assert name == MASK_NAMES[number] and own["pixels"] == (true == number).sum()
        if number in there:
            assert own["iou"] == pytest.approx(jaccard_score(true == number, taken == number))
            assert own["dice"] == pytest.approx(f1_score(true == number, taken == number))
    boundaries = boundary_sums(MASKS, predicted.astype(np.uint8), 4).f1()
    assert [each["boundary_f1"] for each in figures["per_class"].values()] == boundaries
    assert figures["boundary_f1"] == pytest.approx(np.mean([each for each in boundaries if each is not None]))


def test_the_loss_is_the_cross_entropy_of_a_pixel(runs: Path):
    evaluation = evaluated(runs / "a0")
    valid = MASKS != IGNORED
    losses = -np.take_along_axis(
        log_softmax(directly(evaluation).astype(np.float64), -1), np.where(valid, MASKS, 0)[..., None].astype(int), -1
    )
    assert evaluation.figures["loss"] == pytest.approx(losses[..., 0][valid].mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["a0", "both"])
def test_the_figures_are_those_that_training_logged_at_its_end(runs: Path, name: str):
    figures, at_the_end = evaluated(runs / name).figures, logged(runs / name)
    assert {"mean_iou", "dice", "pixel_accuracy", "loss"} <= at_the_end.keys()
    assert ("top1" in at_the_end) == (name == "both")
    for figure, value in at_the_end.items():
        assert figures[figure] == pytest.approx(value, rel=1e-5), figure
    average = logged(runs / name, "test_ema/")
    assert average["loss"] != at_the_end["loss"]
    assert evaluated(runs / name, weights="ema").figures["loss"] == pytest.approx(average["loss"], rel=1e-5)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_the_batch_size_changes_no_count(runs: Path, batch_size: int):
    whole, parts = (evaluated(runs / "a0", batch_size=size).figures for size in (None, batch_size))
    for name in ("confusion", "per_class", "intervals", "examples"):
        assert parts[name] == whole[name]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_both_tasks_have_their_figures_and_the_loss_is_their_sum(runs: Path):
    evaluation = evaluated(runs / "both")
    figures, logits = evaluation.figures, evaluation.outputs.image_logits
    assert logits.shape == (13, 2)
    assert figures["top1"] == accuracy_score(DATASET.test.labels, logits.argmax(-1)) and figures["top5"] == 1.0
    image_loss = -log_softmax(logits.astype(np.float64), -1)[np.arange(13), DATASET.test.labels].mean()
    assert figures["image_loss"] == pytest.approx(image_loss)
    assert figures["loss"] == pytest.approx(figures["pixel_loss"] + figures["image_loss"])
    assert {"ece", "per_image_class"} <= figures.keys() and set(figures["intervals"]) >= {
        "mean_iou",
        "top1",
        "image_loss",
    }


def test_overlaps_have_the_figures_of_the_confusion_matrix():
    rng = np.random.default_rng(3)
    truth, predicted = rng.integers(0, 4, (6, 5, 5)).astype(np.uint8), rng.integers(0, 4, (6, 5, 5)).astype(np.uint8)
    truth[0] = IGNORED  # an image that has no figure
    truth[1][truth[1] == 2], predicted[1][predicted[1] == 2] = 0, 0  # a class that is nowhere
    truth[2][:2] = IGNORED
    whole, overlaps = confusion_of(truth, predicted, 5)
    parts = [confusion_of(truth[n : n + 1], predicted[n : n + 1], 5)[0] for n in range(6)]
    np.testing.assert_array_equal(sum(parts), whole)
    for name, values in overlaps.figures().items():
        assert values.tolist() == pytest.approx([confusion_figures(part)[name] for part in parts])
        summed = Overlaps(overlaps.right.sum(0), overlaps.true.sum(0), overlaps.predicted.sum(0)).figures()[name]
        assert summed == pytest.approx(confusion_figures(whole)[name])


def test_intervals_resample_the_images_and_contain_the_figure(runs: Path):
    evaluation = evaluated(runs / "a0")
    for name, (low, high) in evaluation.figures["intervals"].items():
        assert low < evaluation.figures[name] < high
    counts = resampled_sums(np.eye(13, dtype=np.int64))  # how often each image was drawn
    assert counts.shape == (2000, 13) and (counts.sum(1) == 13).all() and counts.max() > 3
    assert np.abs(counts.mean(0) - 1).max() < 0.1
    values = []
    for weights in counts.astype(np.int64):
        drawn = np.repeat(np.arange(13), weights)
        overlaps = evaluation.overlaps[drawn]
        right, true, predicted = overlaps.right.sum(0), overlaps.true.sum(0), overlaps.predicted.sum(0)
        values.append(np.mean(right[true + predicted > 0] / (true + predicted - right)[true + predicted > 0]))
    assert evaluation.figures["intervals"]["mean_iou"] == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_one_run_gives_a_file_a_page_and_tables(runs: Path, tmp_path: Path, evaluate: Callable[..., str]):
    shown = evaluate("--workdir", runs / "a0", "--output", tmp_path, "--cost")
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert re.search(rf"mean IoU +{figures['mean_iou']:.2%}", shown) and "boundary F1" in shown
    assert figures["macs"] > 0 and figures["cost"]["images_per_second"] > 0 and "tta" not in figures
    assert f"{figures['mean_iou']:.2%} mean IoU" in (tmp_path / "report.html").read_text()
    assert evaluate("--workdir", runs / "both", "--output", tmp_path, "--format", "markdown", "--no_report").count("| ")


def test_seeds_are_averaged_and_two_recipes_compared(runs: Path, tmp_path: Path, evaluate: Callable[..., str]):
    shown = evaluate("--workdir", runs / "a0", runs / "a1", "--output", tmp_path)
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    each = [summary["seeds"][seed]["mean_iou"] for seed in ("0", "1")]
    assert each[0] != each[1] and summary["mean"]["mean_iou"] == pytest.approx(np.mean(each))
    assert summary["std"]["mean_iou"] == pytest.approx(np.std(each, ddof=1))
    assert "mean ± std" in shown and "top-1" not in shown and (tmp_path / "report_2.html").exists()
    shown = evaluate("--workdir", runs / "a0", runs / "longer", "--output", tmp_path, "--no_report")
    (compared,) = json.loads((tmp_path / "evaluation.json").read_text())["comparisons"]
    assert compared["conclusion"] in shown and compared["figure"] == "mean_iou"
    one, other = (evaluated(runs / name) for name in ("a0", "longer"))
    assert compared["difference"] == pytest.approx(other.figures["mean_iou"] - one.figures["mean_iou"])
    low, high = compared["interval"]
    assert low < compared["difference"] < high
    assert one.paired(one)["interval"] == [0.0, 0.0], "the same resamples of both"


def test_segmentations_of_other_masks_are_not_compared(runs: Path):
    one, other = (evaluated(runs / name) for name in ("a0", "longer"))
    masks = MASKS.copy()
    masks[0, 0, 0] = 1 if masks[0, 0, 0] != 1 else 2
    changed = dataclasses.replace(other, examples=dataclasses.replace(other.examples, masks=masks))
    assert compare(*group_seeds([one, other])) is not None
    assert compare(*group_seeds([one, changed])) is None


def test_a_boundary_that_no_image_has_is_left_out_of_the_mean_over_seeds(runs: Path):
    one = evaluated(runs / "a0")
    without = dataclasses.replace(one, figures=one.figures | {"boundary_f1": None})
    assert "boundary_f1" in summary_of([one, one])["mean"]
    assert "boundary_f1" not in summary_of([one, without])["mean"]


@pytest.mark.parametrize("option", [("--robustness",), ("--corrupted", "."), ("--tta", "flip")])
def test_options_of_classification_are_refused(runs: Path, evaluate: Callable[..., str], option: tuple[str, ...]):
    with pytest.raises(UserError, match=f"{option[0]} is for classification, and .*a0 has config.task.name="):
        evaluate("--workdir", runs / "a0", *option)
    with pytest.raises(UserError, match="--tta flip is for classification"):
        evaluate_workdir(runs / "a0", Selection(tta="flip"))


def test_a_segmentation_and_a_classification_are_not_put_side_by_side(runs: Path, evaluate: Callable[..., str]):
    with pytest.raises(UserError, match="a0 predicts masks and .*labels does not, so they have no figure in common"):
        evaluate("--workdir", runs / "labels", runs / "a0")


def test_a_classifier_of_images_that_have_masks_is_evaluated_without_them(runs: Path):
    (evaluation,) = evaluate_workdir(runs / "labels")
    assert evaluation.examples.masks is None and evaluation.figures["top1"] == logged(runs / "labels")["top1"]


def test_other_masks_than_those_of_the_training_are_refused(runs: Path, monkeypatch: pytest.MonkeyPatch):
    def give(dataset: Dataset) -> None:
        monkeypatch.setattr(data, "load", lambda config: dataset)

    give(dataclasses.replace(DATASET, mask_names=(*MASK_NAMES[:3], "white")))
    with pytest.raises(UserError, match=r"other mask classes \(without bright; with white\)"):
        evaluate_workdir(runs / "a0")
    give(DATASET.without_masks())
    with pytest.raises(UserError, match="other mask classes"):
        evaluate_workdir(runs / "a0", Selection(data_changed=True))


@pytest.mark.parametrize("name", ["a0", "both"])
def test_what_is_for_classifiers_says_what_to_use_instead(runs: Path, name: str):
    with pytest.raises(UserError, match=r"predicts masks .*: give --masks DIR, or in Python take .*segmenter\.load"):
        load(runs / name)
    with pytest.raises(UserError, match=r"a soup is of a classifier, and config\.task\.name=.*; for averaged weights"):
        make_soup(runs / name, last=2)


def test_no_logits_of_pixels_leave_the_device(runs: Path, monkeypatch: pytest.MonkeyPatch):
    fetched = []
    real = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(tree) or real(tree))
    evaluated(runs / "a0")
    sizes = [leaf.nbytes for tree in fetched for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    assert sizes and max(sizes) <= 16 * 16 * 16, "a byte a pixel of at most 16 images"
