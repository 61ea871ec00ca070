"""Where a network looks: images beside the places that speak for their classes, on one sheet."""

import dataclasses
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convnext_jax.evaluate.classifier import Classifier

_CLASSES = 3  # that are explained
_SIDE = 128  # pixels of a picture, at least; small ones are enlarged by a whole number
_GAP = 12  # pixels
_WIDEST = 240  # pixels of a line of text
_NAME = 20  # characters of a line of a file's name, about as wide as a picture
_FONT_SIZE = 13
_LINE = _FONT_SIZE + 4
_GROUPS = 2  # in a row


@dataclasses.dataclass(frozen=True)
class Cell:
    """A picture on the sheet.

    Attributes:
      image: Pillow's.
      lines: of text below it, two at most.
    """

    image: Image.Image
    lines: tuple[str, ...]


def explanations(classifier: Classifier, names: Sequence[str], pixels: np.ndarray, stage: int) -> Image.Image:
    """Returns a sheet of images, each beside the places that speak for its three most probable classes (Grad-CAM).

    Args:
      classifier: the network.
      names: what is written below each image.
      pixels: uint8 [N,H,W,C], N at least 1.
      stage: whose map is explained, counted from 1.
    """
    probabilities = classifier.predict(pixels)
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :_CLASSES]  # [N,k]
    maps = classifier.explain(pixels, best, stage=stage)  # [N,k,H',W']
    groups = []
    for number, name in enumerate(names):
        picture = enlarged(pixels[number])
        group = [Cell(picture, _over_two_lines(name))]
        for index, heat in zip(best[number], maps[number], strict=True):
            probability = f"{probabilities[number, index]:.1%}" + ("" if heat.any() else ", no place")
            group.append(Cell(heat_over(picture, heat), (classifier.classes[index], probability)))
        groups.append(group)
    size = "x".join(map(str, maps.shape[2:]))
    title = f"Grad-CAM, stage {stage} ({size}): from gray, which says nothing for the class, to yellow, which says most"
    return contact_sheet(groups, title)


def _over_two_lines(name: str) -> tuple[str, ...]:
    first, rest = name[:_NAME], name[_NAME:]
    return first, rest if len(rest) <= _NAME else "..." + rest[3 - _NAME :]


def contact_sheet(groups: Sequence[Sequence[Cell]], title: str) -> Image.Image:
    """Returns groups of cells on a white sheet, two groups in a row.

    The columns are as wide as the widest picture or line of text. A line of more than 240 pixels is shortened.

    Args:
      groups: at least one, with as many cells in each.
      title: stands above them.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    cells = [dataclasses.replace(cell, lines=_fitted(cell.lines, font)) for group in groups for cell in group]
    widths = [cell.image.width for cell in cells] + [_width(line, font) for cell in cells for line in cell.lines]
    width, height = max(widths) + _GAP, max(cell.image.height for cell in cells) + 2 * _LINE + _GAP
    size = len(groups[0])
    row = min(_GROUPS, len(groups))
    across = max(row * (size * width + _GAP), _width(title, font) + _GAP)
    sheet = Image.new("RGB", (across + _GAP, height * -(-len(groups) // row) + _LINE + 2 * _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, "black", font)
    for number, cell in enumerate(cells):
        group, place = divmod(number, size)
        left = _GAP + group % row * (size * width + _GAP) + place * width
        top = 2 * _GAP + _LINE + group // row * height
        sheet.paste(cell.image, (left, top))
        for index, line in enumerate(cell.lines):
            draw.text((left, top + cell.image.height + 2 + _LINE * index), line, "black", font)
    return sheet


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _width(line: str, font: _Font) -> int:
    return math.ceil(font.getlength(line))


def _fitted(lines: Sequence[str], font: _Font) -> tuple[str, ...]:
    fitted = []
    for line in lines:
        short, kept = line, len(line)
        while _width(short, font) > _WIDEST:
            kept -= 1
            short = line[:kept] + "..."
        fitted.append(short)
    return tuple(fitted)


def enlarged(pixels: np.ndarray) -> Image.Image:
    """Returns an image as an RGB picture, enlarged by a whole number until its longer side has 128 pixels or more.

    Args:
      pixels: uint8 [H,W,C], C from 1 to 4. An alpha channel is left out.
    """
    color = pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    scale = max(1, -(-_SIDE // max(color.shape[:2])))
    return Image.fromarray(color).resize((scale * color.shape[1], scale * color.shape[0]), Image.Resampling.NEAREST)


def heat_over(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """Returns a picture in gray below a map in color, which is clear where it is 0 and yellow where it is largest.

    Args:
      picture: RGB.
      heat: float [H',W'], 0 or more, on any scale. It is enlarged bilinearly.
    """
    most = float(heat.max())
    relative = Image.fromarray((heat / most if most > 0 else heat).astype(np.float32))
    smooth = np.clip(np.asarray(relative.resize(picture.size, Image.Resampling.BILINEAR)), 0.0, 1.0)
    colors = matplotlib.colormaps["plasma"](smooth)[..., :3] * 255
    gray = np.asarray(picture.convert("L"), np.float32)[..., None]
    opacity = 0.65 * smooth[..., None]
    return Image.fromarray(np.rint((1 - opacity) * gray + opacity * colors).astype(np.uint8))
