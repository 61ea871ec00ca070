"""Schedule, parameter groups and optimiser against the formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_model

from convnext_jax.config import OptimConfig
from convnext_jax.models import split_model
from convnext_jax.optim.groups import decay_mask, parameter_names
from convnext_jax.optim.optimizer import make_optimizer
from convnext_jax.optim.schedules import warmup_cosine


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 2.0, 10.0])
def test_warmup_cosine_is_the_formula(warmup_epochs: float):
    config = OptimConfig(learning_rate=0.4, min_learning_rate=0.01, warmup_epochs=warmup_epochs)
    schedule = warmup_cosine(config, epochs=10, steps_per_epoch=7)
    warmup, total = round(7 * warmup_epochs), 70

    def expected(step: int) -> float:
        if step < warmup:
            return 0.4 * (step + 1) / warmup
        return 0.01 + 0.39 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2

    np.testing.assert_allclose(
        [schedule(step) for step in range(total)], [expected(step) for step in range(total)], rtol=1e-5
    )


def test_kernels_decay_and_nothing_else_does():
    _, params, _ = split_model(tiny_model())
    mask, names = decay_mask(params), parameter_names(params)
    for name, decays in zip(jax.tree.leaves(names), jax.tree.leaves(mask), strict=True):
        assert decays == (name.rpartition("/")[2] == "kernel"), name
    assert any(jax.tree.leaves(mask)) and not all(jax.tree.leaves(mask))


def test_a_parameter_that_no_rule_covers_is_an_error():
    with pytest.raises(ValueError, match="'head/gain' is covered by 0 weight decay rules"):
        decay_mask({"head": {"gain": jnp.ones(3)}})


def test_adamw_and_the_clip_are_the_formulas():
    config = OptimConfig(learning_rate=0.1, weight_decay=0.2, b1=0.8, b2=0.9, eps=1e-3, clip_norm=1.0)
    params = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0])}
    optimizer = make_optimizer(config, lambda step: 0.1)
    state = optimizer.init(params)
    expected = {name: np.asarray(value, np.float64) for name, value in params.items()}
    first, second = ({name: np.zeros_like(value) for name, value in expected.items()} for _ in range(2))
    for step, scale in enumerate((10.0, 0.01), start=1):  # the first gradient is clipped, the second is not
        grads = {"kernel": scale * jnp.array([[0.5, 1.0]]), "bias": scale * jnp.array([-2.0])}
        norm = scale * math.sqrt(0.25 + 1 + 4)
        for name, grad in grads.items():
            g = np.asarray(grad, np.float64) / max(norm, 1.0)
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.9 * second[name] + 0.1 * g**2
            update = first[name] / (1 - 0.8**step) / (np.sqrt(second[name] / (1 - 0.9**step)) + 1e-3)
            decay = 0.2 * expected[name] if name == "kernel" else 0.0
            expected[name] = expected[name] - 0.1 * (update + decay)
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for name in expected:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-5)


def test_layer_decay_scales_the_updates_by_the_distance_from_the_head():
    _, params, _ = split_model(tiny_model())
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), params)

    def updates(**fields: float):
        optimizer = make_optimizer(OptimConfig(weight_decay=0.0, **fields), lambda step: 0.1)
        return jax.jit(lambda: optimizer.update(grads, optimizer.init(params), params)[0])()

    plain, decayed = updates(), updates(layer_decay=0.5)
    names = jax.tree.leaves(parameter_names(params))
    ratios = {
        name: float(np.mean(one / other))
        for name, one, other in zip(names, jax.tree.leaves(decayed), jax.tree.leaves(plain), strict=True)
    }
    # Four stages of one block each.
    expected = {
        "head/kernel": 1.0,
        "norm/bias": 1.0,
        "stages/3/blocks/0/expand/kernel": 0.5,
        "stages/3/downsample/conv/kernel": 0.5,
        "stages/1/blocks/0/layer_scale": 0.125,
        "stages/0/blocks/0/depthwise/bias": 0.0625,
        "stem/conv/kernel": 0.03125,
        "stem/norm/scale": 0.03125,
    }
    assert {name: ratios[name] for name in expected} == pytest.approx(expected)
    assert min(ratios.values()) == pytest.approx(expected["stem/norm/scale"])
