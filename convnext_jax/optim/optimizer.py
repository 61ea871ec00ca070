"""The optimizer of an experiment."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from convnext_jax.config import OptimConfig
from convnext_jax.errors import UserError
from convnext_jax.layers.parameters import Role
from convnext_jax.models.parameters import AbstractModel, flat
from convnext_jax.optim.layer_decay import decay_levels, scale_by_layer_decay

Mask = Callable[[Any], Any]  # from a tree of parameters to a tree of bools


def make_optimizer(config: OptimConfig, schedule: optax.Schedule, model: AbstractModel) -> optax.GradientTransformation:
    """Returns the named optimizer, after an optional clip of the gradient's global norm.

    An optional decay of the learning rate from level to level of the layers comes last.

    Args:
      config: the optimizer's settings; they have been checked.
      schedule: the learning rate at a step.
      model: the model, for the roles of its parameters and the order of its layers.

    Returns:
      A transformation whose state is a tree of arrays.

    Raises:
      UserError: Muon is asked for, and the model has no hidden matrices.
    """
    roles = flat(model.roles)
    if config.name == "muon" and not any(role.is_hidden_matrix for role in roles.values()):
        raise UserError(
            "config.optim.name=muon is for hidden matrices, and the model of config.model.name has none;"
            " take config.optim.name=adamw"
        )
    chain = [_OPTIMIZERS[config.name](config, schedule, roles)]
    if config.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.layer_decay < 1.0:
        chain.append(scale_by_layer_decay(decay_levels(model, config.layer_decay, config.layer_decay_levels)))
    return optax.chain(*chain) if len(chain) > 1 else chain[0]


Roles = dict[str, Role]  # by the path of the parameter


def _by_role(roles: Roles, function: Callable[[Role], Any]) -> Mask:
    """Returns a function from a tree of parameters to the tree of what a function says of their roles.

    The tree may lack parameters that another optimizer takes.
    """

    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: function(roles[jax.tree_util.keystr(path, simple=True, separator="/")]), params
        )

    return mask


def _decays(roles: Roles) -> Mask:
    return _by_role(roles, lambda role: role.decays)


def _adamw(config: OptimConfig, schedule: optax.Schedule, roles: Roles) -> optax.GradientTransformation:
    """Loshchilov and Hutter 2019, arXiv 1711.05101; the decay is decoupled and multiplied by the learning rate."""
    return optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=_decays(roles),
    )


def _sgd(config: OptimConfig, schedule: optax.Schedule, roles: Roles) -> optax.GradientTransformation:
    """SGD with momentum (Sutskever et al. 2013) and coupled decay, ``g + decay p`` before the momentum.

    So it is in ``torch.optim.SGD`` and in the papers whose figures came from it. The clip sees the gradient without the
    decay.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=_decays(roles)),
        optax.sgd(schedule, momentum=config.momentum or None, nesterov=config.nesterov),
    )


def _lion(config: OptimConfig, schedule: optax.Schedule, roles: Roles) -> optax.GradientTransformation:
    """Chen et al. 2023, arXiv 2302.06675."""
    return optax.lion(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=_decays(roles))


def _lamb(config: OptimConfig, schedule: optax.Schedule, roles: Roles) -> optax.GradientTransformation:
    """You et al. 2020, arXiv 1904.00962: Adam's update, decayed, made as long as the parameter itself.

    What has no decay keeps Adam's length, as in TensorFlow Addons and timm. `optax.lamb` would let a layer scale of
    1e-6 move by a millionth of the learning rate a step.
    """
    return optax.chain(
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=_decays(roles)),
        optax.masked(optax.scale_by_trust_ratio(), _decays(roles)),
        optax.scale_by_learning_rate(schedule),
    )


def _muon(config: OptimConfig, schedule: optax.Schedule, roles: Roles) -> optax.GradientTransformation:
    """Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon) for the hidden matrices, AdamW for the rest.

    An update of Muon has the root mean square 0.2 whatever the matrix's shape, which is about AdamW's (Liu et al. 2025,
    arXiv 2502.16982), so that one learning rate and one decay serve both.
    """
    muon = optax.contrib.muon(
        schedule,
        beta=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_matrix_axes,
    )
    # optax.contrib.muon has an AdamW of its own, without a mask for the decay.
    labels = _by_role(roles, lambda role: role.optimizer("muon"))
    return optax.partition({"muon": muon, "adamw": _adamw(config, schedule, roles)}, labels)


def _matrix_axes(kernels: Any) -> Any:
    """Returns how each kernel is a matrix: its last axis is the outputs, all before it are the inputs."""
    return jax.tree.map(
        lambda leaf: optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1), kernels
    )


_OPTIMIZERS: dict[str, Callable[[OptimConfig, optax.Schedule, Roles], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lion": _lion,
    "lamb": _lamb,
    "muon": _muon,
}
