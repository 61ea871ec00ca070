"""The multi-scale block of Yang, Wang, Wei 2024 (Computer Science 51(6A) 230500196) and its designs A, B and C.

The paper gives the block in words and a table of parameters and multiply-adds: a 7x7 depthwise convolution, its output
concatenated with a 1x1 branch, a 1x1 -> 3x3 branch and a 1x1 -> 5x5 branch, the 1x1 before 3x3 and 5x5 halving the
channels; a 1x1 convolution brings the concatenation back to the width; residual. Widths and groups are left open. The
readings below meet every row's parameters to 0.15% and its multiply-adds to 0.7%, if a layer that two branches share is
counted at each of its uses; `tests/test_models_multiscale.py` holds them to that.

With C channels, y the depthwise 7x7's normalised output, and k x k depthwise convolutions:

- the block: y; 1x1 to C; one 1x1 to C/2, shared, then 3x3 and 5x5 that double its channels. Concatenation 4C.
- design A ("one more branch, 7x7"): 1x1 to C/4 for each of four branches, then 1x1, 3x3, 5x5 and 7x7 that fourfold
  them, without y. Concatenation 4C.
- design B ("two 1x1 convolutions"): as the block, but the 1x1 branch goes through the shared C/2 too.
- design C ("3x3 as 1x3 and 3x1"): y; 1x1 to C; 1x1 to C/2 each, then 1x3 and 3x1, and 5x5, which keep C/2.
  Concatenation 3C.

LayerNorm, activation and layer scale stand where ConvNeXt's block has them, one of each, on which the paper is silent.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.models.architectures import Architecture
from convnext_jax.layers.drop_path import BranchScales
from convnext_jax.layers.layers import (
    DepthwiseConv,
    Initializer,
    Linear,
    activation,
    add_branch,
    initial_layer_scale,
    make_norm,
)


@dataclasses.dataclass(frozen=True)
class Design:
    """What is concatenated.

    Attributes:
      first: whether y itself is.
      point: input of the 1x1 branch, "y" or the "narrow" map, or None without one.
      sizes: sides of the other branches' depthwise convolutions; two of them stand one behind the other.
      narrowing: C over the channels of the 1x1 before them.
      shared: whether they share that 1x1.
      multiplier: channels behind a convolution over those before it.
    """

    first: bool = True
    point: str | None = "y"
    sizes: tuple[tuple[tuple[int, int], ...], ...] = (((3, 3),), ((5, 5),))
    narrowing: int = 2
    shared: bool = True
    multiplier: int = 2


DESIGNS: dict[str, Design] = {
    "multiscale": Design(),
    "multiscale_a": Design(
        first=False,
        point=None,
        sizes=(((1, 1),), ((3, 3),), ((5, 5),), ((7, 7),)),
        narrowing=4,
        shared=False,
        multiplier=4,
    ),
    "multiscale_b": Design(point="narrow"),
    "multiscale_c": Design(sizes=(((1, 3), (3, 1)), ((5, 5),)), shared=False, multiplier=1),
}


class MultiscaleBlock(nnx.Module):
    """Depthwise 7x7, LayerNorm, branches side by side, activation, 1x1, layer scale, drop path, residual."""

    residuals = 1

    def __init__(self, init: Initializer, channels: int, architecture: Architecture) -> None:
        design = DESIGNS[architecture.block]
        for_first, for_point, for_narrow, for_convs, for_project = init.spawn(5)
        narrow = channels // design.narrowing
        wide = narrow * design.multiplier
        self.depthwise = DepthwiseConv(for_first, channels, architecture.kernel_size)
        self.norm = make_norm(architecture.norm, channels)
        point_inputs = {"y": channels, "narrow": narrow, None: 0}[design.point]
        self.point = Linear(for_point, point_inputs, channels) if point_inputs else None
        count = 1 if design.shared else len(design.sizes)
        self.narrow = nnx.List([Linear(i, channels, narrow) for i in for_narrow.spawn(count)])
        self.convs = nnx.List(
            [
                nnx.List([DepthwiseConv(j, wide, size) for j, size in zip(i.spawn(len(sizes)), sizes, strict=True)])
                for i, sizes in zip(for_convs.spawn(len(design.sizes)), design.sizes, strict=True)
            ]
        )
        concatenated = channels * (design.first + (design.point is not None)) + wide * len(design.sizes)
        self.project = Linear(for_project, concatenated, channels)
        self.layer_scale = initial_layer_scale(channels, architecture.layer_scale)
        self.design = design
        self.activation = architecture.activation

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; the branch's scales [B], by drop path."""
        y = self.norm(self.depthwise(x), training=training)
        narrow = [layer(y) for layer in self.narrow]
        branches = [y] if self.design.first else []
        if self.point is not None:
            branches.append(self.point(y if self.design.point == "y" else narrow[0]))
        for index, convs in enumerate(self.convs):
            # A channel's copies lie side by side, as in a grouped convolution.
            branch = jnp.repeat(narrow[index % len(narrow)], self.design.multiplier, axis=-1)
            for conv in convs:
                branch = conv(branch)
            branches.append(branch)
        branch = self.project(activation(self.activation)(jnp.concatenate(branches, -1)))  # [B,H,W,C]
        return add_branch(x, branch, self.layer_scale, scales)
