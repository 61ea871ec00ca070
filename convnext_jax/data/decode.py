"""Decodes a picture of any kind that is read into uint8 pixels, as a viewer shows it."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, features

from convnext_jax.errors import UserError, first_line


class Mask(NamedTuple):
    """An encoded mask, which holds the class of each pixel of a picture.

    Attributes:
      name: what error messages call it.
      encoded: the bytes of the file.
    """

    name: str
    encoded: bytes


class Picture(NamedTuple):
    """An encoded picture.

    Attributes:
      name: what error messages call it.
      encoded: the bytes of the file.
      label: the label.
      mask: its mask, if it has one.
    """

    name: str
    encoded: bytes
    label: int
    mask: Mask | None = None


MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's mode for each number of channels
# What Pillow reads without running another program, as it does for PostScript, and the suffixes of such files.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # of an MPO, a JPEG with several pictures, the first is read
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
if "avif" in features.modules and features.check("avif"):  # since Pillow 11.2, and not in every build of it
    FORMATS["AVIF"] = (".avif",)
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

MOST_PIXELS = 1 << 26  # of a picture, 8192x8192; more than any camera's, and 268 MB at four channels
MOST_BYTES = 1 << 28  # of a file, those of the largest picture without compression

# `ImageOps.exif_transpose` does the same and also writes the EXIF data anew, which fails if any of them is damaged.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = [_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]  # width and height

Box = tuple[int, int, int, int]  # left, upper, right, lower, in pixels


def decode_picture(picture: Picture, size: int | None = None, channels: int = 3) -> np.ndarray:
    """Decodes a picture.

    It is turned upright as its EXIF data say. Of several frames or pages the first is taken. 16 bits are scaled to 8.
    Without an alpha channel to keep, transparent pictures are put on white. Color profiles are not applied.

    Args:
      picture: a picture in one of `FORMATS`, of at most 8192x8192 pixels.
      size: side of the decoded picture in pixels. The shorter side is resized to it, with antialiasing, and the center
        square is cropped. If None, the picture keeps its size.
      channels: C, the number of channels that the picture is converted to. 1 is grayscale, 2 is grayscale and alpha, 3
        is RGB, and 4 is RGB and alpha.

    Returns:
      uint8 [H,W,C].

    Raises:
      UserError: the picture cannot be read, has pixels without a known range (floating point, 32 bits), or is of absurd
        size, which is found before memory is allocated for it.
    """
    image = resize_and_crop(f"picture {picture.name}", read_picture(picture, channels), size)
    return np.asarray(image).reshape(image.height, image.width, channels)


def read_picture(picture: Picture, channels: int) -> Image.Image:
    """Returns a picture as `decode_picture` does, in its own size."""
    with opened_image(f"picture {picture.name}", picture.encoded) as opened:
        return _to_channels(upright(_to_bytes(picture, opened), opened), MODES[channels])


def decode_crop(picture: Picture, choose: Callable[[int, int], Box], size: int, channels: int = 3) -> np.ndarray:
    """Decodes a rectangle of a picture and resizes it to a square, with antialiasing.

    A JPEG is decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 at which the rectangle still has ``size`` pixels
    each way. That takes less time, and changes the pixels a little. Otherwise the picture is decoded as
    `decode_picture` does.

    Args:
      picture: as for `decode_picture`.
      choose: returns the rectangle within a picture of a width and a height in pixels, turned upright.
      size: side of the square in pixels.
      channels: C, as for `decode_picture`.

    Returns:
      uint8 [size,size,C].

    Raises:
      UserError: as `decode_picture`.
    """
    box = 0.0, 0.0, 0.0, 0.0

    def reduce(opened: Image.Image) -> None:
        nonlocal box
        if opened.format not in ("JPEG", "MPO"):
            opened.load()  # a TIFF is turned then
        width, height = opened.size
        turned = _turn(opened) in _SWAPPING
        box = choose(*((height, width) if turned else (width, height)))
        left, upper, right, lower = box
        most = min(right - left, lower - upper) // size
        if most > 1:
            reduced = opened.draft(None, (width // most, height // most))
            scale = 1 if reduced is None else reduced[1][2] / width
            box = scale * left, scale * upper, scale * right, scale * lower

    with opened_image(f"picture {picture.name}", picture.encoded, before_loading=reduce) as opened:
        image = _to_channels(upright(_to_bytes(picture, opened), opened), MODES[channels])
        image = image.resize((size, size), Image.Resampling.BICUBIC, box)
    return np.asarray(image).reshape(size, size, channels)


@contextlib.contextmanager
def opened_image(
    what: str, encoded: bytes, before_loading: Callable[[Image.Image], None] | None = None
) -> Iterator[Image.Image]:
    """Opens an encoded image. In the context, any error says that the file is damaged.

    Args:
      what: the kind and the name of the file, for error messages, such as ``picture a.png``.
      encoded: the bytes of the file, in one of `FORMATS`.
      before_loading: is given the image when its size is known, and may choose how its pixels are loaded.

    Yields:
      The image with its pixels, as the file has them.

    Raises:
      UserError: the file cannot be read or is of absurd size, which is found before memory is allocated for it.
    """
    if not encoded:
        raise UserError(f"{what} is empty (0 bytes): replace or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what does no harm, such as corrupt EXIF
            with Image.open(io.BytesIO(encoded), formats=tuple(FORMATS)) as opened:
                _check_size(what, opened.size)
                _check_size(what, _tile_size(opened))
                if before_loading is not None:
                    before_loading(opened)
                opened.load()  # raises an error if the file is truncated
                yield opened
    except UserError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of any kind
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no picture of a kind that is read" if unknown else first_line(error)
        raise UserError(f"{what} cannot be read ({reason}): replace or remove it") from error


def decode_to_shape(picture: Picture, shape: tuple[int, ...], size: int | None) -> np.ndarray:
    """Returns a picture's pixels, uint8; raises UserError if they have not the shape (H, W, C) of the others."""
    image = decode_picture(picture, size, shape[-1])
    check_shape(picture, image, shape)
    return image


