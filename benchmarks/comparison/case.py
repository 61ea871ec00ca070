"""What every system is measured on. Imports nothing but Python, for the workers of other environments."""

import dataclasses
from typing import Any

# AdamW, the same for all. The rate is low, so that one batch again and again is not learnt by heart while it is
# measured: gradients that vanish become denormal numbers, which are slow on a CPU.
LEARNING_RATE = 1e-5
WEIGHT_DECAY = 0.05


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, its images and the threads that it gets.

    Attributes:
      model: name of the network, as this project and timm have it.
      depths: blocks of each of the four stages.
      dims: channels of each stage.
      stem: name of the stem in `convnext_jax.models.convnext.STEMS`.
      window: side, stride and padding of the stem's convolution, in pixels.
      image_size: side of the images, in pixels.
      batch_size: images a step, B.
      num_classes: number of logits, K.
      threads: of each system on a CPU.
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
        """The inverse of `dataclasses.asdict`, after a way through JSON."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)


def product_side(device: str) -> int:
    """Side of the square matrices whose product is taken for a device's ceiling, ``cpu`` or another."""
    return 2048 if device == "cpu" else 8192
