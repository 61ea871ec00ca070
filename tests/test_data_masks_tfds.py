"""Masks in data sets of TFDS: prepared and read without TensorFlow, and classes for their values."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from convnext_jax.config import DataConfig
from convnext_jax.data import Dataset, load, tfds_builders
from convnext_jax.data.download import RemoteFile
from convnext_jax.data.prepared import find_prepared
from convnext_jax.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (8, 6, 3), np.uint8)


def mask_of(index: int) -> np.ndarray:
    """A mask, uint8 [8,6,1], of the classes 0 to 3 and of pixels to ignore."""
    return np.random.default_rng(index).choice(np.array([0, 1, 3, 255], np.uint8), (8, 6, 1))


class Streets(tfds.core.GeneratorBasedBuilder):
    """Pictures with masks and labels. TFDS knows the data set once the class is there."""

    VERSION = tfds.core.Version("1.0.0")
    CHANNELS = 1

    def _features(self) -> dict[str, Any]:
        return {
            "image": tfds.features.Image(shape=(8, 6, 3)),
            "segmentation_mask": tfds.features.Image(shape=(8, 6, self.CHANNELS)),
            "label": tfds.features.ClassLabel(names=["town", "village"]),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self._features()))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(range(6)), "test": self._generate_examples(range(6, 9))}

    def _mask(self, index: int) -> Any:
        return mask_of(index)

    def _generate_examples(self, indices: range) -> Any:
        for index in indices:
            example = {"image": pixels(index), "segmentation_mask": self._mask(index), "label": index % 2}
            yield index, {name: value for name, value in example.items() if name in self._features()}


class StreetsWithoutLabels(Streets):
    """Pictures with masks and nothing else."""

    def _features(self) -> dict[str, Any]:
        return {name: feature for name, feature in super()._features().items() if name != "label"}


class StreetsInColors(Streets):
    """Masks with a color for each class, whose meaning is not known."""

    CHANNELS = 3

    def _mask(self, index: int) -> Any:
        return pixels(index)


class StreetsInColorsAlone(StreetsInColors, StreetsWithoutLabels):
    """The same, without labels."""


class StreetsWithAnotherClass(Streets):
    """A test mask with a class that the training masks lack."""

    def _mask(self, index: int) -> Any:
        return np.full((8, 6, 1), 9, np.uint8) if index == 8 else super()._mask(index)


class StreetsCutOff(Streets):
    """A mask that is smaller than its picture, as bytes of a PNG."""

    def _mask(self, index: int) -> Any:
        mask = super()._mask(index)
        return io.BytesIO(tfds_builders.encode_png(mask[1:] if index == 4 else mask))


def read(name: str, tmp_path: Path, **fields: Any) -> Dataset:
    return load(DataConfig(name, data_dir=str(tmp_path / "data"), **fields))


@pytest.mark.parametrize("name", ["streets", "streets_without_labels"])
def test_masks_with_and_without_labels(tmp_path: Path, name: str) -> None:
    for _ in range(2):  # prepared and decoded, and from the cache
        dataset = read(name, tmp_path)
        assert dataset.mask_names == ("0", "1", "2", "3"), "up to the largest of the training masks"
        assert dataset.class_names == (("town", "village") if name == "streets" else ())
        for split, indices in ((dataset.train, range(6)), (dataset.test, range(6, 9))):
            assert split.masks is not None and isinstance(split.masks, np.memmap) and split.masks.dtype == np.uint8
            # TFDS shuffles while it prepares.
            found = {
                (image.tobytes(), mask.tobytes(), int(label))
                for image, mask, label in zip(split.images, split.masks, split.labels, strict=True)
            }
            labels = {index: index % 2 if name == "streets" else 0 for index in indices}
            assert found == {(pixels(i).tobytes(), mask_of(i).tobytes(), labels[i]) for i in indices}
    # TFDS reads the same masks itself.
    builder: Any = tfds.builder(name, data_dir=tmp_path / "data")
    for index, example in enumerate(builder.as_data_source(split="train")):
        assert dataset.train.masks is not None
        np.testing.assert_array_equal(example["segmentation_mask"][..., 0], dataset.train.masks[index])


def test_a_share_is_held_out_with_its_masks(tmp_path: Path) -> None:
    dataset = read("streets_without_labels", tmp_path, validation_fraction=0.5)
    assert dataset.validation is not None and len(dataset.validation) == len(dataset.train) == 3
    known = {pixels(index).tobytes(): mask_of(index).tobytes() for index in range(6)}
    for split in (dataset.train, dataset.validation):
        assert split.masks is not None
        assert all(known[i.tobytes()] == m.tobytes() for i, m in zip(split.images, split.masks, strict=True))


def test_masks_in_colors_are_left_out(tmp_path: Path) -> None:
    dataset = read("streets_in_colors", tmp_path)
    assert dataset.train.masks is None and dataset.mask_names == () and dataset.class_names == ("town", "village")
    with pytest.raises(UserError, match="not for image classification or segmentation: .* or `segmentation_mask`$"):
        read("streets_in_colors_alone", tmp_path)
    assert find_prepared(tmp_path / "data", "streets_in_colors_alone") is None


def test_prepared_data_without_labels_and_masks_are_refused(tmp_path: Path) -> None:
    read("streets_without_labels", tmp_path)
    folder = find_prepared(tmp_path / "data", "streets_without_labels")
    assert folder is not None
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"segmentation_mask"', '"other"'))
    with pytest.raises(UserError, match="not for image classification or segmentation: .* or `segmentation_mask`$"):
        read("streets_without_labels", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("streets_with_another_class", r"^mask test\[\d\] of .* has the value 9, and the training masks have 0 to 3"),
        ("streets_cut_off", r"^mask train\[\d\] of .* has 6x7 pixels and its picture train\[\d\] of .* has 6x8: give"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(name, tmp_path)


# --- oxford_iiit_pet, from small archives in the publisher's layout

BREEDS = {"Abyssinian_5": 1, "pug_1": 26, "Siamese_2": 33, "pug_3": 26}  # TFDS makes a new JPEG of the first
TRIMAP = np.repeat(np.repeat([[1, 2], [3, 2]], 10, 0), 20, 1).astype(np.uint8)  # pet, background, border


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both archives, whose checksums count as the official ones."""
    folder = tmp_path / "manual"
    folder.mkdir()
    write_pets(folder, TRIMAP)
    official = tfds_builders.expected_files

    def expected_files(builder: tfds.core.DatasetBuilder, manual_dir: Path | None) -> dict[str, RemoteFile]:
        return {
            url: RemoteFile(builder.name, url, info.filename, sha256(folder / info.filename))
            for url, info in official(builder, manual_dir).items()
        }

    monkeypatch.setattr(tfds_builders, "expected_files", expected_files)
    return folder