def check_shape(picture: Picture, image: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises UserError if the pixels of a picture have not the shape (H, W, C) of the others."""
    if image.shape != shape:
        raise UserError(
            f"picture {picture.name} has {image.shape[1]}x{image.shape[0]} pixels while the first one has"
            f" {shape[1]}x{shape[0]}: give one size, for example --config.data.image_size=64"
        )


def _check_size(what: str, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{what} would have {width}x{height} pixels, and at most {MOST_PIXELS:,} make sense: replace or remove it"
        )


def _tile_size(opened: Image.Image) -> tuple[int, int]:
    """Returns the size of the tiles of a TIFF, which are decoded whole, however small the picture is."""
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        return opened.tag_v2.get(TiffImagePlugin.TILEWIDTH, 1), opened.tag_v2.get(TiffImagePlugin.TILELENGTH, 1)
    return 1, 1


def _to_bytes(picture: Picture, opened: Image.Image) -> Image.Image:
    """Returns a picture with 8 bits for each channel, and its transparent color on the same scale."""
    depth = picture.encoded[24] if opened.format == "PNG" else 8  # it is in the header, at a fixed place
    key = opened.info.get("transparency")
    if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PPM"):  # a PGM of 16 bits
        values, most = np.asarray(opened).astype(np.uint32), 2**16 - 1
        alpha = None if key is None else np.where(values == key, 0, 255)
        if isinstance(opened, TiffImagePlugin.TiffImageFile):
            most = 2 ** _first(opened.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, 16)) - 1  # may be 12 bits in 16
            if opened.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero
                values = most - values
        gray = (values * 255 + most // 2) // most
        return Image.fromarray((gray if alpha is None else np.stack([gray, alpha], -1)).astype(np.uint8))
    if opened.mode in ("I", "F"):
        kind = "floating-point" if opened.mode == "F" else "signed or 32-bit"
        raise UserError(
            f"picture {picture.name} has {kind} pixels, whose range is not known: save it with 8 or 16 bits a channel"
        )
    # Pillow compares the key of a PNG with pixels that it has scaled to 8 bits.
    if isinstance(key, tuple) and depth == 16:
        opened.info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int) and opened.mode in ("1", "L") and key < 2**depth < 256:
        opened.info["transparency"] = key * 255 // (2**depth - 1)
    return opened


def _first(values: int | tuple[int, ...]) -> int:
    return values[0] if isinstance(values, tuple) else values


def upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Returns an image turned as the EXIF data of its file say. A TIFF is upright already, and no longer says it."""
    method = _turn(opened)
    return image if method is None else image.transpose(method)


def _turn(opened: Image.Image) -> Image.Transpose | None:
    """Returns how an image is turned upright, None if it is upright."""
    try:
        return _UPRIGHT.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data: viewers show such a picture as it is
        return None


def _to_channels(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image of 8 bits a channel to one of `MODES`."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if not mode.endswith("A"):  # whatever color the file hides below transparent pixels is not meant to be seen
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image)
            image = white
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")  # LAB has no other way
    return image if image.mode == mode else image.convert(mode)


def resize_and_crop(
    what: str, image: Image.Image, size: int | None, method: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """Resizes the shorter side of an image to ``size`` and crops the center square; leaves it as it is for None.

    Args:
      what: the kind and the name of the image, for error messages.
      image: the image.
      size: side of the square in pixels.
      method: how pixels are interpolated.

    Raises:
      UserError: the longer side would become absurdly long.
    """
    if size is None or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    _check_size(what, (width, height))  # a line of pixels becomes as broad as it is long
    image = image.resize((width, height), method)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
