"""The optimiser of an experiment."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from convnext_jax.config import OptimConfig
from convnext_jax.optim.groups import decay_mask, muon_labels
from convnext_jax.optim.layer_decay import scale_by_layer_decay


def make_optimizer(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The named optimiser, behind an optional clip of the gradient's global norm, with an optional decay of the
    learning rate from layer to layer.

    Args:
      config: the optimiser's settings; they have been checked.
      schedule: the learning rate at a step.

    Returns:
      A transformation whose state is a tree of arrays. Its ``init`` raises what `convnext_jax.optim.groups` raises of a
      parameter without a group, and of Muon without matrices.
    """
    chain = [_OPTIMIZERS[config.name](config, schedule)]
    if config.clip_norm is not None:
        chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.layer_decay < 1.0:
        chain.append(scale_by_layer_decay(config.layer_decay))
    return optax.chain(*chain) if len(chain) > 1 else chain[0]


def _adamw(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Loshchilov and Hutter 2019, arXiv 1711.05101; the decay is decoupled and multiplied by the learning rate."""
    return optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )


def _sgd(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """SGD with momentum (Sutskever et al. 2013) and coupled decay, ``g + decay p`` before the momentum.

    So do ``torch.optim.SGD`` and the papers whose figures came from it. The clip sees the gradient without the decay.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.sgd(schedule, momentum=config.momentum or None, nesterov=config.nesterov),
    )


def _lion(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Chen et al. 2023, arXiv 2302.06675."""
    return optax.lion(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=decay_mask)


def _lamb(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """You et al. 2020, arXiv 1904.00962: Adam's update, decayed, made as long as the parameter itself.

    What has no decay keeps Adam's length, as in TensorFlow Addons and timm; `optax.lamb` would let a layer scale of
    1e-6 move by a millionth of the learning rate a step.
    """
    return optax.chain(
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
        optax.masked(optax.scale_by_trust_ratio(), decay_mask),
        optax.scale_by_learning_rate(schedule),
    )


def _muon(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
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
    return optax.partition({"muon": muon, "adamw": _adamw(config, schedule)}, muon_labels)


def _matrix_axes(kernels: Any) -> Any:
    """Each kernel as a matrix: its last axis are the outputs, all before it the inputs."""
    return jax.tree.map(
        lambda leaf: optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1), kernels
    )


_OPTIMIZERS: dict[str, Callable[[OptimConfig, optax.Schedule], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lion": _lion,
    "lamb": _lamb,
    "muon": _muon,
}
