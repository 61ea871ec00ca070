"""MobileNetV2.

Sandler et al., `MobileNetV2 <https://arxiv.org/abs/1801.04381>`_, 2018. Parameters and answers are those of
torchvision.
"""

import dataclasses
import re
from typing import ClassVar

import jax

from convnext_jax.layers.inverted_residual import round_channels
from convnext_jax.models.interface import TORCH_LEAVES, BuildOptions
from convnext_jax.models.inverted_residuals import InvertedResidualArchitecture, InvertedResidualNet, Row

STEM, LAST = 32, 1280


@dataclasses.dataclass(frozen=True)
class MobileNetV2Architecture(InvertedResidualArchitecture):
    """What a MobileNetV2 is made of.

    Attributes:
      width_multiplier: channels over those of the paper's table, rounded to multiples of 8. The last convolution gets
        no narrower.
      depth_multiplier: blocks over those of the paper's table, rounded up in each of its rows.
      strides: 1 or 2, of the stem and of each stage after the first; as many stages as strides.
    """

    # Table 2 of the paper, a stage for each resolution.
    table: ClassVar[tuple[tuple[Row, ...], ...]] = (
        (Row(1, 3, 16, 1),),
        (Row(6, 3, 24, 2),),
        (Row(6, 3, 32, 3),),
        (Row(6, 3, 64, 4), Row(6, 3, 96, 3)),
        (Row(6, 3, 160, 3), Row(6, 3, 320, 1)),
    )

    def build(self, options: BuildOptions) -> InvertedResidualNet:
        """See `Architecture.build`."""
        last = round_channels(LAST * max(1.0, self.width_multiplier))
        return InvertedResidualNet(self, options, stem=self.width(STEM), last=last, activation=jax.nn.relu6)

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("torchvision",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        blocks = [sum(row.depth for row in rows) for rows in self.stages()]
        if block := re.match(r"stages/(\d+)/blocks/(\d+)/(\w+)/(\w+)", place):
            stage, number, part, layer = int(block[1]), int(block[2]), block[3], block[4]
            place = f"features.{1 + sum(blocks[:stage]) + number}.conv.{_torch_layer(stage, part, layer)}"
        else:
            before, after = "features.0", f"features.{1 + sum(blocks)}"
            places = {"stem/conv": f"{before}.0", "stem/norm": f"{before}.1", "head": "classifier.1"}
            places |= {"last/conv": f"{after}.0", "last/norm": f"{after}.1"}
            place = places[place]
        return f"{place}.{TORCH_LEAVES[leaf]}"


def _torch_layer(stage: int, part: str, layer: str) -> str:
    """The number of a layer in torchvision's block, of which those of the first stage do not expand."""
    index = {"expand": 0, "depthwise": 1, "project": 2}[part] - (stage == 0)
    if part == "project":
        return str(index + (layer == "norm"))
    return f"{index}.{int(layer == 'norm')}"
