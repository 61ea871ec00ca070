"""Grad-CAM: which places of an image speak for a class.

Reference:
  Selvaraju et al., `Grad-CAM <https://arxiv.org/abs/1610.02391>`_, 2017.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from convnext_jax.errors import UserError
from convnext_jax.models.interface import Model


def grad_cam(model: Model, images: jax.Array, classes: jax.Array, stage: int) -> jax.Array:
    """Returns for each class a map of the places that speak for it.

    With the map ``A`` [H',W',C] of a stage and the logit ``y`` of a class it is

      relu(sum over c of w_c A_c),  w_c = mean over places of dy / dA_c

    Args:
      model: the network.
      images: float32 [B,H,W,C], normalized.
      classes: int32 [B,k], in [0, number of classes).
      stage: which stage's map, counted from 1; see `explainable_stage`.

    Returns:
      float32 [B,k,H',W'], 0 or more, on the scale of the logits.
    """
    parts = list(model.parts().values())
    before, after = parts[: stage + 1], parts[stage + 1 :]  # the first part is the stem

    def logits_of(x: jax.Array) -> jax.Array:
        for part in after:
            x = part(x)
        return x

    x = images
    for part in before:
        x = part(x)
    logits, pull_back = jax.vjp(logits_of, x)

    def as_map(x: jax.Array) -> jax.Array:
        return model.to_map(x, (images.shape[1], images.shape[2])).astype(jnp.float32)

    def of_class(chosen: jax.Array) -> jax.Array:
        (gradient,) = pull_back(jax.nn.one_hot(chosen, logits.shape[-1], dtype=logits.dtype))
        weights = as_map(gradient).mean((1, 2))  # [B,C]
        return jax.nn.relu(jnp.einsum("bhwc,bc->bhw", as_map(x), weights))

    return jax.vmap(of_class, in_axes=1, out_axes=1)(classes)


def explainable_stage(model: Model, image_shape: Sequence[int], stage: int | None = None) -> int:
    """Returns the stage whose map `grad_cam` explains a network with: the last one that can say anything.

    A map of one pixel knows no places. Where the head reads a class token alone, no logit depends on the map of the
    last stage, and the one that enters it is taken.

    Args:
      model: the network.
      image_shape: (H, W, C) of the images.
      stage: the stage that the user wants, counted from 1; None takes the last.

    Raises:
      UserError: the stage cannot be taken, or none can. The message lists those that can.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = [array.shape for array in jax.eval_shape(model.features, image)]
    if not model.reads_last_map:
        shapes.pop()
    usable = {
        number: f"{shape[1]}x{shape[2]}"
        for number, shape in enumerate(shapes, start=1)
        if len(shape) == 4 and shape[1] * shape[2] > 1
    }
    if not usable:
        raise UserError("no stage of this network has a map of several pixels, so there are no places to show")
    if stage is None:
        return max(usable)
    if stage not in usable:
        there = ", ".join(f"{number} ({size})" for number, size in usable.items())
        raise UserError(f"stage {stage} of this network cannot be explained; those that can are {there}")
    return stage
