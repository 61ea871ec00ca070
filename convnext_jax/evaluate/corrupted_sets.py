"""Reading data sets that were corrupted elsewhere: CIFAR-10-C and CIFAR-100-C, ImageNet-C and Tiny-ImageNet-C."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from convnext_jax.data.decode_split import decode_split
from convnext_jax.data.image_folder import FileSource
from convnext_jax.errors import UserError, first_line, nearest
from convnext_jax.evaluate.corruptions.constants import SEVERITIES
from convnext_jax.evaluate.corruptions.registry import CORRUPTIONS
from convnext_jax.evaluate.robustness import CorruptedPart
from convnext_jax.storage.bounded import read_bounded

# The other corruptions that the published sets have, for tuning.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
_SUFFIXES = (".jpeg", ".jpg", ".png")
_MOST_WORDS_BYTES = 64 << 20


def read_corrupted_set(
    folder: Path,
    class_names: Sequence[str],
    image_shape: tuple[int, int, int],
    *,
    corruptions: Sequence[str] | None = None,
) -> Iterator[CorruptedPart]:
    """Reads a corrupted data set, a corruption and a severity at a time.

    The folder has either ``labels.npy`` and a ``<corruption>.npy`` for each corruption, with the five severities one
    after another, as CIFAR-10-C; or ``<corruption>/<severity>/<class>/`` with pictures, as ImageNet-C. A class folder
    is named after the class. WordNet identifiers are understood if the folder has the ``words.txt`` of Tiny ImageNet.

    Args:
      folder: where it is.
      class_names: of the network, in the order of its outputs.
      image_shape: what the network was trained on, [H,W,C]. Pictures are resized to it, and cropped to a square.
      corruptions: which to read. None reads those of the 15 that are there.

    Returns:
      The parts, each read when it is asked for.

    Raises:
      UserError: before the first part, a folder of another layout, a corruption that is not there, images of another
        shape, other classes; later, what cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the one of CIFAR-10-C, ImageNet-C or the like")
    files = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    folders = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    if "labels" in files:
        found = _choose(folder, files, corruptions)
        return _read_arrays(found, _read_labels(files["labels"], len(class_names)), image_shape)
    if any(name in files for name in CORRUPTIONS):
        raise UserError(f"{folder} has no labels.npy: it belongs to the set, so fetch it again")
    found = _choose(folder, folders, corruptions)
    return _read_pictures(found, _labels_by_folder(folder, class_names), image_shape)


def _choose(folder: Path, there: dict[str, Path], corruptions: Sequence[str] | None) -> dict[str, Path]:
    """Returns the paths of the corruptions to read."""
    known = (*CORRUPTIONS, *EXTRA)
    for name in corruptions or ():
        if name not in known:
            raise UserError(f"no corruption {name!r}: {nearest(name, known)}")
        if name not in there:
            raise UserError(
                f"{folder} has no corruption {name!r}: {nearest(name, [each for each in known if each in there])}"
            )
    chosen = corruptions or [name for name in CORRUPTIONS if name in there]
    if not chosen:
        raise UserError(
            f"{folder} has neither <corruption>.npy nor <corruption>/<severity>/<class>/, such as fog.npy or fog/1/"
        )
    return {name: there[name] for name in chosen}


def _read_labels(path: Path, classes: int) -> np.ndarray:
    labels = _map(path)
    if labels.ndim != 1 or labels.dtype.kind not in "ui" or not len(labels):
        raise UserError(f"{path} is {_form(labels)}: labels are whole numbers, [N]")
    if labels.min() != 0 or labels.max() != classes - 1:
        raise UserError(f"{path} has the classes {labels.min()} to {labels.max()}, and the network 0 to {classes - 1}")
    return labels.astype(np.int32)


