"""The tables of ConvNeXt's sizes and stems. Imports no JAX, so that a configuration is checked at once."""

import dataclasses

from convnext_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Size:
    """Blocks and channels of the four stages."""

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]


# Tiny to XLarge: Liu et al. 2022 (arXiv 2201.03545), section 3. Atto to Nano: widths and depths of Woo et al.
# 2023 (arXiv 2301.00808), appendix A.1, with the blocks of 2022.
SIZES: dict[str, Size] = {
    "convnext_atto": Size((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnext_femto": Size((2, 2, 6, 2), (48, 96, 192, 384)),
    "convnext_pico": Size((2, 2, 6, 2), (64, 128, 256, 512)),
    "convnext_nano": Size((2, 2, 8, 2), (80, 160, 320, 640)),
    "convnext_tiny": Size((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": Size((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": Size((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": Size((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_xlarge": Size((3, 3, 27, 3), (256, 512, 1024, 2048)),
}


@dataclasses.dataclass(frozen=True)
class Stem:
    """The first convolution: its window, its stride and the zeros around the image, in pixels."""

    kernel: int
    stride: int
    padding: int

    def output_size(self, size: int) -> int:
        """Side of the map that an image side of `size` pixels becomes."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


# "patch4" is the paper's, made for 224 px; the others keep more of a small image.
STEMS: dict[str, Stem] = {
    "patch4": Stem(kernel=4, stride=4, padding=0),
    "patch2": Stem(kernel=2, stride=2, padding=0),
    "patch1": Stem(kernel=1, stride=1, padding=0),
    "conv3x3_s1": Stem(kernel=3, stride=1, padding=1),
    "conv3x3_s2": Stem(kernel=3, stride=2, padding=1),
}


def check_names(model: str, stem: str) -> None:
    """Raises `UserError` with the nearest name where there is no such model or no such stem."""
    for what, name, table in (("model", model, SIZES), ("stem", stem, STEMS)):
        if name not in table:
            raise UserError(f"unknown {what} {name!r}: {nearest(name, table)}")


# Three 2x2 convolutions of stride 2 stand between the stages: the last map keeps a pixel from here on.
_SMALLEST_FIRST_MAP = 8


def smallest_image(stem: str) -> int:
    """Smallest image side, in pixels, that reaches the last stage behind `stem`."""
    return next(size for size in range(1, 1000) if STEMS[stem].output_size(size) >= _SMALLEST_FIRST_MAP)


def check_image_size(stem: str, height: int, width: int) -> None:
    """Raises `UserError` where an image of height x width pixels vanishes on the way to the last stage."""
    smallest = smallest_image(stem)
    if min(height, width) < smallest:
        raise UserError(
            f"images of {height}x{width} pixels are too small for the stem {stem!r}: "
            f"the smallest that works is {smallest}x{smallest}; enlarge them or choose a stem of less stride"
        )
