"""The multi-scale block of Yang, Wang, Wei 2024 (Computer Science 51(6A) 230500196) and its designs A, B and C.

The paper describes the block in words and in a table of parameters and multiply-adds: a 7x7 depthwise convolution, its
output concatenated with a 1x1 branch, a 1x1 -> 3x3 branch and a 1x1 -> 5x5 branch, where the 1x1 before 3x3 and 5x5
halves the channels. A 1x1 convolution brings the concatenation back to the width of the block, and a residual is added.
The paper leaves widths and groups open. The readings below meet the parameters of every row to 0.15% and its
multiply-adds to 0.7%, if a layer that two branches share is counted at each of its uses
(`tests/test_models_multiscale.py`).

With C channels, y the normalized output of the 7x7 convolution, and k x k depthwise convolutions:

- the block: y; 1x1 to C; one 1x1 to C/2, shared, then 3x3 and 5x5 that double its channels. Concatenation 4C.
- design A ("one more branch, 7x7"): 1x1 to C/4 for each of four branches, then 1x1, 3x3, 5x5 and 7x7 that multiply them
  by four, without y. Concatenation 4C.
- design B ("two 1x1 convolutions"): as the block, but the 1x1 branch goes through the shared C/2 too.
- design C ("3x3 as 1x3 and 3x1"): y; 1x1 to C; 1x1 to C/2 each, then 1x3 and 3x1, and 5x5, which keep C/2.
  Concatenation 3C.

One LayerNorm, one activation and one layer scale are where ConvNeXt's block has them. The paper is silent on them.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.convolution import DepthwiseConv, Linear
from convnext_jax.layers.normalization import make_norm
from convnext_jax.layers.parameters import Initializer
from convnext_jax.layers.stochastic import BranchScales, add_branch, layer_scale
from convnext_jax.precision import Precision


@dataclasses.dataclass(frozen=True)
class Design:
    """What is concatenated.

    Attributes:
      first: whether y itself is.
      point: input of the 1x1 branch, "y" or the "narrow" map, or None for no such branch.
      sizes: sides of the depthwise convolutions of the other branches. Two of them follow one another.
      narrowing: C over the channels of the 1x1 before them.
      shared: whether they share that 1x1.
      multiplier: channels after a convolution over those before it.
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
    """Depthwise 7x7, norm, branches side by side, activation, 1x1, layer scale, drop path, residual.

    Args:
      init: draws the kernels.
      channels: C, a multiple of 4.
      design: what is concatenated.
      kernel_size: side of the first depthwise convolution.
      norm: "layer" or "batch".
      activation: one of `ACTIVATIONS`.
      scale: what the layer scale starts from; 0 leaves it out.
      precision: what the block computes in.
    """

    branches = 1

    def __init__(
        self,
        init: Initializer,
        channels: int,
        design: Design,
        *,
        kernel_size: int,
        norm: str,
        activation: str,
        scale: float,
        precision: Precision,
    ) -> None:
        for_first, for_point, for_narrow, for_convs, for_project = init.spawn(5)
        narrow = channels // design.narrowing
        wide = narrow * design.multiplier
        self.depthwise = DepthwiseConv(for_first, channels, kernel_size)
        self.norm = make_norm(norm, channels)
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
        self.layer_scale = layer_scale(channels, scale)
        self.design = design
        self.activation = activation
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; ``scales`` has the branch's, [B]."""
        y = self.norm(self.depthwise(x.astype(self.dtype)), training=training)
        narrow = [layer(y) for layer in self.narrow]
        branches = [y] if self.design.first else []
        if self.point is not None:
            branches.append(self.point(y if self.design.point == "y" else narrow[0]))
        for index, convs in enumerate(self.convs):
            # The copies of a channel lie side by side, as in a grouped convolution.
            branch = jnp.repeat(narrow[index % len(narrow)], self.design.multiplier, axis=-1)
            for conv in convs:
                branch = conv(branch)
            branches.append(branch)
        branch = ACTIVATIONS[self.activation](jnp.concatenate(branches, -1))
        branch = self.project(branch, scale=self.layer_scale)  # [B,H,W,C]
        return add_branch(x, branch, None if scales is None else scales[0])
