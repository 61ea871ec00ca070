"""The figures of a classifier against scikit-learn and the figures of the training."""

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from convnext_jax import data
from convnext_jax.config import DataConfig
from convnext_jax.data.superclasses import CIFAR100
from convnext_jax.evaluate.figures import (
    accuracy_figures,
    class_figures,
    confusion_counts,
    ranks,
    superclass_figures,
)
from convnext_jax.tasks.classification import Classification

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 9, 400)
LOGITS = (RNG.normal(size=(400, 9)) + 2 * np.eye(9)[LABELS]).astype(np.float32)


def test_accuracy_and_loss_are_scikit_learn_s():
    figures, probabilities = accuracy_figures(LOGITS, LABELS), softmax(LOGITS.astype(np.float64), axis=-1)
    assert figures["top1"] == accuracy_score(LABELS, LOGITS.argmax(-1))
    assert figures["top5"] == top_k_accuracy_score(LABELS, LOGITS, k=5)
    assert figures["loss"] == pytest.approx(log_loss(LABELS, probabilities), rel=1e-12)
    for name, (low, high) in figures["intervals"].items():
        assert low < figures[name] < high, name
    assert figures["intervals"].keys() == {"top1", "top5", "loss", "brier"}  # resampling biases a calibration error


def test_accuracy_and_loss_are_those_of_the_training():
    logits = LOGITS.copy()
    logits[0, :] = 1.0  # equal logits
    logits[1, 3] = np.nan
    task = Classification(9)
    mask = np.ones(400, bool)
    sums = jax.device_get(task.sums(*map(jax.numpy.asarray, (logits, LABELS, mask))))
    expected = task.summarize(jax.tree.map(np.atleast_1d, sums))
    figures = accuracy_figures(logits, LABELS, intervals=False)
    assert (figures["top1"], figures["top5"]) == (expected["top1"], expected["top5"])
    assert ranks(logits, LABELS)[1] == 9, "a broken network is never right"
    assert np.isnan(figures["loss"]) and np.isnan(expected["loss"])


def test_precision_and_recall_are_scikit_learn_s():
    predicted = np.where(LOGITS.argmax(-1) == 3, 4, LOGITS.argmax(-1))  # one class is never predicted
    names = [f"class {number}" for number in range(10)]  # and one has no examples
    columns = precision_recall_fscore_support(LABELS, predicted, labels=range(10), zero_division=0)
    expected = [
        dict(zip(("precision", "recall", "f1", "examples"), row, strict=True)) for row in zip(*columns, strict=True)
    ]
    assert list(class_figures(predicted, LABELS, names).values()) == expected
    counted = confusion_matrix(LABELS, predicted, labels=range(10))
    np.testing.assert_array_equal(confusion_counts(predicted, LABELS, 10), counted)


def test_a_class_that_never_comes_up_has_zeros():
    figures = class_figures(np.array([0, 0]), np.array([0, 1]), ["a", "b", "c"])
    assert figures["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "examples": 0}
    assert figures["a"]["precision"] == 0.5 and figures["b"]["recall"] == 0.0


def test_a_confusion_within_a_superclass_is_right():
    names = sorted(name for members in CIFAR100.values() for name in members)
    beaver, dolphin, trout = (names.index(name) for name in ("beaver", "dolphin", "trout"))
    figures = superclass_figures(np.array([dolphin, dolphin, trout]), np.array([beaver, trout, trout]), names)
    assert len(figures) == 20
    assert figures["aquatic_mammals"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "examples": 1}
    assert figures["fish"]["recall"] == 0.5 and figures["trees"]["examples"] == 0
    assert superclass_figures(np.array([0]), np.array([0]), ["a", "b"]) == {}


def test_the_superclasses_are_those_of_the_data_set(shared_data):
    from array_record.python.array_record_module import ArrayRecordReader
    from tensorflow_datasets.core.features import FeaturesDict

    folder = shared_data / "cifar100" / "3.0.2"
    features = FeaturesDict.from_config(str(folder))
    reader = ArrayRecordReader(str(folder / "cifar100-test.array_record-00000-of-00001"))
    names = data.load(DataConfig("cifar100", data_dir=str(shared_data))).class_names
    groups = (folder / "coarse_label.labels.txt").read_text().split()
    found: dict[str, set[str]] = {}
    for record in reader.read(list(range(2000))):
        example = features.deserialize_example_np(record)
        found.setdefault(groups[int(example["coarse_label"])], set()).add(names[int(example["label"])])
    assert found == {group: set(members) for group, members in CIFAR100.items()}
