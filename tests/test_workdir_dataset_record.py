"""The data of a run are recognized: the same ones go on, others are refused with what differs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from test_run_loop import run
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.data.dataset import Dataset, Split
from convnext_jax.errors import UserError
from convnext_jax.evaluate.offline import Selection, evaluate_workdir
from convnext_jax.run.prepare import check_same_data
from convnext_jax.workdir.dataset_record import DatasetRecord

DATASET = tiny_dataset()


def changed(split: str, images: np.ndarray, labels: np.ndarray) -> Dataset:
    return dataclasses.replace(DATASET, **{split: Split(images, labels)})


def one_pixel(split: Split) -> np.ndarray:
    images = split.images.copy()
    images[-1, 3, 3, 0] ^= 1
    return images


def masked(dataset: Dataset, shift: int = 0) -> Dataset:
    """A data set with masks of three classes."""
    splits = {}
    for name, split in dataset.splits.items():
        masks = (np.indices(split.images.shape[:3]).sum(0) + shift) % 3
        splits[name] = dataclasses.replace(split, masks=masks.astype(np.uint8))
    return dataclasses.replace(dataset, mask_names=("sky", "sea", "land"), **splits)


OTHERS = {
    "one more": (changed("train", *(np.concatenate([a, a[:1]]) for a in (DATASET.train.images, DATASET.train.labels))),
                 r"\(train: 40 examples then, 41 now\)"),
    "a pixel": (changed("test", one_pixel(DATASET.test), DATASET.test.labels), r"\(test: other pixels, labels or"),
    "a label": (changed("test", DATASET.test.images, np.roll(DATASET.test.labels, 1)), r"\(test: other pixels, labels"),
    "the order": (changed("train", DATASET.train.images[::-1], DATASET.train.labels[::-1]), r"\(train: other pixels"),
    "the size": (tiny_dataset(size=24), r"train: images of 16x16x3 then, 24x24x3 now; test: images of 16x16x3"),
    "the channels": (tiny_dataset(channels=1), r"\(3 channels then, 1 now; train: images of 16x16x3 then, 16x16x1 now"),
    "a class": (dataclasses.replace(DATASET, class_names=("class 0", "class 1", "cat", "class 3")),
                r"\(other classes \(without class 2; with cat\)\)"),
    "the order of classes": (dataclasses.replace(DATASET, class_names=DATASET.class_names[::-1]), "in another order"),
    "a split": (dataclasses.replace(DATASET, validation=DATASET.test), None),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_other_data_are_refused_with_what_differs(tmp_path: Path, what: str):
    other, message = OTHERS[what]
    DatasetRecord.of(DATASET).write(tmp_path)
    check_same_data(tmp_path, DatasetRecord.of(tiny_dataset()))
    if message is None:  # a split more does no harm
        check_same_data(tmp_path, DatasetRecord.of(other))
        return
    with pytest.raises(
        UserError, match=rf"the data of tiny are not those that the run in .*{message}.*another --workd"
    ):
        check_same_data(tmp_path, DatasetRecord.of(other))


def test_a_split_that_is_gone_is_named(tmp_path: Path):
    DatasetRecord.of(dataclasses.replace(DATASET, validation=DATASET.test)).write(tmp_path)
    with pytest.raises(UserError, match=r"\(validation: there is none now\)"):
        check_same_data(tmp_path, DatasetRecord.of(DATASET))


def test_a_record_of_version_1_knows_the_classes_alone(tmp_path: Path):
    fields = dataclasses.asdict(DatasetRecord.of(DATASET))
    del fields["splits"]
    (tmp_path / "dataset.json").write_text(json.dumps(fields))
    check_same_data(tmp_path, DatasetRecord.of(tiny_dataset(train=44)))
    with pytest.raises(UserError, match="other classes"):
        check_same_data(tmp_path, DatasetRecord.of(OTHERS["a class"][0]))


MASKED = masked(DATASET)
OTHER_MASKS = {
    "a pixel": (masked(DATASET, 1), r"\(train: other pixels, labels or masks, or another order; test: other pixels"),
    "a class": (dataclasses.replace(MASKED, mask_names=("sky", "sea", "ice")),
                r"\(other mask classes \(without land; with ice\)\)"),
    "the order": (dataclasses.replace(MASKED, mask_names=MASKED.mask_names[::-1]), "the mask classes in another order"),
    "all": (MASKED.without_masks(), r"\(other mask classes \(without sky, sea, land\); train: other pixels"),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER_MASKS)
def test_other_masks_are_refused_with_what_differs(tmp_path: Path, what: str):
    other, message = OTHER_MASKS[what]
    record = DatasetRecord.of(MASKED)
    record.write(tmp_path)
    assert DatasetRecord.read(tmp_path) == record and record.mask_names == ("sky", "sea", "land")
    check_same_data(tmp_path, DatasetRecord.of(masked(tiny_dataset())))
    with pytest.raises(UserError, match=message):
        check_same_data(tmp_path, DatasetRecord.of(other))


def test_without_masks_the_record_is_that_of_earlier_versions(tmp_path: Path):
    # The checksum that version 0.2 wrote of these data.
    record = DatasetRecord.of(DATASET)
    assert record.splits["test"].checksum == "945c858a45293a9a802f5027ecfea139a5c0870c171942dd3614915299954128"
    assert DatasetRecord.of(MASKED.without_masks()) == record
    fields = dataclasses.asdict(record)
    del fields["mask_names"]
    (tmp_path / "dataset.json").write_text(json.dumps(fields))
    assert DatasetRecord.read(tmp_path) == record
    fields["mask_names"] = [3]
    (tmp_path / "dataset.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match="it is damaged"):
        DatasetRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "it holds no settings"),
        ("{}", "lacks 'class_names'"),
        ('{"name": "x", "class_names": 3}', "it is damaged"),
    ],
)
def test_a_damaged_record_is_said_to_be_one(tmp_path: Path, text: str, message: str):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=rf"dataset\.json cannot be read .*{message}"):
        DatasetRecord.read(tmp_path)


def test_a_record_that_was_changed_is_not_believed(tmp_path: Path):
    DatasetRecord.of(DATASET).write(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace("class 1", "class 7"))
    with pytest.raises(UserError, match="it was changed or damaged; if you changed it on purpose, delete its checksum"):
        DatasetRecord.read(tmp_path)


def test_a_run_on_changed_data_neither_goes_on_nor_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    experiment = tiny_experiment(epochs=4)
    run(experiment, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    other = OTHERS["a pixel"][0]
    monkeypatch.setattr("test_run_loop.DATASET", other)
    with pytest.raises(UserError, match="begin a new run in another --workdir"):
        run(experiment, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    monkeypatch.setattr("convnext_jax.data.load", lambda config: other)
    with pytest.raises(UserError, match=r"give the right --data_dir, or evaluate on these with --data_changed ok"):
        evaluate_workdir(tmp_path)
    assert len(evaluate_workdir(tmp_path, Selection(data_changed=True))[0].examples) == 13
    monkeypatch.setattr("convnext_jax.data.load", lambda config: OTHERS["a class"][0])
    with pytest.raises(UserError, match=r"other classes .*give the right --data_dir$"):
        evaluate_workdir(tmp_path, Selection(data_changed=True))
