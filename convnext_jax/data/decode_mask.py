"""Decodes the mask of a picture into the class number of each pixel."""

from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from convnext_jax.data.decode import Mask, Picture, opened_image, read_picture, resize_and_crop, upright
from convnext_jax.errors import UserError

FORMATS = {"PNG": (".png", ".apng"), "BMP": (".bmp",), "TIFF": (".tif", ".tiff"), "GIF": (".gif",)}  # all lossless
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
WHITE = 256  # the white of a mask that is black and white by its format, not a class number


class Pair(NamedTuple):
    """A decoded picture and its mask.

    Attributes:
      image: uint8 [H,W,C].
      mask: the values of the mask, uint8 [H,W].
      used: the values that the mask has before it is cropped, in [0, 255], and `WHITE`.
    """

    image: np.ndarray
    mask: np.ndarray
    used: list[int]


def decode_pair(picture: Picture, size: int | None, channels: int) -> Pair:
    """Decodes a picture and its mask. Both are cropped in the same way; a mask keeps its nearest values.

    Args:
      picture: a picture with a mask.
      size: see `convnext_jax.data.decode.decode_picture`.
      channels: C, see `convnext_jax.data.decode.decode_picture`.

    Raises:
      UserError: one of them cannot be read, the mask is refused by `decode_mask`, or their sizes differ.
    """
    if picture.mask is None:
        raise UserError(f"picture {picture.name} has no mask: add one or remove the picture")
    what = f"mask {picture.mask.name}"
    image = read_picture(picture, channels)
    values, black_and_white = decode_mask(picture.mask)
    if values.shape != (image.height, image.width):
        raise UserError(
            f"{what} has {values.shape[1]}x{values.shape[0]} pixels and its picture {picture.name} has"
            f" {image.width}x{image.height}: give both the same size"
        )
    used = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256)).tolist()
    image = resize_and_crop(f"picture {picture.name}", image, size)
    mask = resize_and_crop(what, Image.fromarray(values), size, Image.Resampling.NEAREST)
    return Pair(
        np.asarray(image).reshape(image.height, image.width, channels),
        np.asarray(mask),
        [WHITE if black_and_white and value == 255 else value for value in used],
    )


def decode_mask(mask: Mask) -> tuple[np.ndarray, bool]:
    """Decodes a mask: the index of each pixel if it has a palette, else the gray value.

    Args:
      mask: a mask in one of `FORMATS`.

    Returns:
      The values, uint8 [H,W], and whether the format knows black (0) and white (255) alone: 1 bit, or colors.

    Raises:
      UserError: the file cannot be read, is of a lossy kind, or has colors, transparent pixels or more than 8 bits.
    """
    what = f"mask {mask.name}"
    with opened_image(what, mask.encoded) as opened:
        kind = "JPEG" if opened.info.get("compression") == "jpeg" else opened.format  # a TIFF may contain one
        if kind not in FORMATS:
            raise wrong_kind(mask.name, str(kind))
        image = _without_alpha(what, upright(opened, opened))
        if image.mode.startswith(("I", "F")):
            raise UserError(f"{what} has more than 8 bits a pixel: save it with 8")
        values = np.asarray(image)
        if image.mode == "P":
            return values, False
        if image.mode == "L":
            return values // (255 // (2 ** _bits(mask, opened) - 1)), False
        if image.mode == "1":
            return values * np.uint8(255), True
        if image.mode == "RGB" and (values == values[..., :1]).all() and np.isin(values[..., 0], (0, 255)).all():
            return values[..., 0], True
    raise UserError(f"{what} is in colors without a palette: save it with a palette or as grayscale class numbers")


def wrong_kind(name: str, kind: str) -> UserError:
    """Returns the error for a mask in a format that is not one of `FORMATS`."""
    why = ", whose compression changes class numbers" if kind in ("JPEG", "MPO") else ""
    return UserError(f"mask {name} is a {kind} file{why}: save it as .png, .bmp, .tif or .gif")


def _without_alpha(what: str, image: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image
    if image.getchannel("A").getextrema() != (255, 255):
        raise UserError(f"{what} has transparent pixels: save it without transparency")
    return image.convert(image.mode.removesuffix("A"))


def _bits(mask: Mask, opened: Image.Image) -> int:
    """Returns how many bits a gray pixel has. Pillow scales fewer than 8 to [0, 255], and class numbers with them."""
    if opened.format == "PNG":
        return mask.encoded[24]  # it is in the header, at a fixed place
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        bits = opened.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, 8)
        return bits[0] if isinstance(bits, tuple) else bits
    return 8
