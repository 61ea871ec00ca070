"""Data sets prepared without TensorFlow, from small archives in the publishers' layouts."""

import dataclasses
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from convnext_jax.config import DataConfig
from convnext_jax.data import load, tfds_builders
from convnext_jax.data.dataset import Split
from convnext_jax.data.download import RemoteFile
from convnext_jax.data.load import holds_out_test
from convnext_jax.data.prepared import find_prepared
from convnext_jax.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture
def manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for archives made by hand, whose real checksums count as the official ones."""
    folder = tmp_path / "manual"
    folder.mkdir()
    official = tfds_builders.expected_files

    def expected_files(builder: tfds.core.DatasetBuilder, manual_dir: Path | None) -> dict[str, RemoteFile]:
        if builder.name == "tiny_imagenet":
            return official(builder, manual_dir)
        return {
            url: RemoteFile(builder.name, url, info.filename, _sha256(folder / info.filename))
            for url, info in official(builder, manual_dir).items()
        }

    monkeypatch.setattr(tfds_builders, "expected_files", expected_files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load(name: str, manual: Path, **fields: int | None) -> tuple[Path, dict[str, Split], tuple[str, ...]]:
    root = manual.parent / "data"
    dataset = load(DataConfig(name=name, data_dir=str(root), manual_dir=str(manual), **fields))
    return root, {"train": dataset.train, "test": dataset.test}, dataset.class_names


def _write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _pairs(images: np.ndarray, labels: np.ndarray) -> set[tuple[bytes, int]]:
    """Images with their labels, whatever their order: TFDS shuffles while it prepares."""
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_from_the_binary_archive(manual: Path, name: str, label_bytes: int) -> None:
    classes = int(name.removeprefix("cifar"))
    counts = {"train": 10, "test": 6}
    images = {split: RNG.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in counts.items()}
    labels = {split: RNG.integers(0, classes, n) for split, n in counts.items()}
    records = {
        split: [
            # The fine label comes last; planes of red, green and blue follow.
            bytes([7] * (label_bytes - 1) + [label]) + image.transpose(2, 0, 1).tobytes()
            for image, label in zip(images[split], labels[split], strict=True)
        ]
        for split in counts
    }
    fine = "\n".join(f"class {i}" for i in range(classes)).encode()
    if name == "cifar10":
        files = {f"data_batch_{i + 1}.bin": b"".join(records["train"][2 * i : 2 * i + 2]) for i in range(5)}
        files |= {"test_batch.bin": b"".join(records["test"]), "batches.meta.txt": fine}
        folder = "cifar-10-batches-bin"
    else:
        files = {"train.bin": b"".join(records["train"]), "test.bin": b"".join(records["test"])}
        files |= {"fine_label_names.txt": fine}
        files |= {"coarse_label_names.txt": "\n".join(f"coarse {i}" for i in range(20)).encode()}
        folder = "cifar-100-binary"
    archive = manual / f"cifar-{classes}-binary.tar.gz"
    _write_tar(archive, {f"{folder}/{file}": content for file, content in files.items()})

    root, splits, class_names = _load(name, manual)
    assert class_names == tuple(f"class {i}" for i in range(classes))
    for split in counts:
        loaded = splits[split]
        assert loaded.images.dtype == np.uint8 and loaded.labels.dtype == np.int32
        assert _pairs(loaded.images, loaded.labels) == _pairs(images[split], labels[split])
    # TFDS itself reads what was prepared, by its ordinary interface, in the same order.
    builder: Any = tfds.builder(name, data_dir=root)
    stock = builder.as_data_source(split="train")
    assert len(stock) == 10
    for index, example in enumerate(stock):
        np.testing.assert_array_equal(example["image"], splits["train"].images[index])
        assert example["label"] == splits["train"].labels[index]
    assert not list(root.glob("downloads/*/extracted-*")), "unpacked archives are removed"


def test_gray_images_stay_gray_unless_other_channels_are_asked_for(manual: Path) -> None:
    images = {split: RNG.integers(0, 256, (n, 28, 28, 1), np.uint8) for split, n in (("train", 6), ("test", 4))}
    labels = {split: np.arange(len(images[split])) for split in images}
    with zipfile.ZipFile(manual / "mnist_c.zip", "w") as archive:
        for split in images:
            for name, array in (("images", images[split]), ("labels", labels[split])):
                with archive.open(f"mnist_c/identity/{split}_{name}.npy", "w") as file:
                    np.save(file, array)
    for channels, expected in ((None, images["test"]), (3, np.repeat(images["test"], 3, axis=-1)), (1, images["test"])):
        _, splits, class_names = _load("mnist_corrupted/identity", manual, channels=channels)
        assert class_names == tuple("0123456789")
        assert splits["train"].images.shape == (6, 28, 28, channels or 1)
        assert _pairs(splits["test"].images, splits["test"].labels) == _pairs(expected, labels["test"])


class ColorAndAlpha(tfds.core.GeneratorBasedBuilder):
    """A data set of four channels. TFDS knows it once the class is there."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(8, 8, 4)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(6), "test": self._generate_examples(4)}

    def _generate_examples(self, count: int) -> Any:
        rng = np.random.default_rng(count)
        for index in range(count):
            yield index, {"image": rng.integers(0, 256, (8, 8, 4), np.uint8), "label": index % 2}


