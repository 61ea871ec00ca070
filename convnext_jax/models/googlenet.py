"""GoogLeNet: blocks of four branches side by side, and auxiliary heads that only training uses.

Szegedy et al., `Going Deeper with Convolutions <https://arxiv.org/abs/1409.4842>`_, 2015. Parameters and answers are
those of torchvision, which follows TensorFlow's later version of it: BatchNorm after each convolution, windows of 3x3
pixels in place of 5x5, and a last max pool of 2x2.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.conv_relu import ConvReLU
from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import MaxPool, adaptive_average_pool, global_average_pool, max_pool
from convnext_jax.layers.stochastic import BranchScales, dropout
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.precision import Precision

NORMS = ("none", "batch")
# (side of the window, stride, whether max pools of 3x3 with stride 2 follow it and the convolutions after it).
# "conv7x7_s2_pools" is the paper's, made for 224 px; the others keep more of a small image.
STEMS = {"conv7x7_s2_pools": (7, 2, True), "conv3x3_s1": (3, 1, False), "conv3x3_s2": (3, 2, False)}
STEM_OUTPUTS = 192
# Channels of the blocks of each stage, table 1 of the paper: of the 1x1 convolution, of the 3x3 one after its
# reduction, of the 5x5 one after its reduction, and of the projection of the pool.
BLOCKS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
# The blocks whose maps go to an auxiliary head, if they are there: the first and the fourth of the second stage.
TAPPED_STAGE, TAPS = 1, (0, 3)
AUXILIARY_SIZE, AUXILIARY_CHANNELS, AUXILIARY_HIDDEN = 4, 128, 1024


@dataclasses.dataclass(frozen=True)
class GoogLeNetArchitecture(Architecture):
    """What a GoogLeNet is made of.

    Attributes:
      depths: blocks of each of the three stages, at most 2, 5 and 2.
      width: channels of the first convolution; all others are in proportion to it.
      stem: how pixels become the first feature map, one of `STEMS`.
      window: side of the window of the third branch, in pixels: 5 in the paper, 3 in torchvision's network.
      norm: what follows a convolution, one of `NORMS`. Without a norm a convolution has a bias.
      last_pool: side of the max pool before the last stage, in pixels: 3 in the paper, 2 in torchvision's network.
      auxiliary_heads: whether training has further heads, after the first and the fourth block of the second stage.
        Their parameters count, as with torchvision's constructor; the 6.6 million of its documentation are those
        without them.
      auxiliary_dropout: rate of the dropout in these heads, in [0, 1).
    """

    initialization: ClassVar[str] = "fan_in"  # as in the model that Caffe's authors trained

    depths: tuple[int, ...] = (2, 5, 2)
    width: int = 64
    stem: str = "conv7x7_s2_pools"
    window: int = 3
    norm: str = "batch"
    last_pool: int = 2
    auxiliary_heads: bool = True
    auxiliary_dropout: float = 0.7

    def __post_init__(self) -> None:
        for field, table in {"stem": STEMS, "norm": NORMS}.items():
            if (value := getattr(self, field)) not in table:
                raise UserError(f"{field}={value!r}: unknown; {nearest(value, table)}")
        right = len(self.depths) == len(BLOCKS)
        right = right and all(1 <= depth <= len(rows) for depth, rows in zip(self.depths, BLOCKS, strict=True))
        check("depths", self.depths, right, "three positive numbers, at most 2, 5 and 2")
        check("width", self.width, self.width >= 1, "1 or more")
        check("window", self.window, self.window >= 1 and self.window % 2 == 1, "an odd number, 1 or more")
        check("last_pool", self.last_pool, self.last_pool in (2, 3), "2 or 3")
        check("auxiliary_dropout", self.auxiliary_dropout, 0 <= self.auxiliary_dropout < 1, "in [0, 1)")

    def build(self, options: BuildOptions) -> "GoogLeNet":
        """See `Architecture.build`."""
        return GoogLeNet(self, options)

    def channels(self, count: int) -> int:
        """Returns the number of channels of this network where the one of the paper has ``count``."""
        return max(1, count * self.width // 64)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: a pool of 3x3 pixels takes a map of 2 pixels or more."""
        _, stride, pools = STEMS[self.stem]
        pixels = 2 * (self.last_pool - 1) * (4 if pools else 1)
        return stride * (pixels - 1) + 1

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
        if block := re.match(r"stages/(\d+)/blocks/(\d+)/", place):
            place = f"inception{int(block[1]) + 3}{'abcde'[int(block[2])]}/{place[block.end() :]}"
        if auxiliary := re.match(r"auxiliary/(\d+)/", place):
            place = f"aux{int(auxiliary[1]) + 1}/{place[auxiliary.end() :]}"
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"

    def flattened_channels(self, path: str) -> int | None:
        """See `Architecture.flattened_channels`; those of the auxiliary heads."""
        return self.channels(AUXILIARY_CHANNELS) if re.fullmatch(r"auxiliary/\d+/hidden/kernel", path) else None


