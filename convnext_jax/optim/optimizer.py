"""The optimiser of an experiment."""

import optax

from convnext_jax.config import OptimConfig
from convnext_jax.optim.groups import decay_mask


def make_optimizer(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW with decoupled weight decay on the kernels, behind an optional clip of the gradient's global norm.

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
    return adamw if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
