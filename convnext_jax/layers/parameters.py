"""Parameters: what each is for, and the values that they start from."""

import dataclasses
import enum
import functools
import math

import jax
import jax.core
import numpy as np
from flax import nnx

from convnext_jax.errors import check

SCHEMES = ("normal", "fan_in", "fan_out")


class Role(enum.Enum):
    """What a parameter is for. The layer that creates it decides, and an optimizer treats it accordingly.

    Weight decay pulls matrices and convolution kernels to zero. A norm, a bias, a layer scale or a GRN pulled to zero
    would only switch its branch off, and nothing is gained by shrinking a position.

    Muon makes an update orthogonal, which is right for a matrix between two hidden layers, and for a convolution as
    the matrix from its window to its outputs (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon: "hidden
    layers", all convolutions but the first, not the head). A depthwise kernel is no matrix but one filter for each
    channel. A grouped kernel, and Swin-MLP's window kernel, are several small matrices side by side.

    Attributes:
      label: the role in words.
      decays: whether weight decay acts on the parameter, and LAMB's trust ratio.
      is_hidden_matrix: whether Muon takes the parameter, if it is the optimizer.
    """

    label: str
    decays: bool
    is_hidden_matrix: bool

    STEM = "stem kernels", True, False
    DEPTHWISE = "depthwise kernels", True, False
    GROUPED = "grouped kernels", True, False
    WINDOW = "window kernels", True, False
    CONVOLUTION = "convolution kernels", True, True
    LINEAR = "linear kernels", True, True
    RECURRENT = "recurrent kernels", True, True
    HEAD = "head kernel", True, False
    NORM = "norms", False, False
    RESPONSE_NORM = "GRN", False, False
    LAYER_SCALE = "layer scales", False, False
    POSITION = "positions and class token", False, False
    BIAS = "biases", False, False

    def __init__(self, label: str, decays: bool, is_hidden_matrix: bool) -> None:
        self.label = label
        self.decays = decays
        self.is_hidden_matrix = is_hidden_matrix

    def optimizer(self, name: str) -> str:
        """Returns which optimizer takes the parameter if ``config.optim.name`` is this one.

        >>> Role.DEPTHWISE.optimizer("muon")
        'adamw'
        """
        return "adamw" if name == "muon" and not self.is_hidden_matrix else name


@dataclasses.dataclass(frozen=True)
class Initializer:
    """Draws kernels from N(0, deviation^2), as a function of a seed.

    Attributes:
      seed: of this layer alone.
      scheme: "normal" has the deviation 0.02 everywhere, as ConvNeXt and ViT have. "fan_in" has one over the root of
        the number of inputs of a sum, which keeps the size of the activations in networks of any width (LeCun et al.
        1998). "fan_out" has the root of 2 over the number of outputs that an input reaches, as ResNet has (He et al.
        2015).
      deviation: in place of the scheme's, for a layer that its authors draw in their own way; None keeps the scheme's.
    """

    seed: np.random.SeedSequence
    scheme: str = "normal"
    deviation: float | None = None

    def __post_init__(self) -> None:
        check("scheme", self.scheme, self.scheme in SCHEMES, f"one of {', '.join(SCHEMES)}")

    def spawn(self, count: int) -> list["Initializer"]:
        """Returns initializers for as many parts, independent of each other."""
        return [Initializer(seed, self.scheme) for seed in self.seed.spawn(count)]

    def with_scheme(self, scheme: str) -> "Initializer":
        """Returns the same initializer with another scheme."""
        return Initializer(self.seed, scheme)

    def of_head(self) -> "Initializer":
        """Returns the initializer of a linear layer to the classes, by its fan-in instead of its fan-out.

        By their fan-out a few classes would start far too large.
        """
        return self.with_scheme("fan_in") if self.scheme == "fan_out" else self

    def with_deviation(self, deviation: float) -> "Initializer":
        """Returns the same initializer with a deviation of its own."""
        return Initializer(self.seed, self.scheme, deviation)

    def kernel(self, shape: tuple[int, ...], role: Role, *, identity: bool = False) -> nnx.Param[jax.Array]:
        """Draws a kernel. Its last axis is its outputs, all axes before are its inputs.

        With ``identity`` output c of a convolution returns input c, where there is one; further outputs are drawn.

        The ``trunc_normal_(std=.02)`` of the reference cuts at -2 and 2, a hundred deviations away: a plain normal.
        NumPy draws it, because XLA would compile a generator for each shape, ten seconds for a small model on a CPU.
        While tracing, the draw is behind a callback, so that `jax.eval_shape` allocates nothing.
        """
        draw = functools.partial(_draw_normal, self.seed, self._deviation(shape), shape, identity=identity)
        if isinstance(jax.numpy.zeros(()), jax.core.Tracer):
            return parameter(jax.pure_callback(draw, jax.ShapeDtypeStruct(shape, np.float32)), role)
        return parameter(jax.device_put(draw()), role)

    def _deviation(self, shape: tuple[int, ...]) -> float:
        if self.deviation is not None:
            return self.deviation
        if self.scheme == "normal":
            return 0.02
        if self.scheme == "fan_in":
            return 1.0 / math.sqrt(math.prod(shape[:-1]))
        return math.sqrt(2.0 / (math.prod(shape[:-2]) * shape[-1]))


def _draw_normal(
    seed: np.random.SeedSequence, deviation: float, shape: tuple[int, ...], *, identity: bool = False
) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal(shape, np.float32)
    normal *= np.float32(deviation)
    if identity:
        *window, inputs, outputs = shape
        channels = np.arange(min(inputs, outputs))
        normal[..., channels] = 0
        normal[(*(side // 2 for side in window), channels, channels)] = 1
    return normal


def parameter(value: jax.Array, role: Role) -> nnx.Param[jax.Array]:
    """Returns a parameter with its role, which `convnext_jax.models.parameters` reads."""
    return nnx.Param(value, role=role)


def constant(size: int, value: float, role: Role) -> nnx.Param[jax.Array]:
    """Returns a vector that starts at one value.

    Its type is strong. With a weak type the training step would be traced a second time.
    """
    return parameter(jax.device_put(np.full((size,), value, np.float32)), role)
