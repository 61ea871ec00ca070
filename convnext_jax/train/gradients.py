"""The gradient of a batch: at once or in parts, at the parameters or, sharpness-aware, a step uphill from them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from convnext_jax.augment.mixing import Targets
from convnext_jax.models import merge_model, running_statistics
from convnext_jax.tasks.classification import label_rank
from convnext_jax.tasks.mixed_loss import mixed_cross_entropy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a batch gave besides its gradient.

    Attributes:
      loss: mean of the smoothed loss, float32 scalar.
      top1: share that was classified rightly, float32 scalar; the class of a mixed image is that which it shows more
        of.
      statistics: the running statistics of BatchNorm afterwards.
    """

    loss: jax.Array
    top1: jax.Array
    statistics: Any


def gradient(
    definition: Any,
    smoothing: float,
    params: Any,
    statistics: Any,
    inputs: jax.Array,
    targets: Targets,
    key: jax.Array,
) -> tuple[Any, Outcome]:
    """The gradient of the mean loss of a batch.

    Args:
      definition: the model without its parameters.
      smoothing: of the labels.
      params: the parameters.
      statistics: the running statistics of BatchNorm.
      inputs: float32 [B, H, W, 3].
      targets: of the B images.
      key: of the model's own randomness.
    """

    def mean_loss(params: Any) -> tuple[jax.Array, Outcome]:
        model = merge_model(definition, params, statistics)
        logits = model(inputs, key=key)  # [B, K] float32
        loss = mixed_cross_entropy(logits, targets, smoothing).mean()
        top1 = (label_rank(logits, targets.main()) == 0).mean(dtype=jnp.float32)
        return loss, Outcome(loss, top1, running_statistics(model))

    grads, outcome = jax.grad(mean_loss, has_aux=True)(params)
    return grads, outcome


def accumulated_gradient(
    definition: Any,
    smoothing: float,
    parts: int,
    params: Any,
    statistics: Any,
    inputs: jax.Array,
    targets: Targets,
    key: jax.Array,
) -> tuple[Any, Outcome]:
    """The same gradient from equal parts of the batch, one after another, with the activations of one in memory.

    Equal to that of the whole batch but for rounding, and for drop path and dropout, whose masks are drawn for each
    part anew.

    Args:
      definition: the model without its parameters, without BatchNorm.
      smoothing: of the labels.
      parts: how many; divides B.
      params: the parameters.
      statistics: none.
      inputs: float32 [B, H, W, 3].
      targets: of the B images.
      key: of the model's own randomness.
    """
    if parts == 1:
        return gradient(definition, smoothing, params, statistics, inputs, targets, key)

    def cut(array: jax.Array) -> jax.Array:
        # Every parts-th image, so that each device has as many images of each part.
        return jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)

    def add(total: tuple[Any, Outcome], part: tuple[jax.Array, tuple[jax.Array, Targets]]) -> tuple[Any, None]:
        number, (inputs, targets) = part
        found = gradient(definition, smoothing, params, statistics, inputs, targets, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, found), None

    cut_batch = jax.tree.map(cut, (inputs, targets))
    zero = jax.tree.map(jnp.zeros_like, (params, Outcome(jnp.float32(0), jnp.float32(0), statistics)))
    total, _ = jax.lax.scan(add, zero, (jnp.arange(parts), cut_batch))
    return jax.tree.map(lambda leaf: leaf / parts, total)


def gradient_norm(grads: Any) -> jax.Array:
    """The Euclidean norm over all arrays of a tree that has vectors in it, as `optax.tree.norm` gives it.

    Four arrays in five are small vectors. Joined, they cost XLA one sum of squares to compile, where each by itself
    has two loops of its own, on a CPU a fifth of all loops of a training step.
    """
    leaves = jax.tree.leaves(grads)
    vectors = [leaf for leaf in leaves if leaf.ndim == 1]
    return optax.tree.norm([jnp.concatenate(vectors), *(leaf for leaf in leaves if leaf.ndim != 1)])


def sharpness_aware(compute: Callable[[Any], tuple[Any, Outcome]], rho: float, params: Any) -> tuple[Any, Outcome]:
    """The gradient a distance uphill from the parameters, which a flat minimum changes little.

    Args:
      compute: a function from parameters to their gradient and an :class:`Outcome`.
      rho: the distance, the Euclidean norm over all parameters; 0 takes the gradient where they are.
      params: the parameters.

    Returns:
      The gradient and the outcome at the parameters themselves.

    Reference:
      Foret et al., `Sharpness-Aware Minimization <https://arxiv.org/abs/2010.01412>`_, 2021.
    """
    grads, outcome = compute(params)
    if rho == 0:
        return grads, outcome
    scale = rho / (gradient_norm(grads) + 1e-12)
    uphill = jax.tree.map(lambda param, grad: param + scale * grad, params, grads)
    return compute(uphill)[0], outcome
