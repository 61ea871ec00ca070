"""What a run remembers of the data that it was trained on: ``dataset.json``."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convnext_jax.batches.preprocess import Normalization
from convnext_jax.data import Dataset, Split
from convnext_jax.errors import UserError
from convnext_jax.storage.checksums import sealed, unsealed
from convnext_jax.storage.files import write_json

_REMEDY = "it is damaged: restore it, or begin a new run in another --workdir"
_SAMPLE = 1000  # images of a split whose pixels are compared


@dataclasses.dataclass(frozen=True)
class SplitRecord:
    """What identifies the examples of a split, and their order.

    Attributes:
      examples: how many there are.
      shape: of an image, (H, W, C).
      checksum: SHA-256 of all labels and of the pixels of a thousand images, evenly spaced, and of their masks.
    """

    examples: int
    shape: tuple[int, ...]
    checksum: str

    @classmethod
    def of(cls, split: Split) -> "SplitRecord":
        """Returns the record of a split."""
        count = len(split)
        chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
        checksum = hashlib.sha256(np.asarray(split.labels, "<i4").tobytes())
        checksum.update(np.ascontiguousarray(split.images[chosen]).tobytes())
        if split.masks is not None:
            checksum.update(split.masks[chosen].tobytes())
        return cls(count, tuple(split.images.shape[1:]), checksum.hexdigest())

    def difference(self, other: "SplitRecord") -> str:
        """Returns in what another record differs, in words; an empty text if it does not."""
        if self.examples != other.examples:
            return f"{self.examples} examples then, {other.examples} now"
        if self.shape != other.shape:
            return f"images of {'x'.join(map(str, self.shape))} then, {'x'.join(map(str, other.shape))} now"
        return "other pixels, labels or masks, or another order" if self.checksum != other.checksum else ""


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """What a run needs to know of the data that it was trained on, kept in ``dataset.json``.

    Attributes:
      name: the data set.
      class_names: one for each class, in the order of the logits.
      mean: channel means that the images were normalized with.
      std: channel deviations that the images were normalized with.
      splits: the splits by name. Those that version 0.1 wrote have none.
      mask_names: one for each class of the masks; none if there are no masks.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    splits: Mapping[str, SplitRecord] = dataclasses.field(default_factory=dict)
    mask_names: tuple[str, ...] = ()

    @property
    def normalization(self) -> Normalization:
        """The means and deviations together."""
        return Normalization(self.mean, self.std)

    @classmethod
    def of(cls, dataset: Dataset, *, with_splits: bool = True) -> "DatasetRecord":
        """Returns the record of a data set; with its splits, it reads the labels and a thousand images of each."""
        mean, std = (tuple(map(float, statistic)) for statistic in (dataset.mean, dataset.std))
        if not with_splits:
            return cls(dataset.name, dataset.class_names, mean, std, mask_names=dataset.mask_names)
        splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        records = {name: SplitRecord.of(split) for name, split in splits.items() if split is not None}
        return cls(dataset.name, dataset.class_names, mean, std, records, dataset.mask_names)

    @classmethod
    def read(cls, workdir: Path) -> "DatasetRecord":
        """Returns the record of a workdir; raises UserError if there is none."""
        path = workdir / "dataset.json"
        try:
            fields = unsealed(path.read_text(encoding="utf-8"))
            splits = {name: _split_record(split) for name, split in fields.get("splits", {}).items()}
            class_names, mask_names = tuple(fields["class_names"]), tuple(fields.get("mask_names", ()))
            mean, std = (tuple(map(float, fields[name])) for name in ("mean", "std"))
            texts = all(isinstance(text, str) for text in (fields["name"], *class_names, *mask_names))
            if not texts or len(mean) != len(std) or not all(map(math.isfinite, mean + std)):
                raise ValueError("it is damaged")
            return cls(fields["name"], class_names, mean, std, splits, mask_names)
        except FileNotFoundError:
            raise UserError(f"{workdir} has no dataset.json; the run has not started yet") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read (it lacks {error}); {_REMEDY}") from error
        except (OSError, ValueError, ArithmeticError) as error:
            raise UserError(f"{path} cannot be read ({error}); {_REMEDY}") from error

    def write(self, workdir: Path) -> None:
        """Writes the record into a workdir."""
        write_json(workdir / "dataset.json", sealed(dataclasses.asdict(self)))

    def differences(self, now: "DatasetRecord") -> list[str]:
        """Returns in what the data are others now, a text for each difference."""
        found = []
        if self.class_names != now.class_names:
            found.append(_class_difference("classes", self.class_names, now.class_names))
        if self.mask_names != now.mask_names:
            found.append(_class_difference("mask classes", self.mask_names, now.mask_names))
        if len(self.mean) != len(now.mean):
            found.append(f"{len(self.mean)} channels then, {len(now.mean)} now")
        for name, there in self.splits.items():
            here = now.splits.get(name)
            difference = "there is none now" if here is None else there.difference(here)
            if difference:
                found.append(f"{name}: {difference}")
        return found

    def check_same(self, now: "DatasetRecord", workdir: Path, remedy: str) -> None:
        """Raises UserError, with the differences and a remedy, if the data of the run in ``workdir`` are others now."""
        if differences := self.differences(now):
            raise UserError(
                f"the data of {now.name} are not those that the run in {workdir} was trained on"
                f" ({'; '.join(differences)}); {remedy}"
            )


def _split_record(fields: Mapping[str, Any]) -> SplitRecord:
    return SplitRecord(int(fields["examples"]), tuple(fields["shape"]), str(fields["checksum"]))


def _class_difference(what: str, there: tuple[str, ...], here: tuple[str, ...]) -> str:
    gone, new = ([name for name in ours if name not in theirs] for ours, theirs in ((there, here), (here, there)))
    if gone or new:
        named = (
            f"{what} {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
            for what, names in (("without", gone), ("with", new))
            if names
        )
        return f"other {what} ({'; '.join(named)})"
    return f"the {what} in another order"