def test_a_data_set_keeps_the_four_channels_that_it_declares(manual: Path) -> None:
    expected = np.random.default_rng(4).integers(0, 256, (4, 8, 8, 4), np.uint8)
    _, splits, class_names = _load("color_and_alpha", manual)
    assert class_names == ("0", "1") and splits["train"].images.shape == (6, 8, 8, 4)
    assert _pairs(splits["test"].images, splits["test"].labels) == _pairs(expected, np.array([0, 1, 0, 1]))
    _, splits, _ = _load("color_and_alpha", manual, channels=3)
    share = expected[..., 3:] / 255
    on_white = np.round(share * expected[..., :3] + (1 - share) * 255).astype(np.uint8)
    assert _pairs(splits["test"].images, splits["test"].labels) == _pairs(on_white, np.array([0, 1, 0, 1]))


def test_matlab_files_and_a_resize(manual: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    for split in ("train", "test", "extra"):
        pixels = np.full((32, 32, 3, 5), 200, np.uint8)
        scipy_io.savemat(manual / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[1], [2], [3], [10], [10]])})
    _, splits, _ = _load("svhn_cropped", manual, image_size=16)
    assert splits["train"].images.shape == (5, 16, 16, 3)
    assert sorted(splits["train"].labels) == [0, 0, 1, 2, 3]


def _jpeg(mode: str) -> bytes:
    shape = (64, 64) if mode == "L" else (64, 64, 3)
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(buffer, "jpeg")
    return buffer.getvalue()


def _tiny_imagenet(path: Path) -> dict[str, bytes]:
    """Writes a Tiny ImageNet archive of three classes; returns the JPEG bytes by file name."""
    wnids = ["n03", "n01", "n02"]  # not in alphabetical order
    pictures = {f"train/{w}/images/{w}_{i}.JPEG": _jpeg("L" if i == 0 else "RGB") for w in wnids for i in range(3)}
    pictures |= {f"val/images/val_{i}.JPEG": _jpeg("RGB") for i in range(3)}
    files = dict(pictures)
    files["test/images/test_0.JPEG"] = _jpeg("RGB")
    files["wnids.txt"] = "\n".join(wnids).encode()
    files["words.txt"] = b"n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tcrane\nn03\tcrane\n"
    files["val/val_annotations.txt"] = b"".join(
        b"val_%d.JPEG\t%s\t0\t0\t9\t9\n" % (i, w.encode()) for i, w in enumerate(wnids)
    )
    files["train/n01/n01_boxes.txt"] = b"n01_0.JPEG\t0\t0\t9\t9\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    return {name.rsplit("/", 1)[1]: content for name, content in pictures.items()}


