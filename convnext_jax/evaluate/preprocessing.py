"""From a picture, of any size and mode, to the pixels that a network was trained on."""

import dataclasses
import io
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from convnext_jax.data.dataset import IGNORED
from convnext_jax.data.decode import Picture, decode_picture
from convnext_jax.data.image_folder import FileSource
from convnext_jax.data.registry import known_extent
from convnext_jax.errors import UserError
from convnext_jax.evaluate.saved_run import SavedRun

_IN_A_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # Pillow's modes that a PNG keeps as they are
AnyPicture = str | PathLike[str] | Image.Image


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What was done to the pictures of the training. Call it with a picture to get its pixels, uint8 [H,W,C].

    A picture is decoded as those of an ``image_folder``: see `convnext_jax.data.decode.decode_picture`. To be square,
    its shorter side is resized and its center is cropped. The network then normalizes the pixels itself.

    Attributes:
      height: in pixels.
      width: in pixels.
      mean: channel means that the pixels are normalized with, on the scale [0, 1].
      std: channel deviations that the pixels are normalized with, on the scale [0, 1].
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """That of an image, (H, W, C)."""
        return self.height, self.width, len(self.mean)

    def __call__(self, picture: AnyPicture) -> np.ndarray:
        """Returns the pixels of a picture, uint8 [H,W,C].

        Args:
          picture: the path of a file, or a Pillow image.

        Raises:
          UserError: it cannot be read, or the training images were not square and it has another size than they.
        """
        read = _read(picture)
        square = self.height == self.width
        pixels = decode_picture(read, self.height if square else None, len(self.mean))
        if pixels.shape != self.shape:
            raise UserError(
                f"picture {read.name} has {pixels.shape[1]}x{pixels.shape[0]} pixels, and the network was trained on"
                f" {self.width}x{self.height}: crop or resize it"
            )
        return pixels

    def original(self, picture: AnyPicture) -> np.ndarray:
        """Returns the pixels of a picture as a viewer shows it, at its own size, uint8 [H',W',C].

        Raises:
          UserError: it cannot be read.
        """
        return decode_picture(_read(picture), None, len(self.mean))

    def at_full_size(self, mask: np.ndarray, height: int, width: int) -> np.ndarray:
        """Returns a mask of the pixels that a network saw at the size of the picture that they are of.

        What was cropped from the picture is `IGNORED`.

        >>> square = Preprocessing(2, 2, (0.5,), (0.5,))
        >>> square.at_full_size(np.array([[0, 1], [2, 3]], np.uint8), 2, 4).tolist()
        [[255, 0, 1, 255], [255, 2, 3, 255]]

        Args:
          mask: uint8 [H,W].
          height: of the picture, in pixels.
          width: of the picture, in pixels.
        """
        scale = self.height / min(height, width) if self.height == self.width else 1.0
        rows = _places(height, max(self.height, round(height * scale)), self.height)
        columns = _places(width, max(self.width, round(width * scale)), self.width)
        full = np.full((height, width), IGNORED, np.uint8)
        inside = np.ix_(rows >= 0, columns >= 0)
        full[inside] = mask[np.ix_(rows[rows >= 0], columns[columns >= 0])]
        return full


def _places(side: int, resized: int, cropped: int) -> np.ndarray:
    """Returns for each pixel of a picture's side the pixel of the cropped center that shows it, -1 if none does."""
    places = ((np.arange(side) + 0.5) * resized / side).astype(np.int64) - (resized - cropped) // 2
    return np.where(places < cropped, np.maximum(places, -1), -1)


def _read(picture: AnyPicture) -> Picture:
    if isinstance(picture, Image.Image):
        return Picture("given", _encoded(picture), 0)
    if not isinstance(picture, str | PathLike):
        raise UserError(f"{type(picture).__name__} is no picture; give a path or a Pillow image")
    (read,) = FileSource((str(Path(picture)),), (0,)).read(0, 1)
    return read


def preprocessing_of(run: SavedRun, image_size: int | None) -> Preprocessing:
    """Returns the preprocessing of a run.

    Args:
      run: the run.
      image_size: side in pixels to decode pictures to; None is that of the training.

    Raises:
      UserError: the run, of version 0.1, did not record the size of its images.
    """
    record, extent = run.record.splits.get("train"), known_extent(run.experiment.data)
    if image_size is not None:
        height, width = image_size, image_size
    elif record is not None:
        height, width = record.shape[:2]
    elif extent is not None:
        height, width = extent.height, extent.width
    else:
        raise UserError(f"the run in {run.workdir} did not record the size of its images; give image_size")
    return Preprocessing(height, width, run.record.mean, run.record.std)


def _encoded(image: Image.Image) -> bytes:
    """Returns an image as a file, so that there is one way from a mode to pixels."""
    if image.mode in ("I", "F"):
        raise UserError(f"a picture of mode {image.mode!r} has no known range; convert it to 8 bits a channel")
    image = ImageOps.exif_transpose(image)
    if image.mode not in _IN_A_PNG:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    file = io.BytesIO()
    image.save(file, "png", compress_level=0)
    return file.getvalue()
