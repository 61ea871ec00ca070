"""Data sets that TFDS has prepared: finding them without TFDS, and reading their ArrayRecord files."""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from convnext_jax.data.decode import Mask, Picture
from convnext_jax.errors import UserError
from convnext_jax.storage.bounded import MOST_JSON_BYTES, read_bounded
from convnext_jax.storage.files import expanded, parse_json

INFO_FILE = "dataset_info.json"


def data_root(data_dir: str | None) -> Path:
    """Returns the folder of the prepared data sets: the given one, or else the one that TFDS would use.

    >>> data_root("/data").as_posix()
    '/data'
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return expanded(chosen)


def find_prepared(root: Path, name: str) -> Path | None:
    """Finds the newest prepared version of a data set.

    Args:
      root: the folder of the prepared data sets.
      name: the name of the data set, followed by a slash and its configuration if it has one.

    Returns:
      ``root/name/<version>``, or None if no version has been prepared.
    """
    versions = [
        folder
        for folder in (root / name).glob("*.*.*")
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and (folder / INFO_FILE).is_file()
    ]
    return max(versions, key=lambda v: [int(part) for part in v.name.split(".")], default=None)


@dataclasses.dataclass(frozen=True)
class PreparedInfo:
    """The description of a prepared data set.

    Attributes:
      folder: the folder of the data set.
      splits: the number of examples in each split.
      fingerprint: a string that changes when the description or the size of a record file changes.
    """

    folder: Path
    splits: dict[str, int]
    fingerprint: str


def read_info(folder: Path) -> PreparedInfo:
    """Reads the description of a prepared data set.

    Args:
      folder: a folder that `find_prepared` returned.

    Raises:
      UserError: the description is damaged, a record file is missing, or the files are not ArrayRecord.
    """
    try:
        content = read_bounded(folder / INFO_FILE, MOST_JSON_BYTES)
        info: dict[str, Any] = parse_json(content)
        splits = {s["name"]: sum(_count(n) for n in s["shardLengths"]) for s in info["splits"]}
        shards = {s["name"]: len(s["shardLengths"]) for s in info["splits"]}
        file_format = info.get("fileFormat", "tfrecord")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise damaged(folder, f"{INFO_FILE}: {error}") from error
    if file_format != "array_record":
        raise UserError(
            f"{folder} holds {file_format} files, which cannot be read without TensorFlow: give another "
            "folder with --config.data.data_dir (data prepared there will be ArrayRecord)"
        )
    digest = hashlib.sha256(content)
    for split, count in shards.items():
        files = sorted(folder.glob(f"*-{split}.array_record-*-of-{count:05d}"))
        if len(files) != count:
            raise damaged(folder, f"split {split} has {len(files)} of its {count} record files")
        for file in files:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return PreparedInfo(folder, splits, digest.hexdigest())


def _count(number: Any) -> int:
    count = int(number)
    if not 0 <= count < 2**40:
        raise ValueError(f"a record file with {count} examples")
    return count


def damaged(folder: Path, reason: object) -> UserError:
    """Returns the error for a prepared data set that cannot be used, with the reason in one line."""
    reason = " ".join(str(reason).split())[:200]
    return UserError(f"the prepared data in {folder} is damaged ({reason}): delete that folder and prepare it again")


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """The pictures of a split of a prepared data set, a `convnext_jax.data.decode_split.Source`.

    Attributes:
      folder: the folder of the data set.
      split: the name of the split.
      count: the number of examples in the split.
      labeled: whether examples have a feature ``label``; otherwise all labels are 0.
      masked: whether examples have a feature ``segmentation_mask``.
    """

    folder: Path
    split: str
    count: int
    labeled: bool = True
    masked: bool = False

    def __len__(self) -> int:
        return self.count

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """Yields the examples start, start + 1, ..., stop - 1, as `Picture`."""
        return self._read(_open, range(start, stop))

    def read_at(self, indices: Sequence[int]) -> Iterator[Picture]:
        """Yields the examples at the indices, each in [0, count); the files are opened once in a process."""
        return self._read(_open_once, indices)

    def _read(self, opened: Callable[[Path, str], Any], indices: Sequence[int]) -> Iterator[Picture]:
        from tensorflow_datasets.proto import tf_example_pb2  # takes a second to import, and not needed with a cache

        messages: Any = tf_example_pb2  # its classes are created at run time
        where = f"split {self.split}"
        try:
            for index, record in zip(indices, self._records(opened, indices), strict=True):
                where = f"example {self.split}[{index}]"
                feature = messages.Example.FromString(record).features.feature
                encoded = feature["image"].bytes_list.value[0]
                label = feature["label"].int64_list.value[0] if self.labeled else 0
                name = f"{self.split}[{index}] of {self.folder}"
                mask = Mask(name, feature["segmentation_mask"].bytes_list.value[0]) if self.masked else None
                yield Picture(name, encoded, label, mask)
        except UserError:
            raise
        except Exception as error:  # the readers raise errors of many kinds: ValueError, RuntimeError, DecodeError, ...
            raise damaged(self.folder, f"{where}: {error}") from error

    def _records(self, opened: Callable[[Path, str], Any], indices: Sequence[int]) -> Sequence[bytes]:
        """Returns the records at the indices; raises UserError with the number of the first that cannot be read."""
        records = opened(self.folder, self.split)
        try:
            return records.__getitems__(list(map(int, indices)))
        except Exception:  # one of them; it does not say which
            for index in indices:
                try:
                    records.__getitems__([int(index)])
                except Exception as error:
                    raise damaged(self.folder, f"example {self.split}[{index}]: {error}") from error
            raise


def _open(folder: Path, split: str) -> Any:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(builder_dir=folder)
    return builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)


_open_once = functools.lru_cache(maxsize=8)(_open)
