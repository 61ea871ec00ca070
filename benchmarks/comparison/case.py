"""What every system is measured on. Imports only the standard library, for workers in other environments."""

import dataclasses
from typing import Any

# AdamW, the same for all systems. The learning rate is low, so that the one batch is not memorized during the
# measurement. Otherwise gradients would vanish and become denormal numbers, which are slow on a CPU.
LEARNING_RATE = 1e-5
WEIGHT_DECAY = 0.05


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, its images and the number of threads.

    Attributes:
      model: name of the network, the same in this project and in timm.
      depths: number of blocks in each of the four stages.
      dims: number of channels in each stage.
      stem: name of the stem in `convnext_jax.models.convnext.STEMS`.
      window: side, stride and padding of the stem's convolution, in pixels.
      image_size: side of the images, in pixels.
      batch_size: images per step, B.
      num_classes: number of logits, K.
      threads: number of threads of each system on a CPU.
    """

    model: str
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    stem: str
    window: tuple[int, ...]
    image_size: int
    batch_size: int
    num_classes: int
    threads: int

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Case":
        """The inverse of `dataclasses.asdict`, for fields that went through JSON."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)


def product_side(device: str) -> int:
    """Returns the side of the square matrices whose product measures the ceiling of a device, ``cpu`` or another."""
    return 2048 if device == "cpu" else 8192
