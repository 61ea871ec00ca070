"""Loads the data set of a configuration: from the cache if there is one, else by preparing and decoding it."""

import dataclasses
import logging
import os
from pathlib import Path

from convnext_jax.config import DataConfig
from convnext_jax.data.cache import CacheKey, build_cache, open_cache
from convnext_jax.data.dataset import Dataset
from convnext_jax.data.digit_scenes import load_digit_scenes
from convnext_jax.data.digits import load_digits
from convnext_jax.data.image_folder import find_test_folder, load_image_folder
from convnext_jax.data.mask_classes import tfds_mask_classes
from convnext_jax.data.mask_folder import load_mask_folder
from convnext_jax.data.prepared import (
    INFO_FILE,
    PreparedInfo,
    RecordSource,
    data_root,
    find_prepared,
    read_info,
)
from convnext_jax.data.prepared_features import Features, read_features
from convnext_jax.data.registry import FOLDER_NAMES, MADE_NAMES, OWN_NAMES, STREAMED_NAMES, check_name
from convnext_jax.data.splitting import hold_out_validation
from convnext_jax.data.tiny_imagenet_archive import choose_archive
from convnext_jax.errors import UserError
from convnext_jax.storage.cloud import is_cloud, local_copy, to_path
from convnext_jax.storage.files import exclusive, expanded, is_writable, sweep, user_cache_folder

TEST_SPLITS = ("test", "validation")  # of a TFDS data set; the first that has labels is tested on

log = logging.getLogger(__name__)


def load(config: DataConfig) -> Dataset:
    """Loads a data set. Downloads, prepares and decodes it first if that has not been done.

    Args:
      config: the data set, its folder, the size and channels of its images, and the share of the training split that is
        held out for validation.

    Returns:
      The data set. Its images are memory-mapped from the cache, or copied to memory if some of them are held out.

    Raises:
      UserError: anything that the user can fix, such as an unknown name, missing data or an unusable picture.
    """
    check_name(config.name)
    on_disk = _on_disk(config)
    dataset = _load(on_disk)
    if on_disk is config:
        return dataset
    bucket = (config.data_dir or os.environ["TFDS_DATA_DIR"]).rstrip("/")
    return dataclasses.replace(dataset, origin=dataset.origin.replace(str(on_disk.data_dir), bucket))


def _load(config: DataConfig) -> Dataset:
    if config.name == "image_folder":
        return load_image_folder(config)
    if config.name == "mask_folder":
        return load_mask_folder(config)
    if config.name == "digits":
        dataset = load_digits(config.image_size, config.channels or 3)
    elif config.name == "digit_scenes":
        dataset = load_digit_scenes(config.image_size, config.channels or 3)
    else:
        dataset = _load_prepared(config)
    if not config.validation_fraction:
        return dataset
    # The order of the examples never changes, so an example is named by its index.
    dataset = hold_out_validation(dataset, config.validation_fraction, list(map(str, range(len(dataset.train)))))
    if len(dataset.test) or dataset.validation is None:
        return dataset
    return dataclasses.replace(dataset, test=dataset.validation, validation=None)


def holds_out_test(config: DataConfig) -> bool:
    """Returns whether the share that is held out of train is the test split, since the data set has none.

    Of a TFDS data set this is known once it is prepared; before that the answer is False.
    """
    if config.name in FOLDER_NAMES:
        if config.data_dir is None:
            return False
        folder = to_path(config.data_dir)
        return find_test_folder(folder if is_cloud(folder) else expanded(config.data_dir)) is None
    prepared = None if config.name in OWN_NAMES else find_prepared(data_root(config.data_dir), config.name)
    return prepared is not None and not any(map(read_info(prepared).splits.get, TEST_SPLITS))


def _on_disk(config: DataConfig) -> DataConfig:
    """Returns the settings with a folder on the disk: a copy if the data are in a bucket."""
    if config.name in MADE_NAMES:
        return config
    # The variable is about prepared data sets, not about folders of pictures.
    elsewhere = None if config.name in FOLDER_NAMES else os.environ.get("TFDS_DATA_DIR")
    folder = to_path(config.data_dir or elsewhere or ".")
    if not is_cloud(folder):
        return config
    cache = user_cache_folder() / "buckets"
    with exclusive(cache / ".lock"):
        if config.name in FOLDER_NAMES:
            return dataclasses.replace(config, data_dir=str(local_copy(folder, cache)))
        return dataclasses.replace(config, data_dir=str(local_copy(folder, cache, only=config.name)))


