"""Any network as the backbone of a segmentation model: its stages' maps, a norm on each, and a head on all of them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError
from convnext_jax.layers.feature_pyramid import FPN_CHANNELS, FeaturePyramidHead
from convnext_jax.layers.normalization import LayerNorm
from convnext_jax.layers.resizing import resize_map
from convnext_jax.layers.upernet import UPERNET_CHANNELS, AuxiliaryPixelHead, UPerNetHead
from convnext_jax.models.interface import Architecture, BuildOptions, Model

# By name: the class, and the channels that it has unless told otherwise.
_HEADS: dict[str, tuple[type[FeaturePyramidHead] | type[UPerNetHead], int]] = {
    "fpn": (FeaturePyramidHead, FPN_CHANNELS),
    "upernet": (UPerNetHead, UPERNET_CHANNELS),
}
HEADS = tuple(_HEADS)
BACKBONE = "backbone/"  # before the paths of the backbone's parameters


class ImageAndPixelLogits(NamedTuple):
    """The outputs of a model that classifies images and segments them.

    Attributes:
      image: float32 [B,image classes].
      pixels: float32 [B,H,W,pixel classes].
    """

    image: jax.Array
    pixels: jax.Array


@dataclasses.dataclass(frozen=True)
class PixelHead:
    """What makes a segmentation model of a backbone.

    Attributes:
      name: one of `HEADS`.
      num_classes: number of logits for each pixel.
      channels: of the head; None takes its own: 128 of "fpn", 512 of "upernet".
      classifies: whether the backbone keeps its classifier, and the model returns `ImageAndPixelLogits`.
      auxiliary: whether a second head on the last stage but one is trained beside "upernet".
    """

    name: str
    num_classes: int
    channels: int | None = None
    classifies: bool = False
    auxiliary: bool = True


class SegmentationModel(Model):
    """A backbone, a LayerNorm on the map of each stage, and a head that returns logits at the size of the images.

    The norms are those of ConvNeXt's and Swin's authors, who add them for dense prediction. The backbone's own
    classifier is left out unless it is used. Parameters of the backbone are below ``backbone/``.

    Args:
      architecture: that of the backbone.
      options: what the backbone is built with; ``num_classes`` is that of its classifier. The rate of dropout is that
        before the logits of either head.
      head: what is put on it.

    Raises:
      UserError: the backbone has fewer than two stages.
    """

    def __init__(self, architecture: Architecture, options: BuildOptions, head: PixelHead) -> None:
        super().__init__(architecture, options)
        for_backbone, for_decoder, for_auxiliary = options.init.spawn(3)
        self.backbone = architecture.build(dataclasses.replace(options, init=for_backbone))
        self.classifies = head.classifies
        if not head.classifies:
            _remove_classifier(self.backbone)
        channels = _stage_channels(self.backbone, options.in_channels)
        if len(channels) < 2:
            raise UserError("a segmentation head needs a backbone of two or more stages; choose another model")
        self.norms = nnx.List([LayerNorm(count) for count in channels])
        make, default = _HEADS[head.name]
        same: dict[str, Any] = {"dropout": options.dropout, "precision": options.precision}
        self.decoder = make(
            for_decoder.with_scheme("fan_out"), channels, head.num_classes, channels=head.channels or default, **same
        )
        init = for_auxiliary.with_scheme("fan_out")
        trained = head.name == "upernet" and head.auxiliary
        self.auxiliary = AuxiliaryPixelHead(init, channels[-2], head.num_classes, **same) if trained else None

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> Any:
        """Returns logits, float32 [B,H,W,classes], or `ImageAndPixelLogits` if the model classifies images too.

        Args:
          images: [B,H,W,C], normalized.
          key: means training, as for any `Model`.

        Raises:
          UserError: the images vanish on the way to the last stage.
        """
        return self._outputs(images, self.backbone.run_stages(images, key), key)

    def training_outputs(self, images: jax.Array, *, key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
        """See `Model.training_outputs`; the auxiliary head's logits are of pixels alone."""
        stages = self.backbone.run_stages(images, key)
        auxiliary = ()
        if self.auxiliary is not None:
            x = self._maps(images, stages)[-2]
            auxiliary = (_at_size_of(images, self.auxiliary(x, key=jax.random.fold_in(key, 3))),)
        return self._outputs(images, stages, key), auxiliary

    def statistics_of(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See `Model.statistics_of`."""
        return {f"{BACKBONE}{path}": array for path, array in self.backbone.statistics_of(images).items()}

    @property
    def takes_statistics(self) -> bool:
        """See `Model.takes_statistics`."""
        return self.backbone.takes_statistics

    def run_stages(self, images: jax.Array, key: jax.Array | None) -> list[Any]:
        """See `Model.run_stages`."""
        return self.backbone.run_stages(images, key)

    def to_map(self, x: Any, image_size: tuple[int, int]) -> jax.Array:
        """See `Model.to_map`."""
        return self.backbone.to_map(x, image_size)

    def parts(self, *, key: jax.Array | None = None, batch: int = 0) -> dict[str, Callable[[Any], Any]]:
        """See `Model.parts`. What goes from part to part are the images, and the outputs of all stages so far."""
        own = self.backbone.parts(key=key, batch=batch)
        parts: dict[str, Callable[[Any], Any]] = {"stem": lambda images: (images, own["stem"](images))}
        for name in own:
            if name.startswith("stage"):
                parts[name] = functools.partial(_append_stage, own[name], first=name == "stage 1")
        parts["head"] = lambda state: self._outputs(state[0], state[1:], key)
        return parts

    def part_of(self, path: str) -> str:
        """See `Model.part_of`."""
        return self.backbone.part_of(path.removeprefix(BACKBONE)) if path.startswith(BACKBONE) else "head"

    def depth_levels(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """See `Model.depth_levels`; the norms and the head are the level after the backbone's."""
        return {
            kind: tuple(tuple(BACKBONE + prefix for prefix in level) for level in levels)
            for kind, levels in self.backbone.depth_levels().items()
        }

    def drop_rates(self) -> list[float]:
        """See `Model.drop_rates`."""
        return self.backbone.drop_rates()

    def _maps(self, images: jax.Array, stages: Any) -> list[jax.Array]:
        size = images.shape[1], images.shape[2]
        return [norm(self.backbone.to_map(x, size)) for norm, x in zip(self.norms, stages, strict=True)]

    def _outputs(self, images: jax.Array, stages: Any, key: jax.Array | None) -> Any:
        own = None if key is None else jax.random.fold_in(key, 2)
        pixels = _at_size_of(images, self.decoder(self._maps(images, stages), key=own))
        if not self.classifies:
            return pixels
        return ImageAndPixelLogits(self.backbone.classify(stages[-1], key=key), pixels)


def _append_stage(stage: Callable[[Any], Any], state: tuple[Any, ...], *, first: bool) -> tuple[Any, ...]:
    """Returns the images and the outputs of the stages up to this one. That of the stem is no stage's."""
    return (*(state[:1] if first else state), stage(state[-1]))


def _at_size_of(images: jax.Array, logits: jax.Array) -> jax.Array:
    return resize_map(logits, (images.shape[1], images.shape[2]))


def _remove_classifier(backbone: Model) -> None:
    """Removes the layers of a network that its maps do not depend on."""
    used = {name: False for name in vars(backbone)}
    for path, _ in nnx.to_flat_state(nnx.state(backbone, nnx.Param)):
        name = str(path[0])
        used[name] = used[name] or backbone.part_of("/".join(map(str, path))) != "head"
    for name, value in list(vars(backbone).items()):
        if isinstance(value, nnx.Module) and not used[name] and jax.tree.leaves(nnx.state(value, nnx.Param)):
            delattr(backbone, name)


def _stage_channels(backbone: Model, in_channels: int) -> list[int]:
    side = backbone.architecture.smallest_image
    image = jax.ShapeDtypeStruct((1, side, side, in_channels), jnp.float32)
    return [x.shape[-1] for x in jax.eval_shape(backbone.features, image)]
