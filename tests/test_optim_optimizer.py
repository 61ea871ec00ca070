"""Each optimizer against its formula in NumPy, float64, and what all of them share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpy_layers import initializer

from convnext_jax.config import CHOICES, OptimConfig
from convnext_jax.layers.convolution import Conv, DepthwiseConv, Linear
from convnext_jax.layers.parameters import Initializer, Role, constant
from convnext_jax.models.interface import Model, Stage
from convnext_jax.models.parameters import AbstractModel, abstract_model, flat, nested
from convnext_jax.optim.optimizer import make_optimizer
from convnext_jax.train.state import TrainState, init_state
from convnext_jax.workdir.checkpoints import Checkpoints

OPTIMIZERS = CHOICES["optim", "name"]
Arrays = dict[str, np.ndarray]


class ToyBlock(nnx.Module):
    def __init__(self, init: Initializer) -> None:
        self.depthwise = DepthwiseConv(init, 4, 3, bias=False)
        self.expand = Linear(init, 4, 12)
        self.layer_scale = constant(4, 1.0, Role.LAYER_SCALE)


class Toy(Model):
    """Parameters of all kinds that optimizers tell apart, on four levels. It is never called."""

    def __init__(self) -> None:
        init = initializer()
        self.stem = Conv(init, 3, 4, 2, bias=False, role=Role.STEM)
        downsample = Conv(init, 4, 6, 2, bias=False)
        self.stages = nnx.List([Stage([ToyBlock(init)]), Stage([nnx.Module()], downsample=downsample)])
        self.position = init.kernel((5, 4), Role.POSITION)
        self.head = Linear(init, 6, 3, bias=False, role=Role.HEAD)


@functools.cache
def toy() -> AbstractModel:
    return abstract_model(Toy)


SHAPES = {path: leaf.shape for path, leaf in flat(toy().params).items()}
STEM = "stem/kernel"
EXPAND, DOWNSAMPLE = "stages/0/blocks/0/expand/kernel", "stages/1/downsample/kernel"
STEPS = 4


def draw(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def learning_rate(step: Any) -> Any:
    return 0.1 / (step + 1)


def base(name: str, nesterov: bool = True) -> OptimConfig:
    return OptimConfig(name=name, weight_decay=0.2, b1=0.8, b2=0.9, eps=1e-3, momentum=0.7, nesterov=nesterov)


@functools.cache
def compiled_step(config: OptimConfig, schedule: optax.Schedule) -> Callable[..., tuple[Any, Any]]:
    optimizer = make_optimizer(config, schedule, toy())

    @jax.jit
    def step(params: Any, state: Any, grad: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    return step


def take_steps(config: OptimConfig, grads: list[Arrays], schedule: optax.Schedule = learning_rate) -> list[Arrays]:
    """The parameters after each step from `draw(0)`."""
    params, found = nested(draw(0)), []
    state = make_optimizer(config, schedule, toy()).init(params)
    for grad in grads:
        params, state = compiled_step(config, schedule)(params, state, nested(grad))
        found.append({name: np.asarray(leaf) for name, leaf in flat(params).items()})
    return found


def check(config: OptimConfig, reference: Callable[..., Iterator[np.ndarray]], rtol: float = 1e-5) -> None:
    """Holds an optimizer to a generator that is given a parameter, its gradients and its name, and yields it after
    each step."""
    grads = [draw(1 + step) for step in range(STEPS)]
    found = take_steps(config, grads)
    for name, param in draw(0).items():
        own = [grad[name].astype(np.float64) for grad in grads]
        expected = list(reference(config, param.astype(np.float64), own, name))
        for step in range(STEPS):
            np.testing.assert_allclose(
                found[step][name], expected[step], rtol=rtol, atol=rtol, err_msg=f"{name} {step}"
            )


def decay_of(config: OptimConfig, name: str) -> float:
    return config.weight_decay if name.endswith("kernel") else 0.0


def adam_directions(config: OptimConfig, grads: list[np.ndarray]) -> Iterator[np.ndarray]:
    first = second = np.zeros_like(grads[0])
    for step, grad in enumerate(grads, start=1):
        first = config.b1 * first + (1 - config.b1) * grad
        second = config.b2 * second + (1 - config.b2) * grad**2
        yield first / (1 - config.b1**step) / (np.sqrt(second / (1 - config.b2**step)) + config.eps)


def adamw(config: OptimConfig, param: np.ndarray, grads: list[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for step, direction in enumerate(adam_directions(config, grads)):
        param = param - learning_rate(step) * (direction + decay_of(config, name) * param)
        yield param


def sgd(config: OptimConfig, param: np.ndarray, grads: list[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """As the documentation of torch.optim.SGD has it."""
    velocity = None
    for step, grad in enumerate(grads):
        grad = grad + decay_of(config, name) * param
        velocity = grad if velocity is None else config.momentum * velocity + grad
        param = param - learning_rate(step) * (grad + config.momentum * velocity if config.nesterov else velocity)
        yield param


def lion(config: OptimConfig, param: np.ndarray, grads: list[np.ndarray], name: str) -> Iterator[np.ndarray]:
    momentum = np.zeros_like(param)
    for step, grad in enumerate(grads):
        direction = np.sign(config.b1 * momentum + (1 - config.b1) * grad)
        momentum = config.b2 * momentum + (1 - config.b2) * grad
        param = param - learning_rate(step) * (direction + decay_of(config, name) * param)
        yield param


def lamb(config: OptimConfig, param: np.ndarray, grads: list[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for step, direction in enumerate(adam_directions(config, grads)):
        direction = direction + decay_of(config, name) * param
        trust = np.linalg.norm(param) / np.linalg.norm(direction) if name.endswith("kernel") else 1.0
        param = param - learning_rate(step) * trust * direction
        yield param


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five steps of Jordan's quintic."""
    matrix = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * gram + 2.0315 * gram @ gram) @ matrix
    return matrix


