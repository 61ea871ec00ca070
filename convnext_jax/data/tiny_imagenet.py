"""Tiny ImageNet as a TFDS builder: 200 classes, 64x64 pixels, with the original JPEG bytes."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from convnext_jax.data.archive_bounds import Bounds
from convnext_jax.data.archives import ZipArchive, open_zip
from convnext_jax.data.tiny_imagenet_archive import OFFICIAL, TinyImagenetArchive
from convnext_jax.errors import UserError, first_line

ROOT = "tiny-imagenet-200"
# The official archive has 120,609 files of 237 MB, most of them JPEGs of 2 KB. The pixels alone would be 1.5 GB.
BOUNDS = Bounds(total=2 << 30, member=16 << 20, count=1_000_000)


class TinyImagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder of Tiny ImageNet, without its unlabeled test split.

    If the archive is not the official one, the data has a separate configuration, named after the checksum of the
    archive. So it is never in the folder of the official data.

    Args:
      archive: the archive with the data.
      **kwargs: see ``tfds.core.DatasetBuilder``.
    """

    name = "tiny_imagenet"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Train and validation split of the official archive."}

    def __init__(self, *, archive: TinyImagenetArchive, **kwargs: Any) -> None:
        if archive.variant is not None:
            description = f"Made from an archive with SHA-256 {archive.sha256}."
            kwargs["config"] = tfds.core.BuilderConfig(
                name=archive.variant, version=self.VERSION, description=description
            )
        with _without_warnings():  # TFDS warns about configurations that are not in a fixed list
            super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Tiny ImageNet: 64x64 pixel images of 200 classes of ImageNet.",
            features=tfds.features.FeaturesDict(
                {
                    "file_name": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        path = Path(dl_manager.download(OFFICIAL.url))
        with _open_archive(path) as archive:
            wnids = archive.read(f"{ROOT}/wnids.txt").decode().split()
            words = archive.read(f"{ROOT}/words.txt").decode()
        features: Any = self.info.features
        features["label"].names = class_names(wnids, words)
        labels = {wnid: label for label, wnid in enumerate(wnids)}
        return {
            "train": _train_examples(path, labels),
            "validation": _validation_examples(path, labels),
        }

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        raise NotImplementedError("each split has its own generator")


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[ZipArchive]:
    """Opens an archive. Raises UserError if it is damaged or does not have the layout of the official one."""
    with open_zip(path, BOUNDS) as archive:
        try:
            yield archive
        except (KeyError, IndexError, ValueError) as error:  # a class or a file that is not there, or no text
            raise UserError(f"{path} is not laid out like {OFFICIAL.filename}: {first_line(error)}") from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Turns off the warnings of absl, which TFDS logs with."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def class_names(wnids: list[str], words: str) -> list[str]:
    """Returns a name for each class.

    >>> class_names(["n1", "n2", "n3"], "n1\\tcrane\\nn2\\tcrane\\nn3\\tpug, pug-dog")
    ['crane (n1)', 'crane (n2)', 'pug, pug-dog']

    Args:
      wnids: the WordNet identifiers of the classes.
      words: lines with an identifier, a tab and the words for it.

    Returns:
      For each class its words. If several classes have the same words, their identifiers are added.
    """
    table = dict(line.split("\t", 1) for line in words.splitlines() if "\t" in line)
    names = [table.get(wnid, wnid).strip() for wnid in wnids]
    return [f"{name} ({wnid})" if names.count(name) > 1 else name for name, wnid in zip(names, wnids, strict=True)]


def _train_examples(path: Path, labels: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    with _open_archive(path) as archive:
        for member in archive.names:
            parts = member.split("/")  # tiny-imagenet-200/train/<wnid>/images/<wnid>_<n>.JPEG
            if len(parts) == 5 and parts[1] == "train" and parts[3] == "images" and parts[4]:
                yield _example(archive, member, labels[parts[2]])


def _validation_examples(path: Path, labels: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    with _open_archive(path) as archive:
        for line in archive.read(f"{ROOT}/val/val_annotations.txt").decode().splitlines():
            file_name, wnid = line.split("\t")[:2]  # followed by the bounds of a box
            yield _example(archive, f"{ROOT}/val/images/{file_name}", labels[wnid])


def _example(archive: ZipArchive, member: str, label: int) -> tuple[str, dict[str, Any]]:
    file_name = member.rsplit("/", 1)[1]
    return file_name, {"file_name": file_name, "image": archive.read(member), "label": label}
