"""Airbench: small convolutional networks that learn CIFAR-10 in the fewest operations.

Jordan, `94% on CIFAR-10 in 3.29 Seconds on a Single GPU <https://arxiv.org/abs/2404.00498>`_, 2024, and
github.com/KellerJordan/cifar10-airbench for the current sizes. A fixed convolution that whitens the pixels, three
blocks that halve the map, and the maximum over the last map. The norms have no scale, and a convolution starts as the
identity where it can.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import numpy as np
from flax import nnx

from convnext_jax.errors import check
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import max_pool
from convnext_jax.layers.stochastic import BranchScales, dropout
from convnext_jax.layers.whitening import Whitening, whitening_kernel
from convnext_jax.models.interface import Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.ops.gelu import gelu
from convnext_jax.precision import Precision

EPSILON = 1e-12  # of the norms


@dataclasses.dataclass(frozen=True)
class AirbenchArchitecture(Architecture):
    """What an Airbench network is made of.

    Attributes:
      dims: channels of each block.
      depth: convolutions of a block, 2 or 3. Of 3, the last two are a residual branch.
      patch_size: side of the patches that are whitened, in pixels.
      momentum: of the norms, in (0, 1]; see `BatchNorm`. With a large one few steps are enough for the running
        statistics.
      logit_scale: factor before the head.
    """

    initialization: ClassVar[str] = "fan_in"

    dims: tuple[int, ...] = (64, 256, 256)
    depth: int = 2
    patch_size: int = 2
    momentum: float = 0.4
    logit_scale: float = 1 / 9

    def __post_init__(self) -> None:
        right = bool(self.dims) and min(self.dims) >= 1
        check("dims", self.dims, right, "positive numbers, one for each block")
        check("depth", self.depth, self.depth in (2, 3), "2 or 3")
        check("patch_size", self.patch_size, self.patch_size >= 1, "1 or more")
        check("momentum", self.momentum, 0 < self.momentum <= 1, "in (0, 1]")
        check("logit_scale", self.logit_scale, self.logit_scale > 0, "positive")

    def build(self, options: BuildOptions) -> "Airbench":
        """See `Architecture.build`."""
        return Airbench(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: a pixel is left after the last block."""
        return 2 ** len(self.dims) + self.patch_size - 1

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "fewer blocks (dims)"


class Stem(nnx.Module):
    """Whitening and GELU."""

    def __init__(self, init: Initializer, inputs: int, size: int) -> None:
        self.whitening = Whitening(init, inputs, size)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H - size + 1,W - size + 1,2 size^2 inputs]."""
        del training
        return gelu(self.whitening(x))


class Block(nnx.Module):
    """A convolution, a max pool, BatchNorm and GELU; then one or two more convolutions with BatchNorm and GELU."""

    branches = 0  # the residual branch of three convolutions is never dropped

    def __init__(
        self, init: Initializer, inputs: int, outputs: int, architecture: AirbenchArchitecture, precision: Precision
    ) -> None:
        depth = architecture.depth
        channels = [inputs] + [outputs] * (depth - 1)
        self.convs = nnx.List(
            [
                Conv(each, count, outputs, 3, padding=1, bias=False, identity=True)
                for each, count in zip(init.spawn(depth), channels, strict=True)
            ]
        )
        norm = functools.partial(BatchNorm, outputs, momentum=architecture.momentum, epsilon=EPSILON, scaled=False)
        self.norms = nnx.List([norm() for _ in channels])
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,H // 2,W // 2,outputs]; ``scales`` are none."""
        del scales
        x = x.astype(self.precision.compute)
        first = gelu(self.norms[0](max_pool(self.convs[0](x), 2, stride=2), training=training))
        x = self.norms[1](self.convs[1](first), training=training)
        if len(self.convs) == 3:
            x = first + self.norms[2](self.convs[2](gelu(x)), training=training)
        return gelu(x).astype(self.precision.residual)


class Airbench(Model):
    """Whitening, blocks, the maximum over the map, a linear head without a bias."""

    architecture: AirbenchArchitecture

    def __init__(self, architecture: AirbenchArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_blocks, for_head = options.init.spawn(3)
        self.stem = Stem(for_stem, options.in_channels, architecture.patch_size)
        stages, channels = [], 2 * architecture.patch_size**2 * options.in_channels
        for init, dim in zip(for_blocks.spawn(len(architecture.dims)), architecture.dims, strict=True):
            block = Block(init, channels, dim, architecture, options.precision)
            stages.append(Stage([block], remat=options.remat))
            channels = dim
        self.stages = nnx.List(stages)
        self.head = Linear(for_head, channels, options.num_classes, bias=False, role=Role.HEAD)

    def statistics_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See `Model.statistics_of`: the kernel that whitens them."""
        return {"stem/whitening/kernel": whitening_kernel(images, self.architecture.patch_size)}

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = x.astype("float32").max((1, 2))  # [B,C]
        return self.head(dropout(x, self.dropout, dropout_key(key)) * self.architecture.logit_scale)
