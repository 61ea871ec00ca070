"""WaveMix-Lite: space is mixed by a wavelet transform instead of attention.

Jeevan et al., `WaveMix: A Resource-efficient Neural Network for Image Analysis <https://arxiv.org/abs/2205.14375>`_,
2022. Parameters and answers are those of the authors' package ``wavemix`` with one level of the transform. Their
dropout inside of the blocks is left out.
"""

import dataclasses
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.convolution import Conv, ConvTranspose, Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout
from convnext_jax.layers.wavelet import haar_transform
from convnext_jax.models.interface import (
    TORCH_LEAVES,
    Architecture,
    BuildOptions,
    Model,
    Stage,
    dropout_key,
    even_depths,
    number_blocks,
)
from convnext_jax.precision import Precision

STAGES = 4  # parts of equal depth, so that `features` returns four maps
# For each convolution (side of the window, stride, padding, what part of the channels it has), and whether GELU and
# BatchNorm follow the last. The authors take "conv3x3_s1" for small images and "patch4" for large ones.
STEMS = {
    "conv3x3_s1": (((3, 1, 1, 2), (3, 1, 1, 1)), False),
    "conv3x3_s2": (((3, 2, 1, 2), (3, 2, 1, 1)), False),
    "patch4": (((3, 1, 1, 4), (3, 1, 1, 2), (4, 4, 0, 1)), True),
}


@dataclasses.dataclass(frozen=True)
class WaveMixArchitecture(Architecture):
    """What a WaveMix-Lite is made of.

    Attributes:
      dim: channels of the map, a multiple of 4.
      depth: number of blocks, 4 or more.
      expansion: channels inside the MLP over channels outside.
      stem: how pixels become the first feature map, one of `STEMS`.
    """

    initialization: ClassVar[str] = "fan_in"

    dim: int
    depth: int
    expansion: int = 2
    stem: str = "conv3x3_s1"

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise UserError(f"stem={self.stem!r}: unknown; {nearest(self.stem, STEMS)}")
        check("dim", self.dim, self.dim >= 4 and self.dim % 4 == 0, "a multiple of 4")
        check("depth", self.depth, self.depth >= STAGES, f"{STAGES} or more")
        check("expansion", self.expansion, self.expansion >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "WaveMix":
        """See `Architecture.build`."""
        return WaveMix(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: a map of 2x2 pixels, which the transform makes one of."""
        return 2 * int(np.prod([stride for _, stride, _, _ in STEMS[self.stem][0]]))

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "the stem 'conv3x3_s1'"

    def check_image_size(self, height: int, width: int) -> None:
        """See `Architecture.check_image_size`; the map must have even sides."""
        super().check_image_size(height, width)
        sides = [height, width]
        for size, stride, padding, _ in STEMS[self.stem][0]:
            sides = [(side + 2 * padding - size) // stride + 1 for side in sides]
        if any(side % 2 for side in sides):
            raise UserError(
                f"images of {height}x{width} pixels become a map of {sides[0]}x{sides[1]}, and the wavelet transform"
                f" halves even sides only; choose sides that are multiples of {self.smallest_image}"
            )

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("wavemix",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        place = number_blocks(place, even_depths(self.depth, STAGES), "layers")
        if convolution := re.match(r"stem/more/(\d+)", place):
            place = f"conv/{int(convolution[1]) + 1}"
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"

    def to_torch(self, path: str, array: np.ndarray, layout: str) -> np.ndarray:
        """See `Architecture.to_torch`; the linear layers of the blocks are 1x1 convolutions there."""
        theirs = super().to_torch(path, array, layout)
        return theirs[:, :, None, None] if theirs.ndim == 2 and path.startswith("stages/") else theirs


_TORCH_PLACES = {
    r"^stem/conv$": "conv/0",
    r"^stem/norm$": "conv/4",
    r"/reduce$": "/reduction",
    r"/expand$": "/feedforward/0",
    r"/project$": "/feedforward/3",
    r"/enlarge$": "/feedforward/4",
    r"/norm$": "/feedforward/5",
    r"^head$": "pool/2",
}


class Stem(nnx.Module):
    """Convolutions, and GELU and BatchNorm after patches."""

    def __init__(self, init: Initializer, inputs: int, architecture: WaveMixArchitecture) -> None:
        windows, normalizes = STEMS[architecture.stem]
        channels = [inputs, *(architecture.dim // part for _, _, _, part in windows)]
        self.conv, *more = [
            Conv(each, channels[index], channels[index + 1], size, stride=stride, padding=padding, role=Role.STEM)
            for index, (each, (size, stride, padding, _)) in enumerate(
                zip(init.spawn(len(windows)), windows, strict=True)
            )
        ]
        self.more = nnx.List(more)
        self.norm = BatchNorm(architecture.dim) if normalizes else None

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',dim], by the strides."""
        for conv in (self.conv, *self.more):
            x = conv(x)
        return x if self.norm is None else self.norm(ACTIVATIONS["gelu"](x), training=training)


class Block(nnx.Module):
    """Narrow layer, Haar transform, wide layer, GELU, linear layer, transposed convolution, BatchNorm, residual."""

    branches = 1

    def __init__(self, init: Initializer, architecture: WaveMixArchitecture, precision: Precision) -> None:
        for_reduce, for_expand, for_project, for_enlarge = init.spawn(4)
        dim, hidden = architecture.dim, architecture.expansion * architecture.dim
        self.reduce = Linear(for_reduce, dim, dim // 4)
        self.expand = Linear(for_expand, dim, hidden)
        self.project = Linear(for_project, hidden, dim)
        self.enlarge = ConvTranspose(for_enlarge, dim, dim, 4, stride=2, padding=1)
        self.norm = BatchNorm(dim)
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,dim] -> [B,H,W,dim]; ``scales`` has the branch's, [B]."""
        low, details = haar_transform(self.reduce(x.astype(self.dtype)))
        branch = jnp.concatenate([low, details.reshape(*low.shape[:3], -1)], -1)  # [B,H/2,W/2,dim]
        branch = self.project(ACTIVATIONS["gelu"](self.expand(branch)))
        branch = self.norm(self.enlarge(branch), training=training)  # [B,H,W,dim]
        return add_branch(x, branch, None if scales is None else scales[0])


class WaveMix(Model):
    """Stem, blocks in four equal parts, average pool, linear head."""

    def __init__(self, architecture: WaveMixArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_head, for_blocks = options.init.spawn(3)
        self.stem = Stem(for_stem, options.in_channels, architecture)
        blocks = iter([Block(init, architecture, options.precision) for init in for_blocks.spawn(architecture.depth)])
        depths = even_depths(architecture.depth, STAGES)
        self.stages = nnx.List([Stage([next(blocks) for _ in range(n)], remat=options.remat) for n in depths])
        self.head = Linear(for_head, architecture.dim, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        return self.head(dropout(global_average_pool(x), self.dropout, dropout_key(key)))