def muon(config: OptimConfig, param: np.ndarray, grads: list[np.ndarray], name: str) -> Iterator[np.ndarray]:
    if name not in (EXPAND, DOWNSAMPLE):
        yield from adamw(config, param, grads, name)
        return
    beta, momentum = config.momentum, np.zeros_like(param)
    for step, grad in enumerate(grads):
        momentum = beta * momentum + (1 - beta) * grad
        ahead = momentum / (1 - beta ** (step + 1))
        if config.nesterov:
            # The mean that the next step would see were its gradient this one's, each part free of its bias.
            ahead = beta * momentum / (1 - beta ** (step + 2)) + (1 - beta) * grad / (1 - beta ** (step + 1))
        matrix = ahead.reshape(-1, param.shape[-1])
        direction = 0.2 * math.sqrt(max(matrix.shape)) * newton_schulz(matrix).reshape(param.shape)
        param = param - learning_rate(step) * (direction + decay_of(config, name) * param)
        yield param


REFERENCES = {"adamw": adamw, "sgd": sgd, "lion": lion, "lamb": lamb, "muon": muon}


@pytest.mark.parametrize(
    ("name", "nesterov"), [*((name, True) for name in OPTIMIZERS), ("sgd", False), ("muon", False)]
)
def test_an_optimizer_is_its_formula(name: str, nesterov: bool):
    # Five quintics carry the rounding of Muon's float32 on.
    check(base(name, nesterov), REFERENCES[name], rtol=1e-4 if name == "muon" else 1e-5)


def test_sgd_without_momentum_keeps_none():
    config = dataclasses.replace(base("sgd"), momentum=0.0)
    check(config, sgd)
    state = make_optimizer(config, learning_rate, toy()).init(nested(draw(0)))
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [()]


def test_muon_steps_along_the_singular_vectors_with_the_root_mean_square_of_0_2():
    grad = draw(1)
    config = dataclasses.replace(base("muon"), weight_decay=0.0)
    after = take_steps(config, [grad], schedule=optax.constant_schedule(1.0))[0]
    for name in (EXPAND, DOWNSAMPLE):
        update = (draw(0)[name] - after[name]).reshape(-1, SHAPES[name][-1])
        left, _, right = np.linalg.svd(grad[name].reshape(update.shape), full_matrices=False)
        values = left.T @ update @ right.T
        longest = 0.2 * math.sqrt(max(update.shape))
        # The coefficients lift every singular value to between 0.7 and 1.2, not to 1.
        assert np.abs(values - np.diag(np.diag(values))).max() < 1e-4
        assert 0.6 * longest < np.diag(values).min() and np.diag(values).max() < 1.25 * longest
        assert math.sqrt(np.square(update).mean()) == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_clip_comes_first(name: str):
    grads = [draw(1, scale=50.0), draw(2, scale=1e-3)]
    norm = math.sqrt(sum(float(np.square(leaf.astype(np.float64)).sum()) for leaf in grads[0].values()))
    clipped = [{leaf: grad / np.float32(norm) for leaf, grad in grads[0].items()}, grads[1]]
    # Were the decay part of what is clipped, or the second gradient stretched, these would differ.
    found = take_steps(dataclasses.replace(base(name), clip_norm=1.0), grads)
    expected, plain = take_steps(base(name), clipped), take_steps(base(name), grads)
    for leaf in SHAPES:
        np.testing.assert_allclose(found[-1][leaf], expected[-1][leaf], rtol=1e-4, atol=1e-5)
    assert any(np.abs(found[-1][leaf] - plain[-1][leaf]).max() > 1e-3 for leaf in SHAPES)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layer_decay_scales_the_whole_step(name: str):
    before, grads = draw(0), [draw(1)]
    plain, decayed = (
        take_steps(dataclasses.replace(base(name), layer_decay=factor), grads)[0] for factor in (1.0, 0.5)
    )
    for leaf, layers in {"head/kernel": 0, DOWNSAMPLE: 1, EXPAND: 2, STEM: 3}.items():
        expected = (plain[leaf] - before[leaf]) * 0.5**layers
        np.testing.assert_allclose(decayed[leaf] - before[leaf], expected, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_saved_restored_and_donated_and_the_step_traced_once(name: str, tmp_path: Path):
    config = OptimConfig(name=name, clip_norm=1.0, layer_decay=0.9)
    optimizer = make_optimizer(config, learning_rate, toy())
    traces = []

    def step(state: TrainState, grad: Any) -> TrainState:
        traces.append(1)
        updates, opt_state = optimizer.update(grad, state.opt_state, state.params)
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)

    def fresh() -> TrainState:
        return init_state(jax.tree.map(jnp.asarray, nested(draw(0))), optimizer)

    jitted = jax.jit(step, donate_argnums=0)
    grads = [jax.tree.map(jnp.asarray, nested(draw(1 + step))) for step in range(3)]
    first = fresh()
    state = jitted(jitted(first, grads[0]), grads[1])
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.opt_state) if leaf.ndim)
    items = {"params": state.params, "opt_state": state.opt_state}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(2, items)
        checkpoints.wait()
        like = fresh()
        restored = checkpoints.restore(2, {"params": like.params, "opt_state": like.opt_state})
    assert jax.tree.structure(restored) == jax.tree.structure(items)
    restored = TrainState(jnp.array(2, jnp.int32), **restored)
    ours, theirs = jitted(restored, grads[2]), jitted(state, grads[2])
    assert len(traces) == 1
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)