_TORCH_PLACES = {
    r"^stem/(conv|norm)$": r"conv1/\1",
    r"^stem/reduce/": "conv2/",
    r"^stem/expand/": "conv3/",
    r"/single/": "/branch1/",
    r"/reduce_third/": "/branch3/0/",
    r"/third/": "/branch3/1/",
    r"/reduce_second/": "/branch2/0/",
    r"/second/": "/branch2/1/",
    r"/pooled/": "/branch4/1/",
    r"/norm$": "/bn",
    r"/hidden$": "/fc1",
    r"/head$": "/fc2",
    r"^head$": "fc",
}


class Convolution(ConvReLU):
    """Convolution, BatchNorm, ReLU; with ``norm="none"`` a convolution with a bias, ReLU."""

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        size: int,
        *,
        norm: str,
        precision: Precision,
        stride: int = 1,
        role: Role | None = None,
    ) -> None:
        batch_norm = BatchNorm(outputs, epsilon=1e-3) if norm == "batch" else None
        bias = batch_norm is None
        super().__init__(
            init, inputs, outputs, size, stride=stride, norm=batch_norm, bias=bias, role=role, precision=precision
        )


class Stem(Convolution):
    """Three convolutions, the second of them 1x1, with max pools after the first and the third in the paper."""

    def __init__(self, init: Initializer, architecture: GoogLeNetArchitecture, options: BuildOptions) -> None:
        for_conv, for_reduce, for_expand = init.spawn(3)
        size, stride, pools = STEMS[architecture.stem]
        width, outputs = architecture.width, architecture.channels(STEM_OUTPUTS)
        same: dict[str, Any] = {"norm": architecture.norm, "precision": options.precision, "role": Role.STEM}
        super().__init__(for_conv, options.in_channels, width, size, stride=stride, **same)
        self.reduce = Convolution(for_reduce, width, width, 1, **same)
        self.expand = Convolution(for_expand, width, outputs, 3, **same)
        self.pools = pools

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',192 width / 64], by the strides."""
        x = self._pooled(super().__call__(x, training=training))
        return self._pooled(self.expand(self.reduce(x, training=training), training=training))

    def _pooled(self, x: jax.Array) -> jax.Array:
        return max_pool(x, 3, stride=2, partial=True) if self.pools else x