def _declare(archive: Path) -> None:
    Path(f"{archive}.sha256").write_text(f"{_sha256(archive)}  {archive.name}\n")


def test_tiny_imagenet_keeps_the_jpeg_bytes(manual: Path) -> None:
    archive = manual / "tiny-imagenet-200-mine.zip"
    pictures = _tiny_imagenet(archive)
    _declare(archive)
    root, splits, class_names = _load("tiny_imagenet", manual)
    assert class_names == ("crane (n03)", "goldfish, Carassius auratus", "crane (n02)")
    assert [len(splits[s]) for s in ("train", "test")] == [9, 3]
    variant = f"tiny_imagenet/archive_{_sha256(archive)[:12]}"
    folder = find_prepared(root, variant)
    assert folder is not None
    builder: Any = tfds.builder_from_directory(builder_dir=folder)
    wnids = ("n03", "n01", "n02")
    for name, split in (("train", "train"), ("validation", "test")):
        source = builder.as_data_source(split=name, decoders={"image": tfds.decode.SkipDecoding()})
        for index, example in enumerate(source):
            file_name = example["file_name"].decode()
            assert example["image"] == pictures[file_name]
            image = splits[split].images[index]
            with Image.open(io.BytesIO(pictures[file_name])) as expected:
                np.testing.assert_array_equal(image, np.asarray(expected.convert("RGB")))
            if split == "train":
                assert splits[split].labels[index] == wnids.index(file_name[:3])
    gray = [image for image in splits["train"].images if (image == image[..., :1]).all()]
    assert len(gray) == 3, "the gray JPEGs are there, as RGB"


def test_another_archive_is_never_taken_for_the_official_one(manual: Path) -> None:
    archive = manual / "tiny-imagenet-200.zip"
    _tiny_imagenet(archive)
    _declare(archive)
    root, _, _ = _load("tiny_imagenet", manual)
    assert find_prepared(root, "tiny_imagenet") is None
    archive.unlink()  # the checksum beside it is enough to find the prepared data again
    _, splits, _ = _load("tiny_imagenet", manual)
    assert len(splits["train"]) == 9


def test_an_undeclared_archive_is_refused_and_left_alone(manual: Path) -> None:
    archive = manual / "tiny-imagenet-200.zip"
    _tiny_imagenet(archive)
    both = f"SHA-256 {_sha256(archive)} .*expected 6198c8ae015e"
    with pytest.raises(UserError, match=both):
        _load("tiny_imagenet", manual)
    assert archive.exists()
    archive.rename(manual / "tiny-imagenet-200-mine.zip")
    with pytest.raises(UserError, match="sha256sum tiny-imagenet-200-mine.zip > tiny-imagenet-200-mine.zip.sha256"):
        _load("tiny_imagenet", manual)


def test_a_declared_checksum_must_hold(manual: Path) -> None:
    archive = manual / "tiny-imagenet-200-mine.zip"
    _tiny_imagenet(archive)
    _declare(archive)
    with archive.open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=f"SHA-256 {_sha256(archive)}"):
        _load("tiny_imagenet", manual)
    Path(f"{archive}.sha256").write_text("not a checksum\n")
    with pytest.raises(UserError, match="does not begin with a SHA-256"):
        _load("tiny_imagenet", manual)


