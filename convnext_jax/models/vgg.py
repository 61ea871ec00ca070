"""VGG: convolutions of 3x3, and a max pool after each stage of them.

Simonyan and Zisserman, `Very Deep Convolutional Networks for Large-Scale Image Recognition
<https://arxiv.org/abs/1409.1556>`_, 2015. Parameters and answers are those of torchvision, with BatchNorm or, as in the
paper, without, and for small images those of github.com/kuangliu/pytorch-cifar, which has one linear layer.
"""

import dataclasses
import re
from typing import ClassVar

import jax
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.conv_relu import ConvReLU
from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.hidden_layers import HiddenLayers
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import MaxPool, global_average_pool, max_pool
from convnext_jax.layers.stochastic import dropout
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key

NORMS = ("none", "batch")


@dataclasses.dataclass(frozen=True)
class VGGArchitecture(Architecture):
    """What a VGG is made of.

    Attributes:
      depths: convolutions of each stage. The map is halved after each.
      dims: channels of each stage.
      norm: what follows a convolution, one of `NORMS`. A convolution has a bias in any case.
      hidden: outputs of the two linear layers before the head, with dropout after each; 0 has none of them, and the
        head takes the mean over the last map.
      pooled_size: side of the map that is flattened for the linear layers. Images of 224 pixels have a last map of this
        size; the map of others is averaged to it, or its pixels are repeated.
    """

    initialization: ClassVar[str] = "fan_out"

    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    dims: tuple[int, ...] = (64, 128, 256, 512, 512)
    norm: str = "none"
    hidden: int = 4096
    pooled_size: int = 7

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise UserError(f"norm={self.norm!r}: unknown; {nearest(self.norm, NORMS)}")
        right = bool(self.depths) and min(self.depths) >= 1
        check("depths", self.depths, right, "positive numbers, one for each stage")
        right = len(self.dims) == len(self.depths) and min(self.dims) >= 1
        check("dims", self.dims, right, f"{len(self.depths)} positive numbers, one for each stage of depths")
        check("hidden", self.hidden, self.hidden >= 0, "0 or more")
        check("pooled_size", self.pooled_size, self.pooled_size >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "VGG":
        """See `Architecture.build`."""
        return VGG(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: a pixel is left after the last pool."""
        return 2 ** len(self.depths)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "fewer stages (depths and dims)"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("torchvision",) if self.hidden else ("kuangliu",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`; the layers of all stages are numbered through."""
        place, _, leaf = path.rpartition("/")
        if place in _TORCH_CLASSIFIER:
            return f"{_TORCH_CLASSIFIER[place] if self.hidden else 'classifier'}.{TORCH_LEAVES[leaf]}"
        stage, number = 0, 0
        if block := re.match(r"stages/(\d+)/blocks/(\d+)/", place):
            # The first convolution of all is the stem.
            stage, number = int(block[1]), int(block[2]) + (block[1] == "0")
        convolutions = sum(self.depths[:stage]) + number
        index = convolutions * (3 if self.norm == "batch" else 2) + stage + place.endswith("norm")
        return f"features.{index}.{TORCH_LEAVES[leaf]}"

    def flattened_channels(self, path: str) -> int | None:
        """See `Architecture.flattened_channels`."""
        return self.dims[-1] if path == "hidden/first/kernel" else None


_TORCH_CLASSIFIER = {"hidden/first": "classifier.0", "hidden/second": "classifier.3", "head": "classifier.6"}


class VGG(Model):
    """The first convolution, stages of convolutions with a max pool between them, a max pool, and the classifier."""

    def __init__(self, architecture: VGGArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_convs, for_hidden, for_head = options.init.spawn(3)
        for_hidden, for_head = for_hidden.of_head(), for_head.of_head()  # all have fewer outputs than inputs

        def conv(init: Initializer, inputs: int, outputs: int, role: Role | None = None) -> ConvReLU:
            norm = BatchNorm(outputs) if architecture.norm == "batch" else None
            return ConvReLU(init, inputs, outputs, 3, norm=norm, role=role, precision=options.precision)

        inits = iter(for_convs.spawn(sum(architecture.depths)))
        channels = architecture.dims[0]
        self.stem = conv(next(inits), options.in_channels, channels, Role.STEM)
        stages = []
        for index, (depth, dim) in enumerate(zip(architecture.depths, architecture.dims, strict=True)):
            blocks = []
            for _ in range(depth if index else depth - 1):
                blocks.append(conv(next(inits), channels, dim))
                channels = dim
            stages.append(Stage(blocks, downsample=MaxPool(2, stride=2) if index else None, remat=options.remat))
        self.stages = nnx.List(stages)
        self.hidden = (
            HiddenLayers(
                for_hidden,
                channels,
                pooled_size=architecture.pooled_size,
                hidden=architecture.hidden,
                dropout=options.dropout,
                precision=options.precision,
            )
            if architecture.hidden
            else None
        )
        self.head = Linear(for_head, architecture.hidden or channels, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`; the last max pool belongs to it."""
        x, key = max_pool(x, 2, stride=2), dropout_key(key)
        if self.hidden is not None:
            return self.head(self.hidden(x, key=key))
        return self.head(dropout(global_average_pool(x), self.dropout, key))
