"""The tables of architectures and stems. Imports no JAX, so that a configuration is checked at once."""

import dataclasses
import math

from convnext_jax.config import ModelConfig
from convnext_jax.errors import UserError, nearest

ACTIVATIONS = ("gelu", "relu", "silu")
BLOCKS = ("convnext", "multiscale", "multiscale_a", "multiscale_b", "multiscale_c")
CONVOLUTIONS = ("depthwise", "dense")
NORMS = ("layer", "batch")


@dataclasses.dataclass(frozen=True)
class Window:
    """A convolution's window, its stride and the zeros around the map, in pixels."""

    kernel: int
    stride: int
    padding: int = 0

    def output_size(self, size: int) -> int:
        """Side of the map that a side of `size` pixels becomes."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


# The convolutions before the first stage. "patch4" is the paper's, made for 224 px, "patch16" its isotropic networks'
# and "conv7x7_patch2" the multi-scale network's; the others keep more of a small image.
STEMS: dict[str, tuple[Window, ...]] = {
    "patch4": (Window(4, 4),),
    "patch2": (Window(2, 2),),
    "patch1": (Window(1, 1),),
    "patch16": (Window(16, 16),),
    "conv3x3_s1": (Window(3, 1, 1),),
    "conv3x3_s2": (Window(3, 2, 1),),
    "conv7x7_patch2": (Window(7, 2, 3), Window(2, 2)),
}


def stem_output_size(stem: str, size: int) -> int:
    """Side of the first feature map of an image side of `size` pixels."""
    for window in STEMS[stem]:
        size = window.output_size(size)
    return size


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a network is made of. A variation of a published one is `dataclasses.replace(ARCHITECTURES[name], ...)`.

    Attributes:
      depths: blocks of each of the four stages.
      dims: channels of each stage.
      stem: how pixels become the first feature map, one of `STEMS`.
      block: "convnext", or one of the multi-scale blocks (`convnext_jax.models.multiscale`).
      swin_mlp_stages: stages, counted from 1, whose blocks are Swin-MLP's (`convnext_jax.models.swin_mlp`) instead.
      bilstm2d: a two-dimensional LSTM behind the last stage (`convnext_jax.layers.bilstm2d`).
      isotropic: one width and one resolution throughout; no LayerNorm behind the stem.
      grn: Global Response Normalisation behind the activation, as in ConvNeXt V2.
      layer_scale: what each block's layer scale starts from; 0 leaves layer scale out.
      kernel_size: side of the blocks' spatial convolution, odd.
      expansion: channels inside a block over channels outside.
      activation: of a block, one of `ACTIVATIONS`.
      convolution: the blocks' spatial convolution, "depthwise" or "dense".
      norm: "layer" or "batch", everywhere.

    Raises:
      UserError: a field out of its range, at creation.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    stem: str = "patch4"
    block: str = "convnext"
    swin_mlp_stages: tuple[int, ...] = ()
    bilstm2d: bool = False
    isotropic: bool = False
    grn: bool = False
    layer_scale: float = 1e-6
    kernel_size: int = 7
    expansion: int = 4
    activation: str = "gelu"
    convolution: str = "depthwise"
    norm: str = "layer"

    def __post_init__(self) -> None:
        tables = {"stem": STEMS, "block": BLOCKS, "activation": ACTIVATIONS, "convolution": CONVOLUTIONS, "norm": NORMS}
        for field, table in tables.items():
            if (value := getattr(self, field)) not in table:
                raise UserError(f"unknown {field} {value!r}: {nearest(value, table)}")
        four = all(len(sizes) == 4 and min(sizes) >= 1 for sizes in (self.depths, self.dims))
        check("depths, dims", (self.depths, self.dims), four, "four positive numbers each, one for each stage")
        one_width = len(set(self.dims)) == 1
        check("dims", self.dims, one_width or not self.isotropic, "the same in every stage of an isotropic network")
        check("layer_scale", self.layer_scale, 0.0 <= self.layer_scale < math.inf, "0 (left out) or a positive number")
        check("kernel_size", self.kernel_size, self.kernel_size % 2 == 1 and self.kernel_size > 0, "odd and positive")
        stages = self.swin_mlp_stages
        check("swin_mlp_stages", stages, set(stages) <= {1, 2, 3, 4}, "some of 1, 2, 3, 4")
        check("expansion", self.expansion, self.expansion >= 1, "1 or more")
        if self.block != "convnext":
            self._check_multiscale()

    def _check_multiscale(self) -> None:
        for field, value in (("grn", False), ("expansion", 4), ("convolution", "depthwise")):
            check(field, getattr(self, field), getattr(self, field) == value, f"{value} with block={self.block!r}")
        quarters = all(dim % 4 == 0 for dim in self.dims)
        check("dims", self.dims, quarters, f"multiples of 4 with block={self.block!r}")

    @property
    def smallest_image(self) -> int:
        """Smallest image side, in pixels, of which the last stage keeps a pixel."""
        # Three 2x2 convolutions of stride 2 stand between the stages.
        needed = 1 if self.isotropic else 8
        return next(size for size in range(1, 1000) if stem_output_size(self.stem, size) >= needed)

    def check_image_size(self, height: int, width: int) -> None:
        """Raises `UserError` where an image of height x width pixels vanishes on the way to the last stage."""
        if min(height, width) < self.smallest_image:
            raise UserError(
                f"images of {height}x{width} pixels are too small for the stem {self.stem!r}: the smallest that works"
                f" is {self.smallest_image}x{self.smallest_image}; enlarge them or choose a stem of less stride"
            )


def check(field: str, value: object, holds: bool, allowed: str) -> None:
    """Raises `UserError` where a value does not hold to what is allowed."""
    if not holds:
        raise UserError(f"{field} is {value}; it must be {allowed}")


def _v1(depths: tuple[int, ...], first: int) -> Architecture:
    return Architecture(depths, (first, 2 * first, 4 * first, 8 * first))


def _v2(depths: tuple[int, ...], first: int) -> Architecture:
    return dataclasses.replace(_v1(depths, first), grn=True, layer_scale=0.0)


def _isotropic(depths: tuple[int, ...], dim: int, layer_scale: float = 0.0) -> Architecture:
    return Architecture(depths, (dim,) * 4, stem="patch16", isotropic=True, layer_scale=layer_scale)


ARCHITECTURES: dict[str, Architecture] = {
    # Atto to nano: the widths and depths of Woo et al. 2023, appendix A.1, with the blocks of 2022, as timm has them.
    "convnext_atto": _v1((2, 2, 6, 2), 40),
    "convnext_femto": _v1((2, 2, 6, 2), 48),
    "convnext_pico": _v1((2, 2, 6, 2), 64),
    "convnext_nano": _v1((2, 2, 8, 2), 80),
    # Liu et al. 2022 (arXiv 2201.03545), section 3.
    "convnext_tiny": _v1((3, 3, 9, 3), 96),
    "convnext_small": _v1((3, 3, 27, 3), 96),
    "convnext_base": _v1((3, 3, 27, 3), 128),
    "convnext_large": _v1((3, 3, 27, 3), 192),
    "convnext_xlarge": _v1((3, 3, 27, 3), 256),
    # Woo et al. 2023 (arXiv 2301.00808), appendix A.1.
    "convnextv2_atto": _v2((2, 2, 6, 2), 40),
    "convnextv2_femto": _v2((2, 2, 6, 2), 48),
    "convnextv2_pico": _v2((2, 2, 6, 2), 64),
    "convnextv2_nano": _v2((2, 2, 8, 2), 80),
    "convnextv2_tiny": _v2((3, 3, 9, 3), 96),
    "convnextv2_base": _v2((3, 3, 27, 3), 128),
    "convnextv2_large": _v2((3, 3, 27, 3), 192),
    "convnextv2_huge": _v2((3, 3, 27, 3), 352),
    # Liu et al. 2022, section 3.3: 18, 18 and 36 blocks, here in four equal parts as near as may be, so that
    # `features` has four maps. Only the large one was trained with layer scale.
    "convnext_isotropic_small": _isotropic((4, 5, 4, 5), 384),
    "convnext_isotropic_base": _isotropic((4, 5, 4, 5), 768),
    "convnext_isotropic_large": _isotropic((9, 9, 9, 9), 1024, layer_scale=1e-6),
    # Yang, Wang, Wei 2024 (Computer Science 51(6A) 230500196), "our ConvNeXt-T". Without its block, stem or LSTM it is
    # the paper's ablations.
    "convnext_multiscale": Architecture(
        (3, 3, 9, 3), (64, 128, 320, 512), stem="conv7x7_patch2", block="multiscale", bilstm2d=True
    ),
    # A course report's "improved" model, of which one line is known: "a swin-mlp module tried". Where it was tried is
    # this project's reading: in the two last stages, whose maps a window covers.
    "convnext_swin_mlp": dataclasses.replace(_v1((3, 3, 9, 3), 96), swin_mlp_stages=(3, 4)),
}


def named_architecture(name: str) -> Architecture:
    """The architecture of a name; raises `UserError` with the nearest where there is none."""
    if name not in ARCHITECTURES:
        raise UserError(f"unknown model {name!r}: {nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def configured_architecture(config: ModelConfig) -> Architecture:
    """The architecture of a configuration: the one of its name, with the fields that it sets changed."""
    fields = {field.name for field in dataclasses.fields(Architecture)}
    changes = {
        name: value for name, value in dataclasses.asdict(config).items() if name in fields and value is not None
    }
    return dataclasses.replace(named_architecture(config.name), **changes)
