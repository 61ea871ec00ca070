"""Pictures side by side, each with its captions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_SIDE = 96  # pixels of a picture, at least
_LINE = 12  # pixels of a line of text
_COLUMNS = 8


def shown(image: np.ndarray) -> np.ndarray:
    """Returns what Pillow shows of an image [H,W,C]: without its alpha, and [H,W] if it is grayscale."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., 0]


def picture_grid(images: np.ndarray, captions: Sequence[Sequence[str]]) -> Image.Image:
    """Returns pictures in rows of eight, small ones enlarged by a whole number.

    Args:
      images: [B,H,W,C] on the scale [0, 255], C from 1 to 4; what lies outside of the scale is clipped.
      captions: for each picture the lines of text below it.
    """
    count, height, width = images.shape[:3]
    scale = max(1, -(-_SIDE // max(height, width)))
    lines = max(map(len, captions))
    cell = scale * width + 8, scale * height + _LINE * lines + 8
    grid = Image.new("RGB", (cell[0] * min(count, _COLUMNS), cell[1] * -(-count // _COLUMNS)), "white")
    draw = ImageDraw.Draw(grid)
    pixels = np.clip(np.nan_to_num(np.rint(images)), 0, 255).astype(np.uint8)
    for number, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        row, column = divmod(number, _COLUMNS)
        left, top = column * cell[0] + 4, row * cell[1] + 4
        picture = Image.fromarray(shown(image)).resize((scale * width, scale * height), Image.Resampling.NEAREST)
        grid.paste(picture, (left, top))
        for index, text in enumerate(caption):
            most = cell[0] // 6  # the default font is six pixels wide
            draw.text((left, top + scale * height + _LINE * index), text[:most], fill="black")
    return grid