def _read_arrays(
    found: dict[str, Path], labels: np.ndarray, image_shape: tuple[int, int, int]
) -> Iterator[CorruptedPart]:
    arrays = {name: _map(path) for name, path in found.items()}
    severities = len(SEVERITIES)
    for name, images in arrays.items():
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != image_shape:
            expected = ",".join(map(str, image_shape))
            raise UserError(f"{found[name]} is {_form(images)}: the network takes uint8 [N,{expected}]")
        if len(images) % severities or len(labels) not in (len(images), len(images) // severities):
            raise UserError(
                f"{found[name]} has {len(images):,} images for five severities, and labels.npy {len(labels):,} labels"
            )
    return _parts(arrays, labels)


def _parts(arrays: dict[str, np.ndarray], labels: np.ndarray) -> Iterator[CorruptedPart]:
    for name, images in arrays.items():
        count = len(images) // len(SEVERITIES)
        for severity in SEVERITIES:
            part = slice((severity - 1) * count, severity * count)
            yield CorruptedPart(name, severity, images[part], labels[part] if len(labels) == len(images) else labels)


def _map(path: Path) -> np.ndarray:
    """Maps an array into memory. NumPy verifies that the file is as long as its header says, and unpickles nothing."""
    try:
        if not path.is_file():
            raise ValueError("no regular file")
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header makes NumPy raise errors of any kind
        raise UserError(f"{path} is no NumPy array, or cut short ({first_line(error)}): fetch it again") from error


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} [{','.join(map(str, array.shape))}]"


def _labels_by_folder(folder: Path, class_names: Sequence[str]) -> dict[str, int]:
    """Returns the label for each name that a class folder may have."""
    labels = {name: label for label, name in enumerate(class_names)}
    path = folder / "words.txt"
    if path.exists():
        lines = read_bounded(path, _MOST_WORDS_BYTES).decode(errors="replace").splitlines()
        for wnid, _, words in (line.partition("\t") for line in lines):
            # Where several classes have the same words, `convnext_jax.data.tiny_imagenet` adds the identifier.
            name = next((name for name in (f"{words.strip()} ({wnid})", words.strip()) if name in labels), None)
            if name is not None:
                labels.setdefault(wnid, labels[name])
    return labels


def _read_pictures(
    found: dict[str, Path], labels: dict[str, int], image_shape: tuple[int, int, int]
) -> Iterator[CorruptedPart]:
    height, width, channels = image_shape
    if height != width:
        raise UserError(f"the network takes images of {width}x{height} pixels: pictures are cropped to squares")
    sources = {
        (name, severity): _list_pictures(path / str(severity), labels)
        for name, path in found.items()
        for severity in SEVERITIES
    }
    return _decoded(sources, height, channels)


def _decoded(sources: dict[tuple[str, int], FileSource], size: int, channels: int) -> Iterator[CorruptedPart]:
    for (name, severity), source in sources.items():
        with tempfile.TemporaryDirectory(prefix="convnext_jax-") as scratch:
            path = Path(scratch) / "images.npy"
            labels, _ = decode_split(source, path, size, channels, f"{name} {severity}")
            yield CorruptedPart(name, severity, np.load(path, mmap_mode="r", allow_pickle=False), labels)


def _list_pictures(folder: Path, labels: dict[str, int]) -> FileSource:
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: a corruption has the folders 1 to 5, one for each severity")
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    for path in classes:
        if path.name not in labels:
            raise UserError(
                f"{path} is no class of the network; its classes are {', '.join(sorted(labels)[:3])} and so on. If the"
                " folders are WordNet identifiers, copy the words.txt of Tiny ImageNet into the set"
            )
    missing = set(labels.values()) - {labels[path.name] for path in classes}
    if missing:
        name = min(name for name, label in labels.items() if label in missing)
        raise UserError(f"{folder} lacks {len(missing)} of the network's classes, such as {name!r}")
    pairs = [
        (str(picture), labels[path.name])
        for path in classes
        for picture in sorted(path.iterdir())
        if picture.suffix.lower() in _SUFFIXES and not picture.name.startswith(".")
    ]
    if not pairs:
        raise UserError(f"{folder} has no pictures ({', '.join(_SUFFIXES)})")
    paths, numbers = zip(*pairs, strict=True)
    return FileSource(paths, numbers)