def test_an_archive_of_another_layout_is_refused(manual: Path) -> None:
    archive = manual / "tiny-imagenet-200-mine.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "nothing")
    _declare(archive)
    with pytest.raises(UserError, match="not laid out like tiny-imagenet-200.zip.*wnids.txt"):
        _load("tiny_imagenet", manual)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imdb_reviews", "not for image classification"),
        ("cats_vs_dogs", "images of several sizes: give one, .*--config.data.image_size=64"),
        ("emnist/ballanced", "cannot be used: BuilderConfig ballanced not found"),
    ],
)
def test_unsuitable_data_is_refused_before_any_download(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(DataConfig(name=name, data_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_a_prepared_folder_that_lost_a_file_is_refused(manual: Path) -> None:
    archive = manual / "tiny-imagenet-200-mine.zip"
    _tiny_imagenet(archive)
    _declare(archive)
    root, _, _ = _load("tiny_imagenet", manual)
    record = next(root.glob("tiny_imagenet/*/*/*-train.array_record*"))
    content = record.read_bytes()
    record.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is damaged .*delete that folder and prepare it again"):
        _load("tiny_imagenet", manual)
    record.unlink()
    with pytest.raises(UserError, match="split train has 0 of its 1 record files"):
        _load("tiny_imagenet", manual)


class TrainAlone(tfds.core.GeneratorBasedBuilder):
    """A data set as `tf_flowers` and `eurosat` are: nothing to test on."""

    VERSION = tfds.core.Version("1.0.0")
    LABELS = {"train": [0, 1] * 10}

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {name: self._generate_examples(name) for name in self.LABELS}

    def _generate_examples(self, split: str) -> Any:
        for index, label in enumerate(self.LABELS[split]):
            shade = 10 * index + 5 * list(self.LABELS).index(split)
            yield index, {"image": np.full((8, 8, 3), shade, np.uint8), "label": label}


class UnlabeledTest(TrainAlone):
    """A data set as `imagenet2012` is: the labels of its test split are secret."""

    LABELS = {"test": [-1] * 3, "train": [0, 1] * 4, "validation": [1, 0, 1]}


def test_without_a_test_split_the_share_that_is_held_out_of_train_is_tested_on(manual: Path) -> None:
    with pytest.raises(
        UserError, match=r"has no split test or validation \(it has train\): .*validation_fraction=0\.1"
    ):
        _load("train_alone", manual)
    config = DataConfig("train_alone", data_dir=str(manual.parent / "data"), validation_fraction=0.3)
    dataset = load(config)
    assert dataset.validation is None and dataset.evaluated[0] == "test"
    assert np.bincount(dataset.test.labels).tolist() == [3, 3] and np.bincount(dataset.train.labels).tolist() == [7, 7]
    everything = _pairs(dataset.train.images, dataset.train.labels) | _pairs(dataset.test.images, dataset.test.labels)
    assert everything == _pairs(
        np.repeat(np.arange(20) * 10, 192).astype(np.uint8).reshape(20, 8, 8, 3), np.arange(20) % 2
    )
    # The statistics are those of the examples that are left, and the same data come from the cache.
    np.testing.assert_allclose(dataset.mean, dataset.train.images.mean((0, 1, 2)) / 255, rtol=1e-6)
    again = load(config)
    np.testing.assert_array_equal(again.test.images, dataset.test.images)
    assert holds_out_test(config) and not holds_out_test(dataclasses.replace(config, name="cifar10"))


def test_a_test_split_without_labels_gives_way_to_the_validation_split(manual: Path) -> None:
    _, splits, _ = _load("unlabeled_test", manual)
    assert len(splits["train"]) == 8 and sorted(splits["test"].labels) == [0, 1, 1]
    assert sorted(splits["test"].images[:, 0, 0, 0]) == [10, 20, 30]


def test_a_folder_of_the_data_set_itself_is_not_taken_for_the_one_that_holds_it(
    manual: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _, _ = _load("unlabeled_test", manual)
    before = sorted(root.rglob("*"))
    monkeypatch.chdir(root)
    for wrong in (root / "unlabeled_test", root / "unlabeled_test" / "1.0.0", Path("unlabeled_test")):
        with pytest.raises(UserError, match=rf"{wrong} is a folder of unlabeled_test .*data_dir={root}$"):
            load(DataConfig("unlabeled_test", data_dir=str(wrong)))
    assert sorted(root.rglob("*")) == before
    load(DataConfig("unlabeled_test", data_dir=str(root.parent)))
    assert f"unlabeled_test is in {root} already: to use it, give --config.data.data_dir={root}" in caplog.text