def _load_prepared(config: DataConfig) -> Dataset:
    root = data_root(config.data_dir)
    manual_dir = _manual_dir(config)
    prepared = find_prepared(root, _name_on_disk(config.name, manual_dir))
    streamed = config.name in STREAMED_NAMES
    if streamed:
        _check_streamed(config)
    if prepared is None:
        _look_nearby(root, config.name)
        if streamed:
            raise UserError(
                f"{config.name} is not in {root}: ImageNet cannot be fetched for you. Prepare it with TFDS,"
                " file_format='array_record', and name the folder above it with --config.data.data_dir=DIR"
            )
        prepared = _prepare(config, root, manual_dir)
    info = read_info(prepared)
    has_test = any(map(info.splits.get, TEST_SPLITS))
    if not has_test and not config.validation_fraction:
        raise UserError(
            f"the data set in {prepared} has no split {' or '.join(TEST_SPLITS)} (it has {', '.join(info.splits)}):"
            " hold out a share of its training examples with --config.data.validation_fraction=0.1"
        )
    features = read_features(prepared)
    encoded = _source(info, features, "train") if streamed else None
    masks = tfds_mask_classes(config.name) if features.masked and not streamed else None
    channels = config.channels or features.channels
    key = CacheKey(config.name, prepared, info.fingerprint, config.image_size, channels, encoded=encoded, masks=masks)
    dataset = open_cache(key)
    if dataset is None:
        sources = {"train": _source(info, features, "train")}
        if has_test:
            sources["test"] = _labeled_source(info, features, *TEST_SPLITS)
        dataset = build_cache(key, sources, features.class_names)
    return dataset


def _check_streamed(config: DataConfig) -> None:
    """Raises UserError for what cannot be done with pictures that stay encoded."""
    if config.validation_fraction:
        raise UserError(
            f"config.data.validation_fraction={config.validation_fraction:g}: no examples can be held out of"
            f" {config.name}, whose training pictures stay encoded; leave it out"
        )
    if config.name == "imagenet2012" and config.image_size is None:
        raise UserError(
            "imagenet2012 has images of several sizes: give one, for example --config.data.image_size=224; with"
            " config.augment.resized_crop_area=0.08 a random rectangle of each is trained on"
        )


def _manual_dir(config: DataConfig) -> Path | None:
    if config.manual_dir is None:
        return None
    folder = expanded(config.manual_dir)
    if not folder.is_dir():
        raise UserError(f"manual_dir {folder} does not exist: put the archive there, or leave manual_dir out")
    return folder


def _look_nearby(root: Path, name: str) -> None:
    """Refuses a folder within the data set itself, and warns if the data set lies in a folder of the given one.

    Otherwise it would be downloaded once more, into the wrong place.
    """
    inside = root.absolute()
    for above in inside.parents:
        if inside.is_relative_to(above / name.partition("/")[0]) and find_prepared(above, name):
            raise UserError(
                f"{root} is a folder of {name} itself: give the one that holds all data sets, with"
                f" --config.data.data_dir={above}"
            )
    for below in sorted(root.glob("*/")):
        if find_prepared(below, name):
            log.warning("%s is in %s already: to use it, give --config.data.data_dir=%s", name, below, below)
            return


def _name_on_disk(name: str, manual_dir: Path | None) -> str:
    """Returns the folder of a data set, relative to the root."""
    if name == "tiny_imagenet":
        variant = choose_archive(manual_dir).variant
        return name if variant is None else f"{name}/{variant}"
    return name


def _prepare(config: DataConfig, root: Path, manual_dir: Path | None) -> Path:
    # TFDS takes a second to import, so it is imported only if data has to be prepared.
    from convnext_jax.data import tfds_builders

    builder = tfds_builders.make_builder(config.name, root, manual_dir)
    tfds_builders.check_features(builder, config.image_size)
    folder = Path(builder.data_dir)
    if (folder / INFO_FILE).is_file():  # happens if the name does not include the configuration
        return folder
    if not is_writable(root):
        raise UserError(
            f"data set {config.name} is not in {root}, and nothing can be written there: "
            "give the folder that holds it, or one that can be written to, with --config.data.data_dir"
        )
    with exclusive(root / f".{builder.name}.lock"):
        if not (folder / INFO_FILE).is_file():  # else another process has prepared it meanwhile
            sweep(folder.parent, f"incomplete.*_{folder.name}")  # left behind by a killed process
            _hint_at_other_archives(config.name, folder)
            log.warning("preparing %s in %s", config.name, folder)
            try:
                tfds_builders.prepare(builder, manual_dir)
            except UserError as error:
                raise UserError(f"{config.name} is not in {root} yet, and cannot be prepared: {error}") from error
    return folder


def _hint_at_other_archives(name: str, folder: Path) -> None:
    """Warns about data from the user's own archive, which is used only if the folder of the archive is given."""
    if name != "tiny_imagenet":
        return
    for other in sorted(folder.parent.glob("archive_*")):
        log.warning("%s is from another archive: to use it, give the manual_dir with its .sha256 file", other)


def _source(info: PreparedInfo, features: Features, name: str) -> RecordSource:
    if info.splits.get(name):
        return RecordSource(info.folder, name, info.splits[name], bool(features.class_names), features.masked)
    raise UserError(f"the data set in {info.folder} has no split {name} (it has {', '.join(info.splits)})")


def _labeled_source(info: PreparedInfo, features: Features, *names: str) -> RecordSource:
    """Returns the first of the splits that has labels. Those of a competition's test split are -1."""
    sources = [_source(info, features, name) for name in names if info.splits.get(name)]
    labeled = (source for source in sources if all(picture.label >= 0 for picture in source.read(0, 1)))
    return next(labeled, sources[0])
