"""The gradient of a batch: at once or in parts, at the parameters or, sharpness-aware, a step uphill from them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from convnext_jax.models.parameters import batch_stats_of, merge_model
from convnext_jax.tasks.interface import Task, training_loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BatchResult:
    """What a batch gave besides its gradient.

    Attributes:
      metrics: means over the batch, float32 scalars by name: ``loss``, with that of auxiliary heads, and those of the
        task.
      batch_stats: the running statistics after the batch.
    """

    metrics: dict[str, jax.Array]
    batch_stats: Any


def gradient(
    definition: Any, task: Task, params: Any, batch_stats: Any, inputs: jax.Array, targets: Any, key: jax.Array
) -> tuple[Any, BatchResult]:
    """Returns the gradient of the mean loss of a batch.

    Args:
      definition: the model without its parameters.
      task: the loss and the metrics.
      params: the parameters.
      batch_stats: the running statistics.
      inputs: float32 [B,H,W,C].
      targets: those of the task for the B images.
      key: for the model's own randomness.
    """

    def mean_loss(params: Any) -> tuple[jax.Array, BatchResult]:
        model = merge_model(definition, params, batch_stats)
        outputs, auxiliary = model.training_outputs(inputs, key=key)
        loss = training_loss(task, outputs, auxiliary, targets).mean()
        return loss, BatchResult({"loss": loss, **task.training_metrics(outputs, targets)}, batch_stats_of(model))

    return jax.grad(mean_loss, has_aux=True)(params)


def accumulated_gradient(
    definition: Any,
    task: Task,
    parts: int,
    params: Any,
    batch_stats: Any,
    inputs: jax.Array,
    targets: Any,
    key: jax.Array,
) -> tuple[Any, BatchResult]:
    """Returns the gradient from equal parts of the batch, one after another, with the activations of one in memory.

    It equals that of the whole batch up to rounding, except for drop path and dropout, whose masks are drawn for each
    part, for BatchNorm, which normalizes each part by itself, and for a loss that is no mean over images, which is
    taken over each part. The running statistics are updated once, by the means over the parts.

    Args:
      definition: the model without its parameters.
      task: the loss and the metrics.
      parts: how many; divides B.
      params: the parameters.
      batch_stats: the running statistics.
      inputs: float32 [B,H,W,C].
      targets: those of the task for the B images, a tree of arrays [B,...].
      key: for the model's own randomness.
    """
    if parts == 1:
        return gradient(definition, task, params, batch_stats, inputs, targets, key)

    def cut(array: jax.Array) -> jax.Array:
        # Every parts-th image, so that each device has as many images of each part.
        return jnp.moveaxis(array.reshape(-1, parts, *array.shape[1:]), 1, 0)

    def part(number: jax.Array, inputs: jax.Array, targets: Any) -> tuple[Any, BatchResult]:
        return gradient(definition, task, params, batch_stats, inputs, targets, jax.random.fold_in(key, number))

    def add(total: tuple[Any, BatchResult], this: tuple[jax.Array, Any]) -> tuple[Any, None]:
        number, (inputs, targets) = this
        return jax.tree.map(jnp.add, total, part(number, inputs, targets)), None

    cut_batch = jax.tree.map(cut, (inputs, targets))
    shapes = jax.eval_shape(part, jnp.int32(0), *jax.tree.map(lambda array: array[0], cut_batch))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zero, (jnp.arange(parts), cut_batch))
    # Each part moved the same running statistics, so their mean is one update by the mean over the parts.
    return jax.tree.map(lambda leaf: leaf / parts, total)


def gradient_norm(grads: Any) -> jax.Array:
    """Returns the Euclidean norm over all arrays of a tree, as `optax.tree.norm` does.

    Four arrays in five are small vectors. Joined, they cost XLA one sum of squares to compile. Each by itself has two
    loops of its own, on a CPU a fifth of all loops of a training step.

    >>> gradient_norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}).item()
    5.0
    """
    leaves = jax.tree.leaves(grads)
    vectors = [leaf for leaf in leaves if leaf.ndim == 1]
    joined = [jnp.concatenate(vectors)] if vectors else []
    return optax.tree.norm([*joined, *(leaf for leaf in leaves if leaf.ndim != 1)])


def sharpness_aware(
    compute: Callable[[Any], tuple[Any, BatchResult]], rho: float, params: Any
) -> tuple[Any, BatchResult]:
    """Returns the gradient a distance uphill from the parameters, which a flat minimum changes little.

    Args:
      compute: a function from parameters to their gradient and a :class:`BatchResult`.
      rho: the distance, in the Euclidean norm over all parameters; 0 takes the gradient where they are.
      params: the parameters.

    Returns:
      The gradient, and the result at the parameters themselves.

    Reference:
      Foret et al., `Sharpness-Aware Minimization <https://arxiv.org/abs/2010.01412>`_, 2021.
    """
    grads, result = compute(params)
    if rho == 0:
        return grads, result
    scale = rho / (gradient_norm(grads) + 1e-12)
    uphill = jax.tree.map(lambda param, grad: param + scale * grad, params, grads)
    return compute(uphill)[0], result
