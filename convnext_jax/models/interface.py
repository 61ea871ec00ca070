"""What every family of networks is: a configuration that builds a model, and what a model can do.

A family is one file: a frozen dataclass that extends `Architecture`, and a module that extends `Model`. Its named
instances are rows of `convnext_jax.models.table.MODELS`. CONTRIBUTING.md adds one as a worked example.
"""

import abc
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import jax
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError
from convnext_jax.layers.block_loop import call_in_loop
from convnext_jax.layers.parameters import Initializer
from convnext_jax.layers.rematerialization import call_rematerialized
from convnext_jax.layers.stochastic import BranchScales, draw_branch_scales, linear_rates
from convnext_jax.precision import Precision


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What a network is built with, whatever its family.

    Attributes:
      init: draws the initial parameters.
      num_classes: number of logits.
      in_channels: channels of the images.
      drop_path: rate of stochastic depth in the last block, growing linearly from 0 in the first.
      dropout: rate of the dropout before the head.
      remat: whether a block's insides are computed again in the backward pass instead of being kept.
      precision: what the network computes in.
    """

    init: Initializer
    num_classes: int
    in_channels: int = 3
    drop_path: float = 0.0
    dropout: float = 0.0
    remat: bool = False
    precision: Precision = Precision()


@dataclasses.dataclass(frozen=True)
class Architecture(abc.ABC):
    """What a network of one family is made of. Each family extends it with fields of its own.

    A variation of a named one is ``dataclasses.replace(MODELS[name], field=value)``. A field that is out of range
    raises UserError at creation.

    Attributes:
      initialization: how the family's reference draws kernels, one of `convnext_jax.layers.parameters.SCHEMES`.
    """

    initialization: ClassVar[str] = "normal"

    @abc.abstractmethod
    def build(self, options: BuildOptions) -> "Model":
        """Builds the network with random float32 parameters."""

    @property
    @abc.abstractmethod
    def smallest_image(self) -> int:
        """The smallest side of an image, in pixels, of which the last stage keeps a pixel."""

    def check_image_size(self, height: int, width: int) -> None:
        """Raises UserError if an image of height x width pixels vanishes on the way to the last stage."""
        smallest = self.smallest_image
        if min(height, width) < smallest:
            raise UserError(
                f"images of {height}x{width} pixels are too small for this network: the smallest that works is"
                f" {smallest}x{smallest}; enlarge them or choose {self.small_image_remedy}"
            )

    @property
    def small_image_remedy(self) -> str:
        """What helps if an image is too small, besides enlarging it."""
        return "a variant for small images"

    def adapt_weight(self, path: str, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """Returns a weight of another shape for a parameter of this network, None if it cannot be adapted.

        A stem's kernel is resized. Families that can adapt more override it.

        Args:
          path: the path of the parameter.
          weight: the given weight.
          shape: that of the parameter.
        """
        if path == "stem/conv/kernel" and weight.shape[2:] == shape[2:] and shape[0] == shape[1]:
            return resize_kernel(weight, shape[0])
        return None

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """Whose PyTorch checkpoints can be read, such as "timm"; empty if there are none."""
        return ()

    @property
    def torch_constants(self) -> tuple[str, ...]:
        """How the names of arrays end that a PyTorch checkpoint may hold and that this network computes itself."""
        return ()

    def torch_name(self, path: str, layout: str) -> str:
        """Returns the name that a parameter, or a running statistic, has in a PyTorch checkpoint.

        Args:
          path: the path of ours, such as ``stages/2/blocks/0/expand/kernel``.
          layout: one of `torch_layouts`.

        Raises:
          ValueError: the layout has no name for it.
        """
        raise ValueError(f"{layout} has no name for {path}")

    def flattened_channels(self, path: str) -> int | None:
        """Returns the channels of the map that a linear layer takes as one vector, None for every other layer.

        We flatten a map [H,W,C], and PyTorch flattens [C,H,W]. So the rows of such a kernel have another order there.

        Args:
          path: the path of the layer's kernel.
        """
        del path
        return None

    def to_torch(self, path: str, array: np.ndarray, layout: str) -> np.ndarray:
        """Returns a parameter in its shape in a PyTorch checkpoint: [D,C,k,k] for [k,k,C,D], [D,C] for [C,D].

        Args:
          path: the path of ours.
          array: the parameter.
          layout: one of `torch_layouts`.
        """
        if channels := self.flattened_channels(path):
            rows = array.reshape(-1, channels, array.shape[1])  # [HW,C,D]
            return rows.transpose(2, 1, 0).reshape(array.shape[1], -1)
        if path.endswith("kernel"):
            return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        return array


# The names of PyTorch's layers for their parameters and running statistics.
TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}


def resize_kernel(kernel: np.ndarray, size: int) -> np.ndarray:
    """Resizes the kernel of a stem.

    Each weight goes to the pixels that cover its place, in proportion to the area that they share. So the sum of the
    weights, which is the answer to a flat image, is kept.

    >>> resize_kernel(np.ones((2, 2, 1, 1)), 4)[:, :, 0, 0].sum().item()
    4.0

    Args:
      kernel: [k,k,C,D].
      size: the new side.

    Returns:
      float32 [size,size,C,D].
    """
    old, new = np.linspace(0.0, 1.0, kernel.shape[0] + 1), np.linspace(0.0, 1.0, size + 1)
    # share[i, j]: how much of old weight j lies in new pixel i.
    overlap = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    share = np.maximum(overlap, 0.0) * kernel.shape[0]
    return np.einsum("ai,bj,ijcd->abcd", share, share, kernel).astype(np.float32)


class Block(Protocol):
    """A part of a stage that keeps the size of its map, or shrinks it in its first block.

    Attributes:
      branches: number of its residual branches, which stochastic depth may drop.
    """

    branches: int

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """Returns the next map; ``scales`` has one array [B] for each branch."""
        ...


class Stage(nnx.Module):
    """Blocks of one width, after a downsampling layer where there is one.

    Args:
      blocks: modules that follow `Block`.
      downsample: called as ``downsample(x, training=...)`` before the first block.
      remat: whether the insides of a block are computed again in the backward pass.
      loop: whether the blocks after the first, which are all alike, are compiled as one loop, so that hundreds of them
        take no longer to compile than one.
    """

    def __init__(
        self, blocks: Sequence[Any], *, downsample: nnx.Module | None = None, remat: bool = False, loop: bool = False
    ) -> None:
        self.downsample = downsample
        self.blocks = nnx.List(blocks)
        self.remat = remat
        self.loop = loop

    def __call__(self, x: jax.Array, scales: Sequence[BranchScales], *, training: bool = False) -> jax.Array:
        """Returns the map after the last block; ``scales`` has an entry for each block."""
        x = self.downsampled(x, training=training)
        blocks = list(self.blocks)
        alike = blocks[1:] if self.loop and len(blocks) > 2 else []
        for block, own in zip(blocks[: len(blocks) - len(alike)], scales, strict=not alike):
            x = self.call_block(block, x, own, training=training)
        if not alike:
            return x
        return call_in_loop(alike, x, scales[1:], training=training, remat=self.remat and training)

    def downsampled(self, x: jax.Array, *, training: bool) -> jax.Array:
        """Returns the map that enters the first block."""
        if self.downsample is None:
            return x
        return self.downsample(x, training=training)  # pyright: ignore[reportCallIssue]

    def call_block(self, block: Any, x: Any, scales: BranchScales, *, training: bool) -> Any:
        """Calls one of the blocks, in training with rematerialization if the stage has it."""
        if self.remat and training:
            return call_rematerialized(block, x, scales)
        return block(x, training=training, scales=scales)


class Model(nnx.Module):
    """A network: a stem, stages of blocks, a head. It is called as ``model(images, key=None)``.

    A family sets `stem`, called as ``stem(images, training=...)``, and `stages`, and defines `classify`. Parameters of
    the stem are below ``stem/``, those of the classifier's linear layer below ``head/``.

    Args:
      architecture: what the network is made of.
      options: what it is built with.
    """

    stem: Any
    stages: nnx.List[Stage]
    # Whether the logits depend on the map of the last stage. A head on a class token reads nothing else.
    reads_last_map: bool = True

    def __init__(self, architecture: Architecture, options: BuildOptions) -> None:
        self.architecture = architecture
        self.precision = options.precision
        self.drop_path = options.drop_path
        self.dropout = options.dropout

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Returns logits, float32 [B,classes], of what the last stage returned. A key means training."""
        raise NotImplementedError

    def to_map(self, x: jax.Array, image_size: tuple[int, int]) -> jax.Array:
        """Returns the feature map [B,H,W,C] of what a stage returned, given the height and width of the images.

        Networks on sequences override it.
        """
        del image_size
        return x

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Returns logits, float32 [B,classes].

        Args:
          images: [B,H,W,C], normalized.
          key: means training: it draws what is random, and BatchNorm uses the statistics of the batch.

        Raises:
          UserError: the images vanish on the way to the last stage.
        """
        return self.classify(self.run_stages(images, key)[-1], key=key)

    def training_outputs(self, images: jax.Array, *, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Returns what the loss of a training step is taken of.

        Networks with auxiliary heads override it. These run here alone, and belong to the part "head".

        Args:
          images: [B,H,W,C], normalized.
          key: draws what is random.

        Returns:
          The logits, float32 [B,classes], as a call with the key returns them, and those of each auxiliary head. A task
          gives the latter its `auxiliary_weight` (`convnext_jax.tasks.interface.training_loss`).

        Raises:
          UserError: the images vanish on the way to the last stage.
        """
        return self(images, key=key), ()

    def statistics_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the running statistics that a training takes from its images before the first step, by their paths.

        Networks whose first layer is computed from the images override it; others have none.

        Args:
          images: float32 [N,H,W,C], normalized.
        """
        del images
        return {}

    @property
    def takes_statistics(self) -> bool:
        """Whether `statistics_of` returns any."""
        return type(self).statistics_of is not Model.statistics_of

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """Returns the output of each stage, for use as a backbone.

        Args:
          images: [B,H,W,C], normalized.
          key: means training, as in a call.

        Returns:
          A map [B,H',W',C'] for each stage.

        Raises:
          UserError: the images vanish on the way to the last stage.
        """
        size = images.shape[1], images.shape[2]
        return tuple(self.to_map(x, size) for x in self.run_stages(images, key))

    def parts(self, *, key: jax.Array | None = None, batch: int = 0) -> dict[str, Callable[[jax.Array], jax.Array]]:
        """Returns the functions that make up the model one after the other: "stem", "stage 1" and so on, "head".

        Args:
          key: means training.
          batch: number of images; only training needs to know.
        """
        training = key is not None
        parts: dict[str, Callable[[jax.Array], jax.Array]] = {
            "stem": lambda images: self.stem(images.astype(self.precision.compute), training=training).astype(
                self.precision.residual
            )
        }
        scales = self._branch_scales(key, batch)
        for index, stage in enumerate(self.stages):
            parts[f"stage {index + 1}"] = functools.partial(stage, scales=scales[index], training=training)
        parts["head"] = functools.partial(self.classify, key=key)
        return parts

    def part_of(self, path: str) -> str:
        """Returns the name of the part in `parts` that the parameter at a path belongs to."""
        first, *rest = path.split("/")
        return f"stage {int(rest[0]) + 1}" if first == "stages" else "stem" if first == "stem" else "head"

    def depth_levels(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """Returns the layers by their depth, for a learning rate that decays from level to level.

        Returns:
          By name, levels from the input to the output, each the prefixes of the paths of its parameters. What no prefix
          covers is the level after the last: the head. "single" has a level for each block, "grouped" one for three
          consecutive blocks of a stage; the stem comes before the first.
        """
        single: list[tuple[str, ...]] = [("stem/",)]
        grouped: list[tuple[str, ...]] = [("stem/",)]
        for index, stage in enumerate(self.stages):
            blocks: list[tuple[str, ...]]
            blocks = [(f"stages/{index}/blocks/{number}/",) for number in range(len(stage.blocks))]
            if stage.downsample is not None:
                blocks[0] = (f"stages/{index}/downsample/", *blocks[0])
            single += blocks
            grouped += [tuple(itertools.chain(*blocks[start : start + 3])) for start in range(0, len(blocks), 3)]
        return {"single": tuple(single), "grouped": tuple(grouped)}

    def drop_rates(self) -> list[float]:
        """Returns the rate of stochastic depth for each residual branch. The branches of a block share its rate."""
        blocks = [block for stage in self.stages for block in stage.blocks]
        rates = linear_rates(self.drop_path, len(blocks))
        return [rate for rate, block in zip(rates, blocks, strict=True) for _ in range(block.branches)]

    def run_stages(self, images: jax.Array, key: jax.Array | None) -> list[Any]:
        """Returns what each stage returns, which `classify` takes the last of and `to_map` makes maps of.

        Args:
          images: [B,H,W,C], normalized.
          key: means training.

        Raises:
          UserError: the images vanish on the way to the last stage.
        """
        self.architecture.check_image_size(images.shape[1], images.shape[2])
        parts, outputs = self.parts(key=key, batch=images.shape[0]), []
        x = parts["stem"](images)
        for index in range(len(self.stages)):
            x = parts[f"stage {index + 1}"](x)
            outputs.append(x)
        return outputs

    def _branch_scales(self, key: jax.Array | None, batch: int) -> list[list[BranchScales]]:
        """Returns the scales of each block, by stages; None if nothing is dropped."""
        if key is None or self.drop_path == 0.0:
            return [[None] * len(stage.blocks) for stage in self.stages]
        scales = iter(draw_branch_scales(jax.random.fold_in(key, 0), self.drop_rates(), batch))
        return [[tuple(itertools.islice(scales, block.branches)) for block in stage.blocks] for stage in self.stages]


def dropout_key(key: jax.Array | None) -> jax.Array | None:
    """Returns the key for the dropout before the head, None outside of training."""
    return None if key is None else jax.random.fold_in(key, 1)


def even_depths(depth: int, stages: int) -> list[int]:
    """Returns the number of blocks in each stage of a network without stages of its own, as equal as possible.

    >>> even_depths(7, 4)
    [1, 2, 2, 2]
    """
    return [depth * (index + 1) // stages - depth * index // stages for index in range(stages)]


def number_blocks(place: str, depths: Sequence[int], name: str) -> str:
    """Returns a path whose block is counted from the first of the network, and not from the first of its stage.

    >>> number_blocks("stages/2/blocks/1/expand", [1, 2, 2, 2], "layers")
    'layers/4/expand'

    Args:
      place: a path; one that is in no block stays as it is.
      depths: blocks of each stage.
      name: what stands before the number.
    """
    return re.sub(
        r"^stages/(\d+)/blocks/(\d+)", lambda block: f"{name}/{sum(depths[: int(block[1])]) + int(block[2])}", place
    )
