"""Names of data sets, and what a name may cost."""

import subprocess
import sys
from pathlib import Path

import pytest

from convnext_jax.config import DataConfig
from convnext_jax.data import check_name, dataset_names, load
from convnext_jax.data.registry import Extent, known_extent
from convnext_jax.errors import UserError


@pytest.mark.parametrize("name", [*dataset_names(), "fashion_mnist", "svhn_cropped", "emnist/balanced"])
def test_known_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cifar1000", "cifar100"),
        ("digit", "digits"),
        ("digit_scene", "digit_scenes"),
        ("oxford_pet", "oxford_iiit_pet"),
        ("tiny-imagenet", "tiny_imagenet"),
        ("fashion_mnits", "fashion_mnist"),
        ("svhn_croped/x", "svhn_cropped"),
    ],
)
def test_unknown_names_get_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"unknown data set '{name}': did you mean {nearest}"):
        check_name(name)


@pytest.mark.parametrize("name", ["", "../cifar10", "digits/x", "cifar10:3.0.2", "qqqqqqqq"])
def test_names_that_resemble_nothing(name: str) -> None:
    with pytest.raises(UserError, match="unknown data set"):
        check_name(name)


def test_own_names_import_nothing_slow() -> None:
    code = (
        "import sys\n"
        "from convnext_jax.data import check_name, dataset_names, load\n"
        "from convnext_jax.tools import prepare\n"
        "for name in dataset_names(): check_name(name)\n"
        "slow = {'jax', 'tensorflow_datasets', 'sklearn', 'scipy', 'matplotlib', 'tensorflow'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


DIGITS = (DataConfig("digits"), DataConfig("digits", image_size=12, channels=1))


@pytest.mark.parametrize(
    "config", [*DIGITS, DataConfig("digit_scenes"), DataConfig("digit_scenes", image_size=20, channels=1)]
)
def test_what_is_known_of_a_data_set_before_it_is_loaded_is_so(config: DataConfig) -> None:
    dataset = load(config)
    examples, height, width, channels = dataset.train.images.shape
    counts = len(dataset.class_names), examples, channels, len(dataset.mask_names)
    assert known_extent(config) == Extent(height, width, *counts)


def test_of_images_of_several_sizes_the_extent_is_known_with_a_size() -> None:
    assert known_extent(DataConfig("oxford_iiit_pet")) is None
    extent = known_extent(DataConfig("oxford_iiit_pet", image_size=128))
    assert extent == Extent(128, 128, 37, 3_680, mask_classes=3)


def test_of_the_users_own_pictures_nothing_is_known() -> None:
    assert known_extent(DataConfig("image_folder")) is None and known_extent(DataConfig("mask_folder")) is None


def test_a_manual_dir_that_is_not_there(tmp_path: Path) -> None:
    config = DataConfig(name="tiny_imagenet", data_dir=str(tmp_path), manual_dir=str(tmp_path / "none"))
    with pytest.raises(UserError, match="manual_dir .*none does not exist"):
        load(config)


def test_missing_data_in_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match="cifar10 is not in .* nothing can be written there.*data_dir"):
        load(DataConfig(name="cifar10", data_dir=str(tmp_path)))


def test_prepared_data_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "imdb_reviews" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "imdb_reviews-train.array_record-00000-of-00001").write_bytes(b"")
    (folder / "imdb_reviews-test.array_record-00000-of-00001").write_bytes(b"")
    splits = ", ".join(f'{{"name": "{split}", "shardLengths": ["5"]}}' for split in ("train", "test"))
    (folder / "dataset_info.json").write_text(f'{{"fileFormat": "array_record", "splits": [{splits}]}}')
    (folder / "features.json").write_text('{"featuresDict": {"features": {"text": {"text": {}}}}}')
    with pytest.raises(UserError, match="is not for image classification"):
        load(DataConfig(name="imdb_reviews", data_dir=str(tmp_path)))
    (folder / "features.json").unlink()
    with pytest.raises(UserError, match="is damaged .*features.json"):
        load(DataConfig(name="imdb_reviews", data_dir=str(tmp_path)))


def test_data_of_tensorflow_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    splits = '"splits": [{"name": "train", "shardLengths": ["5"]}]'
    (folder / "dataset_info.json").write_text('{"fileFormat": "tfrecord", ' + splits + "}")
    with pytest.raises(UserError, match="holds tfrecord files, which cannot be read without TensorFlow"):
        load(DataConfig(name="cifar10", data_dir=str(tmp_path)))
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="prepared data in .* is damaged .*dataset_info.json"):
        load(DataConfig(name="cifar10", data_dir=str(tmp_path)))
