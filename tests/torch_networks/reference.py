"""What a network of PyTorch is compared with ours by."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

NUM_CLASSES = 13


@dataclasses.dataclass(frozen=True)
class Reference:
    """A network of another library that has the same parameters and answers as one of ours.

    Attributes:
      build: returns it, a `torch.nn.Module` with `NUM_CLASSES` outputs. It imports what it needs itself, so that the
        tests run without torch.
      layout: whose names its weights have, one of our architecture's `torch_layouts`.
      shapes: the shapes [B,H,W,3] of the images at which it is compared. The last is recorded.
      forward_shapes: further shapes, at which the gradient by the images is left out. Of the values of a large image
        some are so near to the kink of a ReLU, or to each other in a max pool, that rounding decides the gradient.
      features: called with the module and images [B,3,H,W], returns the feature maps [B,C,H,W] that our `features`
        returns; None leaves them out.
      training: the shape of the images of a forward pass in training, for networks with running statistics that draw
        nothing at random; None leaves it out.
      training_outputs: from what the module returns in training, the logits and those of its auxiliary heads; None if
        it returns the logits alone.
      training_fields: fields of our architecture that are changed for that pass, to switch off what is random.
      recorded: whether the tests, which run without torch, compare with a record. Others are compared by the script
        alone.
      records_gradient: whether those tests compare the gradient by the images too, which takes longer to compile.
    """

    build: Callable[[], Any]
    layout: str
    shapes: tuple[tuple[int, int, int, int], ...]
    features: Callable[[Any, Any], list[Any]] | None = None
    forward_shapes: tuple[tuple[int, int, int, int], ...] = ()
    training: tuple[int, int, int, int] | None = None
    training_outputs: Callable[[Any], list[Any]] | None = None
    training_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recorded: bool = False
    records_gradient: bool = False
