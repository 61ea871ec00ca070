"""EfficientNet B0 to B7.

Tan and Le, `EfficientNet <https://arxiv.org/abs/1905.11946>`_, 2019. Parameters and answers are those of torchvision.
"""

import dataclasses
import math
import re
from typing import ClassVar

import jax
import numpy as np

from convnext_jax.errors import check
from convnext_jax.models.interface import TORCH_LEAVES, BuildOptions
from convnext_jax.models.inverted_residuals import InvertedResidualArchitecture, InvertedResidualNet, Row

STEM = 32


@dataclasses.dataclass(frozen=True)
class EfficientNetArchitecture(InvertedResidualArchitecture):
    """What an EfficientNet is made of.

    Attributes:
      width_multiplier: channels over those of B0, rounded to multiples of 8.
      depth_multiplier: blocks over those of B0, rounded up in each row of its table.
      strides: 1 or 2, of the stem and of each stage after the first; as many stages as strides.
      momentum: of the BatchNorms, share of the batch's statistics, in (0, 1].
      epsilon: of the BatchNorms, added to the variance.
    """

    # Table 1 of the paper (B0), a stage for each resolution.
    table: ClassVar[tuple[tuple[Row, ...], ...]] = (
        (Row(1, 3, 16, 1),),
        (Row(6, 3, 24, 2),),
        (Row(6, 5, 40, 2),),
        (Row(6, 3, 80, 3), Row(6, 5, 112, 3)),
        (Row(6, 5, 192, 4), Row(6, 3, 320, 1)),
    )

    momentum: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        check("momentum", self.momentum, 0.0 < self.momentum <= 1.0, "in (0, 1]")
        check("epsilon", self.epsilon, 0.0 < self.epsilon < math.inf, "a positive number")

    def build(self, options: BuildOptions) -> InvertedResidualNet:
        """See `Architecture.build`."""
        stages = self.stages()
        return InvertedResidualNet(
            self,
            options,
            stem=self.width(STEM),
            last=4 * stages[-1][-1].channels,
            activation=jax.nn.silu,
            squeeze=True,
            momentum=self.momentum,
            epsilon=self.epsilon,
        )

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("torchvision",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        if block := re.match(r"stages/(\d+)/blocks/(\d+)/(\w+)/(\w+)", place):
            index = {"expand": 0, "depthwise": 1, "squeeze": 2, "project": 3}[block[3]] - (block[1] == "0")
            layer = {"conv": "0", "norm": "1", "reduce": "fc1", "expand": "fc2"}[block[4]]
            place = f"{self._torch_block(int(block[1]), int(block[2]))}.block.{index}.{layer}"
        else:
            last = f"features.{1 + sum(map(len, self.stages()))}"
            places = {"stem/conv": "features.0.0", "stem/norm": "features.0.1", "head": "classifier.1"}
            places |= {"last/conv": f"{last}.0", "last/norm": f"{last}.1"}
            place = places[place]
        return f"{place}.{TORCH_LEAVES[leaf]}"

    def _torch_block(self, stage: int, number: int) -> str:
        """The place of a block in torchvision, which has a list for each row of the table."""
        stages = self.stages()
        before = sum(map(len, stages[:stage]))
        for row in stages[stage]:
            if number < row.depth:
                break
            before, number = before + 1, number - row.depth
        return f"features.{1 + before}.{number}"

    def to_torch(self, path: str, array: np.ndarray, layout: str) -> np.ndarray:
        """See `Architecture.to_torch`; the layers of a squeeze-and-excitation are 1x1 convolutions."""
        array = super().to_torch(path, array, layout)
        return array[:, :, None, None] if "/squeeze/" in path and path.endswith("kernel") else array
