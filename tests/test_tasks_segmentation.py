"""The segmentation task: weighted losses, figures against scikit-learn, sums that add up; both tasks at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from convnext_jax.batches.source import MaskedLabels
from convnext_jax.config import Experiment, parse_experiment
from convnext_jax.data.dataset import IGNORED
from convnext_jax.errors import UserError
from convnext_jax.models.segmentation import ImageAndPixelLogits
from convnext_jax.tasks.classification import Classification
from convnext_jax.tasks.interface import training_loss
from convnext_jax.tasks.make import make_task
from convnext_jax.tasks.multitask import MultiTask
from convnext_jax.tasks.pixel_losses import dice_loss, pixel_cross_entropy
from convnext_jax.tasks.segmentation import PixelLoss, Segmentation, confusion_figures

CLASSES = 4
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(6, 5, 7, CLASSES)).astype(np.float32))
MASKS = RNG.integers(0, CLASSES - 1, (6, 5, 7)).astype(np.uint8)  # the last class is only predicted
MASKS[0, :2] = IGNORED
LABELS = MaskedLabels(jnp.asarray(RNG.integers(0, 3, 6), jnp.int32), jnp.asarray(MASKS))
ALL = jnp.ones(6, bool)
TASK = Segmentation(CLASSES)


def pixels(images: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """The true and the predicted classes of all valid pixels."""
    valid = MASKS[images] != IGNORED
    return MASKS[images][valid], np.asarray(LOGITS.argmax(-1))[images][valid]


def test_figures_agree_with_scikit_learn():
    truth, taken = pixels()
    sums = TASK.sums(LOGITS, LABELS, ALL)
    np.testing.assert_array_equal(sums.confusion, confusion_matrix(truth, taken, labels=range(CLASSES)))
    figures = TASK.summarize(sums)
    assert figures["mean_iou"] == pytest.approx(jaccard_score(truth, taken, average="macro"))
    assert figures["dice"] == pytest.approx(f1_score(truth, taken, average="macro"))
    assert figures["pixel_accuracy"] == pytest.approx((truth == taken).mean())
    losses = pixel_cross_entropy(LOGITS, LABELS.masks)
    counts = (MASKS != IGNORED).sum((1, 2))
    assert figures["loss"] == pytest.approx(float((losses * counts).sum() / counts.sum()), rel=1e-5)
    assert figures["examples"] == 6


def test_sums_add_up_whatever_the_batches():
    whole = TASK.summarize(TASK.sums(LOGITS, LABELS, ALL))
    # Two batches of four; the last two examples of the second are padding, and are other ones.
    parts = []
    for chosen, mask in (([0, 1, 2, 3], [True] * 4), ([4, 5, 0, 1], [True, True, False, False])):
        indices = jnp.array(chosen)
        labels = MaskedLabels(LABELS.labels[indices], LABELS.masks[indices])
        parts.append(TASK.sums(LOGITS[indices], labels, jnp.array(mask)))
    summed = TASK.summarize(jax.tree.map(lambda *leaves: np.stack(leaves), *parts))
    assert summed == pytest.approx(whole, rel=1e-6)


def test_a_class_that_is_nowhere_counts_nowhere():
    figures = confusion_figures(np.array([[3, 0, 1], [0, 0, 0], [0, 0, 4]]))
    assert figures["iou"] == [0.75, None, 0.8]
    assert figures["mean_iou"] == pytest.approx((0.75 + 0.8) / 2)
    assert figures["dice_by_class"] == pytest.approx([6 / 7, None, 8 / 9])


def test_the_loss_is_the_weighted_sum():
    loss = PixelLoss(terms=(("cross_entropy", 0.5), ("dice", 2.0)), label_smoothing=0.1, dice_over_batch=True)
    expected = 0.5 * pixel_cross_entropy(LOGITS, LABELS.masks, 0.1) + 2.0 * dice_loss(
        LOGITS, LABELS.masks, over_batch=True
    )
    task = Segmentation(CLASSES, loss)
    np.testing.assert_allclose(task.loss(LOGITS, task.targets(LABELS)), expected, rtol=1e-6)


def test_both_tasks_at_once():
    outputs = ImageAndPixelLogits(jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32), LOGITS)
    classification = Classification(3)
    task = MultiTask(classification, TASK, classification_weight=0.25)
    targets = task.targets(LABELS)
    of_image = classification.loss(outputs.image, classification.targets(LABELS.labels))
    of_pixels = TASK.loss(LOGITS, LABELS.masks)
    np.testing.assert_allclose(task.loss(outputs, targets), of_pixels + 0.25 * of_image, rtol=1e-6)
    # The auxiliary head knows pixels alone.
    np.testing.assert_allclose(
        training_loss(task, outputs, (LOGITS,), targets), 1.4 * of_pixels + 0.25 * of_image, rtol=1e-6
    )
    figures = task.summarize(task.sums(outputs, LABELS, ALL))
    one, other = (
        TASK.summarize(TASK.sums(LOGITS, LABELS, ALL)),
        classification.summarize(classification.sums(outputs.image, LABELS.labels, ALL)),
    )
    assert figures == one | other | {"loss": one["loss"] + 0.25 * other["loss"]}
    assert set(task.metrics) <= set(figures)
    assert next(iter(task.metrics)) == "mean_iou"


@pytest.mark.parametrize("name", ["classification", "segmentation", "multitask"])
def test_a_task_is_made_of_the_settings(name: str):
    fields = {} if name == "classification" else {"loss": "dice+focal", "focal_weight": 0.5, "dice_over": "batch"}
    experiment = parse_experiment({"task": {"name": name, **fields}, "optim": {"label_smoothing": 0.2}})
    task = make_task(experiment, num_classes=5, mask_classes=7)
    expected = PixelLoss((("dice", 1.0), ("focal", 0.5)), label_smoothing=0.2, dice_over_batch=True)
    if isinstance(task, MultiTask):
        assert task.network["num_classes"] == 5 and task.network["pixel_classes"] == 7
        task = task.segmentation
    assert task == (Classification(5, 0.2) if name == "classification" else Segmentation(7, expected))
    assert hash(task) == hash(dataclasses.replace(task)), "a static argument of the compiled step"


def with_task(name: str) -> Experiment:
    return parse_experiment({"task": {"name": name}, "data": {"name": "digits"}})


@pytest.mark.parametrize(
    ("name", "num_classes", "mask_classes", "message"),
    [
        ("segmentation", 10, 0, "name=segmentation: digits has no masks; set config.task.name=classification"),
        ("multitask", 10, 0, "name=multitask: digits has no masks; set config.task.name=classification"),
        ("classification", 0, 3, "have no classes, only masks; set config.task.name=segmentation"),
        ("multitask", 0, 3, "have no classes, only masks; set config.task.name=segmentation"),
    ],
)
def test_a_task_that_the_data_cannot_serve_is_refused(name: str, num_classes: int, mask_classes: int, message: str):
    with pytest.raises(UserError, match=message):
        make_task(with_task(name), num_classes=num_classes, mask_classes=mask_classes)


@pytest.mark.parametrize(
    ("task", "others", "message"),
    [
        ({"name": "segment"}, {}, r"config\.task\.name='segment': unknown; did you mean 'segmentation'\?"),
        ({"loss": "dice"}, {}, r"config\.task\.loss='dice' is for masks; set config\.task\.name=segmentation"),
        ({"name": "segmentation", "loss": "dise"}, {}, r"config\.task\.loss='dise': unknown; did you mean 'dice'"),
        ({"name": "segmentation", "loss": "dice+dice"}, {}, "each loss once"),
        ({"name": "segmentation", "cross_entropy_weight": 0.0}, {}, "one at least with a weight above 0"),
        ({"name": "segmentation", "focal_gamma": -1.0}, {}, r"config\.task\.focal_gamma=-1\.0: must be in"),
        ({"name": "segmentation"}, {"augment": {"cutmix_alpha": 1.0}}, r"cutmix_alpha=1\.0: masks cannot follow"),
        ({"name": "segmentation"}, {"augment": {"policy": "randaugment"}}, r"policy=randaugment: masks cannot follow"),
        ({"name": "multitask"}, {"run": {"image_sizes": (16, 32)}}, r"image_sizes=\(16, 32\): masks cannot follow"),
    ],
)
def test_settings_that_make_no_task_are_refused(task: dict[str, object], others: dict[str, object], message: str):
    with pytest.raises(UserError, match=message):
        parse_experiment({"task": task, **others})
