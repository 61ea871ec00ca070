"""The optimiser of an experiment."""

import jax
import optax

from convnext_jax.config import OptimConfig
from convnext_jax.optim.groups import decay_mask, layer_scales


def make_optimizer(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW with decoupled weight decay on the kernels, behind an optional clip of the gradient's global norm,
    with an optional decay of the learning rate from layer to layer.

    Args:
      config: the optimiser's settings; ``config.name`` has been checked.
      schedule: the learning rate at a step.

    Reference:
      Loshchilov and Hutter, `Decoupled Weight Decay Regularization <https://arxiv.org/abs/1711.05101>`_, 2019.
    """
    adamw = optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    chain: list[optax.GradientTransformation] = [adamw]
    if config.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.layer_decay < 1.0:
        chain.append(_scale_layers(config.layer_decay))
    return optax.chain(*chain) if len(chain) > 1 else adamw


def _scale_layers(decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of each layer by its factor of the learning rate."""

    def scale(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        return jax.tree.map(lambda update, factor: update * factor, updates, layer_scales(updates, decay))

    return optax.stateless(scale)
