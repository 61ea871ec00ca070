"""LeNet-5.

LeCun et al., `Gradient-Based Learning Applied to Document Recognition
<http://yann.lecun.com/exdb/publis/pdf/lecun-01a.pdf>`_, 1998, with max pooling, ReLU and every map of a layer connected
to every map of the next. An image of 32 pixels gives the 61,706 parameters that are usually cited; a larger one is
averaged before the last two layers.
"""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from convnext_jax.errors import check
from convnext_jax.layers.conv_relu import ConvReLU
from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.parameters import Role
from convnext_jax.layers.pooling import MaxPool, global_average_pool
from convnext_jax.layers.stochastic import dropout
from convnext_jax.models.interface import Architecture, BuildOptions, Model, Stage, dropout_key

KERNEL_SIZE = 5  # of each convolution, without zeros around the map


@dataclasses.dataclass(frozen=True)
class LeNetArchitecture(Architecture):
    """What a LeNet is made of.

    Attributes:
      dims: channels of the three convolutions.
      hidden: channels before the head.
    """

    initialization: ClassVar[str] = "fan_in"

    dims: tuple[int, ...] = (6, 16, 120)
    hidden: int = 84

    def __post_init__(self) -> None:
        check("dims", self.dims, len(self.dims) == 3 and min(self.dims) >= 1, "three positive numbers")
        check("hidden", self.hidden, self.hidden >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "LeNet":
        """See `Architecture.build`."""
        return LeNet(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: 32 pixels become 28, 14, 10, 5 and 1."""
        return 32

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "another network"


class LeNet(Model):
    """Stem, two stages of one block, global average pool, hidden layer, linear head."""

    def __init__(self, architecture: LeNetArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_second, for_third, for_hidden, for_head = options.init.spawn(5)
        first, second, third = architecture.dims
        same = {"size": KERNEL_SIZE, "padding": 0, "precision": options.precision}
        self.stem = ConvReLU(for_stem, options.in_channels, first, role=Role.STEM, **same)
        blocks = (ConvReLU(for_second, first, second, **same), ConvReLU(for_third, second, third, **same))
        self.stages = nnx.List(
            [Stage([block], downsample=MaxPool(2, stride=2), remat=options.remat) for block in blocks]
        )
        self.hidden = Linear(for_hidden, third, architecture.hidden)
        self.head = Linear(for_head, architecture.hidden, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = jax.nn.relu(self.hidden(global_average_pool(x)))  # [B,hidden]
        return self.head(dropout(x, self.dropout, dropout_key(key)))
