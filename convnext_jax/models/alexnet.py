"""AlexNet, in one column: no convolution has groups, and there is no local response normalization.

Krizhevsky et al., `ImageNet Classification with Deep Convolutional Neural Networks
<https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks>`_, 2012, whose
network lay on two GPUs and hence had two groups in three of its convolutions; Krizhevsky, `One Weird Trick
<https://arxiv.org/abs/1404.5997>`_, 2014, for the narrower network of torchvision, whose parameters and answers these
are.
"""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.conv_relu import ConvReLU
from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.hidden_layers import HiddenLayers
from convnext_jax.layers.parameters import Role
from convnext_jax.layers.pooling import MaxPool, max_pool
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key

# (side of the window, stride, zeros on each side). "conv11x11_s4" is the paper's, made for 224 px.
STEMS = {"conv11x11_s4": (11, 4, 2), "conv3x3_s1": (3, 1, 1), "conv3x3_s2": (3, 2, 1)}
POOL_SIZE, POOL_STRIDE = 3, 2  # of the three max pools, which overlap


@dataclasses.dataclass(frozen=True)
class AlexNetArchitecture(Architecture):
    """What an AlexNet is made of.

    Attributes:
      dims: channels of the five convolutions.
      hidden: outputs of the two linear layers before the head. Dropout comes after each of them.
      stem: the first convolution, one of `STEMS`.
      pooled_size: side of the map that is flattened for the linear layers. Images of 224 pixels have a last map of this
        size; the map of others is averaged to it, or its pixels are repeated.
    """

    initialization: ClassVar[str] = "fan_in"

    dims: tuple[int, ...] = (64, 192, 384, 256, 256)
    hidden: int = 4096
    stem: str = "conv11x11_s4"
    pooled_size: int = 6

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise UserError(f"stem={self.stem!r}: unknown; {nearest(self.stem, STEMS)}")
        check("dims", self.dims, len(self.dims) == 5 and min(self.dims) >= 1, "five positive numbers")
        for field in ("hidden", "pooled_size"):
            check(field, getattr(self, field), getattr(self, field) >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "AlexNet":
        """See `Architecture.build`."""
        return AlexNet(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: the pools make 15 pixels 7, 3 and 1."""
        size, stride, padding = STEMS[self.stem]
        return 14 * stride + size - 2 * padding

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "the stem 'conv3x3_s1'"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("torchvision",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        return f"{_TORCH_PLACES[place]}.{TORCH_LEAVES[leaf]}"

    def flattened_channels(self, path: str) -> int | None:
        """See `Architecture.flattened_channels`."""
        return self.dims[-1] if path == "hidden/first/kernel" else None


_TORCH_PLACES = {
    "stem/conv": "features.0",
    "stages/0/blocks/0/conv": "features.3",
    "stages/1/blocks/0/conv": "features.6",
    "stages/1/blocks/1/conv": "features.8",
    "stages/1/blocks/2/conv": "features.10",
    "hidden/first": "classifier.1",
    "hidden/second": "classifier.4",
    "head": "classifier.6",
}


class AlexNet(Model):
    """Stem, a stage of one and a stage of three convolutions with a max pool before each, two hidden layers, head."""

    def __init__(self, architecture: AlexNetArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        *for_convs, for_hidden, for_head = options.init.spawn(7)
        size, stride, padding = STEMS[architecture.stem]
        sizes = (size, 5, 3, 3, 3)
        channels = (options.in_channels, *architecture.dims)
        self.stem, *blocks = (
            ConvReLU(
                init,
                channels[number],
                channels[number + 1],
                sizes[number],
                stride=1 if number else stride,
                padding=None if number else padding,
                role=None if number else Role.STEM,
                precision=options.precision,
            )
            for number, init in enumerate(for_convs)
        )
        self.stages = nnx.List(
            [
                Stage(part, downsample=MaxPool(POOL_SIZE, stride=POOL_STRIDE), remat=options.remat)
                for part in (blocks[:1], blocks[1:])
            ]
        )
        self.hidden = HiddenLayers(
            for_hidden,
            architecture.dims[-1],
            pooled_size=architecture.pooled_size,
            hidden=architecture.hidden,
            dropout=options.dropout,
            precision=options.precision,
        )
        self.head = Linear(for_head, architecture.hidden, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = max_pool(x, POOL_SIZE, stride=POOL_STRIDE)
        return self.head(self.hidden(x, key=dropout_key(key)))
