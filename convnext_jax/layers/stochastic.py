"""What is random in a network: residual branches dropped for whole samples (stochastic depth), and dropout."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.parameters import Role, constant
from convnext_jax.ops.cpu import unfused_on_cpu

# One array [B] for each residual branch of a block; None keeps all of them.
BranchScales = tuple[jax.Array, ...] | None


def linear_rates(last: float, count: int) -> list[float]:
    """Returns the drop rates of ``count`` blocks, which grow linearly from 0 to ``last``.

    >>> linear_rates(0.2, 3)
    [0.0, 0.1, 0.2]
    """
    return [last * index / max(count - 1, 1) for index in range(count)]


def draw_branch_scales(key: jax.Array, rates: Sequence[float], batch: int) -> tuple[jax.Array, ...]:
    """Draws what the residual branches of each sample are multiplied by, independently of each other.

    It is one draw for the whole network, and an array for each branch. With a generator for each block, and its rate
    as a constant in all that follows, a small network took longer to compile on a CPU (benchmarks/notes.md).

    Args:
      key: for this draw alone.
      rates: probability of a drop for each branch, in [0, 1).
      batch: number of samples.

    Returns:
      For each branch float32 [batch]: 0 if it is dropped, else 1 / (1 - rate), which preserves the mean.

    Reference:
      Huang et al., `Deep Networks with Stochastic Depth <https://arxiv.org/abs/1603.09382>`_, 2016.
    """

    @unfused_on_cpu
    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        by_branch = jnp.asarray(rates, jnp.float32)[:, None]
        kept = jax.random.uniform(key, (len(rates), batch)) >= by_branch
        return tuple(jnp.where(kept, 1.0 / (1.0 - by_branch), 0.0))

    return draw(key)


def layer_scale(channels: int, value: float) -> nnx.Param[jax.Array] | None:
    """Returns the layer scale of a residual branch, or None if it starts at 0, which leaves it out.

    Reference:
      Touvron et al., `Going Deeper with Image Transformers <https://arxiv.org/abs/2103.17239>`_, 2021.
    """
    return constant(channels, value, Role.LAYER_SCALE) if value else None


def add_branch(
    x: jax.Array, branch: jax.Array, scale: jax.Array | None, layer_scale: nnx.Param[jax.Array] | None = None
) -> jax.Array:
    """Adds a residual branch to a map, in float32.

    In bfloat16 the gradient of the layer scale, a sum over all pixels, would have several times the error.

    >>> x, branch = jnp.zeros((2, 3)), jnp.ones((2, 3))
    >>> add_branch(x, branch, jnp.array([0.0, 2.0])).tolist()
    [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]

    Args:
      x: [B,...,C].
      branch: [B,...,C].
      scale: float32 [B], from `draw_branch_scales`; None keeps the branch as it is.
      layer_scale: float32 [C]; None leaves it out.

    Returns:
      [B,...,C] in the dtype of x.
    """
    branch = branch.astype(jnp.float32)
    if layer_scale is not None:
        branch = branch * layer_scale[...]
    if scale is not None:
        branch = branch * scale.reshape((-1,) + (1,) * (branch.ndim - 1))
    return (x.astype(jnp.float32) + branch).astype(x.dtype)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Drops single values.

    >>> dropout(jnp.ones(3), 0.5, None).tolist()
    [1.0, 1.0, 1.0]

    Args:
      x: any shape.
      rate: probability of a drop, in [0, 1). What is kept is divided by 1 - rate, which preserves the mean.
      key: PRNG key for this layer alone; None keeps everything.

    Reference:
      Srivastava et al., "Dropout", JMLR 15, 2014.
    """
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