class Inception(nnx.Module):
    """Four branches side by side: 1x1; 1x1 and 3x3; 1x1 and the large window; 3x3 max pool and 1x1.

    Args:
      init: draws the kernels.
      inputs: channels of the map.
      channels: those of a row of `BLOCKS`, in its order.
      window: side of the large window.
      norm: one of `NORMS`.
      precision: what the block computes in.
    """

    branches = 0  # none of them is residual

    def __init__(
        self, init: Initializer, inputs: int, channels: Sequence[int], *, window: int, norm: str, precision: Precision
    ) -> None:
        conv = functools.partial(Convolution, norm=norm, precision=precision)
        for_single, for_reduce_second, for_second, for_reduce_third, for_third, for_pooled = init.spawn(6)
        single, reduce_second, second, reduce_third, third, pooled = channels
        self.single = conv(for_single, inputs, single, 1)
        self.reduce_second = conv(for_reduce_second, inputs, reduce_second, 1)
        self.second = conv(for_second, reduce_second, second, 3)
        self.reduce_third = conv(for_reduce_third, inputs, reduce_third, 1)
        self.third = conv(for_third, reduce_third, third, window)
        self.pooled = conv(for_pooled, inputs, pooled, 1)

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,H,W,sum of the outputs of the branches]; ``scales`` are none."""
        del scales
        branches = (
            self.single(x, training=training),
            self.second(self.reduce_second(x, training=training), training=training),
            self.third(self.reduce_third(x, training=training), training=training),
            self.pooled(max_pool(x, 3, stride=1, padding=1), training=training),
        )
        return jnp.concatenate(branches, -1)


class AuxiliaryHead(nnx.Module):
    """Averages over 4x4 windows, 1x1 convolution, hidden layer, dropout, linear head.

    In the paper the windows are 5x5 with stride 3, which a map of 14x14 pixels has 4x4 of. These cover any map.
    """

    def __init__(
        self, init: Initializer, inputs: int, architecture: GoogLeNetArchitecture, options: BuildOptions
    ) -> None:
        for_conv, for_hidden, for_head = init.spawn(3)
        channels, hidden = architecture.channels(AUXILIARY_CHANNELS), architecture.channels(AUXILIARY_HIDDEN)
        self.conv = Convolution(for_conv, inputs, channels, 1, norm=architecture.norm, precision=options.precision)
        self.hidden = Linear(for_hidden, AUXILIARY_SIZE**2 * channels, hidden)
        self.head = Linear(for_head, hidden, options.num_classes, role=Role.HEAD)
        self.dropout = architecture.auxiliary_dropout

    def __call__(self, x: jax.Array, *, key: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> float32 [B,classes], in training; the key is for its dropout."""
        x = self.conv(adaptive_average_pool(x, AUXILIARY_SIZE), training=True)  # [B,4,4,channels]
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return self.head(dropout(jax.nn.relu(self.hidden(x)), self.dropout, key))


class GoogLeNet(Model):
    """Stem, three stages of blocks with a max pool between them, global average pool, linear head."""

    def __init__(self, architecture: GoogLeNetArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_stages, for_auxiliary, for_head = options.init.spawn(4)
        self.stem = Stem(for_stem, architecture, options)
        same: dict[str, Any] = {"window": architecture.window, "norm": architecture.norm}
        channels, stages, tapped = architecture.channels(STEM_OUTPUTS), [], []
        pools = (None, MaxPool(3, stride=2, partial=True), MaxPool(architecture.last_pool, stride=2, partial=True))
        for index, (depth, for_stage) in enumerate(zip(architecture.depths, for_stages.spawn(3), strict=True)):
            blocks = []
            for number, (row, init) in enumerate(zip(BLOCKS[index], for_stage.spawn(depth), strict=False)):
                own = [architecture.channels(count) for count in row]
                blocks.append(Inception(init, channels, own, precision=options.precision, **same))
                single, _, second, _, third, pooled = own
                channels = single + second + third + pooled
                if index == TAPPED_STAGE and number in TAPS:
                    tapped.append(channels)
            stages.append(Stage(blocks, downsample=pools[index], remat=options.remat))
        self.stages = nnx.List(stages)
        tapped = tapped if architecture.auxiliary_heads else []
        inits = for_auxiliary.spawn(len(tapped))
        self.auxiliary = nnx.List(
            [AuxiliaryHead(init, own, architecture, options) for init, own in zip(inits, tapped, strict=True)]
        )
        self.head = Linear(for_head, channels, options.num_classes, role=Role.HEAD)

    def training_outputs(self, images: jax.Array, *, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """See `Model.training_outputs`."""
        self.architecture.check_image_size(images.shape[1], images.shape[2])
        parts = self.parts(key=key, batch=images.shape[0])
        x, maps = parts["stage 1"](parts["stem"](images)), []
        tapped = self.stages[TAPPED_STAGE]
        x = tapped.downsampled(x, training=True)
        for block in tapped.blocks:
            x = tapped.call_block(block, x, None, training=True)
            maps.append(x)
        logits = parts["head"](parts["stage 3"](x))
        # The numbers below 2 are those of stochastic depth and of the dropout before the head.
        auxiliary = (
            head(maps[tap], key=jax.random.fold_in(key, 2 + number))
            for number, (tap, head) in enumerate(zip(TAPS, self.auxiliary, strict=False))
        )
        return logits, tuple(auxiliary)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        return self.head(dropout(global_average_pool(x), self.dropout, dropout_key(key)))
