"""Predicted masks as files: a PNG of class numbers for each picture, and one that shows it over the picture."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from convnext_jax.report.overlays import mask_picture, overlay
from convnext_jax.storage.files import write_bytes

_LONGEST = 200  # bytes of a name; file systems allow 255, with all that is added


class MaskFiles:
    """Writes the masks of pictures into a folder, each under the name of its picture.

    Pictures of the same name, from several folders or of several formats, get ``_2``, ``_3`` and so on.

    Args:
      folder: where they go; it exists.
      num_classes: K.
    """

    def __init__(self, folder: Path, num_classes: int) -> None:
        self.folder, self._num_classes = folder, num_classes
        self._taken: set[str] = set()

    def write(self, picture: str, pixels: np.ndarray, mask: np.ndarray) -> str:
        """Writes ``NAME.png``, whose indices are the classes, and ``NAME_overlay.png``.

        Args:
          picture: its path.
          pixels: its pixels, uint8 [H,W,C].
          mask: classes in [0, K), or `IGNORED` where the network did not look, uint8 [H,W].

        Returns:
          The name of the mask's file.
        """
        stem = self._free_stem(os.fsdecode(os.fsencode(Path(picture).stem)[:_LONGEST]))
        over = Image.fromarray(overlay(pixels, mask, self._num_classes))
        for name, content in ((f"{stem}.png", mask_picture(mask, self._num_classes)), (f"{stem}_overlay.png", over)):
            file = io.BytesIO()
            content.save(file, format="png")
            write_bytes(self.folder / name, file.getvalue())
        return f"{stem}.png"

    def _free_stem(self, stem: str) -> str:
        """Returns a name that no file so far has, on file systems that ignore case neither."""
        number, free = 1, stem
        while self._taken & {free.lower(), f"{free}_overlay".lower()}:
            number += 1
            free = f"{stem}_{number}"
        self._taken |= {free.lower(), f"{free}_overlay".lower()}
        return free