def write_pets(folder: Path, trimap: np.ndarray) -> None:
    lines = [f"{name} {breed} 1 1" for name, breed in BREEDS.items()]
    annotations = {"trainval.txt": "\n".join(lines[:3]).encode(), "test.txt": lines[3].encode()}
    annotations |= {f"trimaps/{name}.png": encoded(trimap, "png") for name in BREEDS}
    annotations["trimaps/._pug_1.png"] = b"what macOS left"
    images = {f"{name}.jpg": encoded(np.full((20, 40, 3), 7 * i, np.uint8), "jpeg") for i, name in enumerate(BREEDS)}
    for name, files in (("images", images), ("annotations", annotations)):
        with tarfile.open(folder / f"{name}.tar.gz", "w") as tar:  # not compressed, as theirs
            for file, content in files.items():
                member = tarfile.TarInfo(f"{name}/{file}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_pets(tmp_path: Path, pets: Path) -> None:
    with pytest.raises(UserError, match=r"oxford_iiit_pet has images of several sizes: give one, .*image_size=64"):
        read("oxford_iiit_pet", tmp_path, manual_dir=str(pets))
    for _ in range(2):
        dataset = read("oxford_iiit_pet", tmp_path, manual_dir=str(pets), image_size=20)
        assert dataset.mask_names == ("pet", "background", "border") and len(dataset.class_names) == 37
        assert sorted(dataset.class_names[label] for label in dataset.train.labels) == ["Abyssinian", "Siamese", "pug"]
        assert dataset.test.labels.tolist() == [25] and dataset.test.images[0, 0, 0].tolist() == [21] * 3
        for split in (dataset.train, dataset.test):
            assert split.masks is not None
            np.testing.assert_array_equal(split.masks, [TRIMAP[:, 10:30] - 1] * len(split))
        assert sorted(dataset.train.images[:, 0, 0, 0]) == [0, 7, 14]
    assert "37 classes, masks of 3 classes, 20x20x3" in dataset.describe()


def test_a_trimap_of_another_value_is_refused(tmp_path: Path, pets: Path) -> None:
    write_pets(pets, TRIMAP - 1)
    with pytest.raises(UserError, match=r"^mask train\[0\] of .* has the value 0, and the classes are 1 to 3"):
        read("oxford_iiit_pet", tmp_path, manual_dir=str(pets), image_size=20)
