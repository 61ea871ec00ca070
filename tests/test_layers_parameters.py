"""What parameters start from, and that each has a role."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy_layers import initializer

from convnext_jax.errors import UserError
from convnext_jax.layers.bilstm2d import BiLSTM2D
from convnext_jax.layers.parameters import Initializer, Role, constant, parameter
from convnext_jax.models import create_model, split_model
from convnext_jax.models.parameters import flat, roles_of


def check_deviation(kernel: jax.Array, deviation: float) -> None:
    """Within five standard errors of a normal distribution around 0."""
    values = np.asarray(kernel, np.float64)
    assert abs(values.mean()) < 5 * deviation / values.size**0.5
    assert abs(values.std() / deviation - 1) < 5 / (2 * values.size) ** 0.5


@pytest.mark.parametrize(
    ("scheme", "shape", "deviation"),
    [
        ("normal", (30, 50), 0.02),
        ("fan_in", (30, 50), 30**-0.5),
        ("fan_in", (3, 3, 20, 10), 180**-0.5),
        ("fan_out", (30, 50), (2 / 50) ** 0.5),
        ("fan_out", (3, 3, 20, 10), (2 / 90) ** 0.5),
    ],
)
def test_schemes(scheme: str, shape: tuple[int, ...], deviation: float) -> None:
    kernel = initializer(scheme).kernel(shape, Role.LINEAR)[...]
    assert kernel.shape == shape and kernel.dtype == jnp.float32 and not kernel.weak_type
    check_deviation(kernel, deviation)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UserError, match="scheme='fan': must be one of normal, fan_in, fan_out"):
        Initializer(np.random.SeedSequence(0), "fan")


def test_parts_are_independent_and_a_function_of_the_seed() -> None:
    def draw(seed: int) -> list[bytes]:
        parts = Initializer(np.random.SeedSequence(seed)).spawn(2)
        return [np.asarray(part.kernel((4, 5), Role.LINEAR)[...]).tobytes() for part in parts]

    assert draw(0) == draw(0)
    assert len({*draw(0), *draw(1)}) == 4


def test_another_scheme_draws_the_same_numbers_at_another_size() -> None:
    kernel = initializer().kernel((25, 4), Role.LINEAR)[...]
    other = initializer().with_scheme("fan_in").kernel((25, 4), Role.LINEAR)[...]
    np.testing.assert_allclose(other, 10.0 * kernel, rtol=1e-5)


def test_a_kernel_that_is_drawn_while_tracing_is_the_same() -> None:
    shape = jax.eval_shape(lambda: initializer().kernel((4, 5), Role.LINEAR)[...])
    assert (shape.shape, shape.dtype) == ((4, 5), jnp.float32)
    traced = jax.jit(lambda: initializer().kernel((4, 5), Role.LINEAR)[...])()
    np.testing.assert_array_equal(traced, initializer().kernel((4, 5), Role.LINEAR)[...])


class Roleless(nnx.Module):
    def __init__(self) -> None:
        self.kernel = parameter(jnp.ones((2, 3)), Role.LINEAR)
        self.gain = nnx.Param(jnp.ones(3))


def test_a_parameter_without_a_role_is_named() -> None:
    with pytest.raises(ValueError, match="parameter 'gain' has no role"):
        roles_of(Roleless())


def test_a_constant_has_a_strong_type() -> None:
    value = constant(3, 0.5, Role.NORM)[...]
    assert value.tolist() == [0.5] * 3 and value.dtype == jnp.float32 and not value.weak_type


# --- networks


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("convnext_atto", {"bias": 0.0, "scale": 1.0, "layer_scale": np.float32(1e-6)}),
        ("convnextv2_atto", {"bias": 0.0, "scale": 1.0, "gamma": 0.0, "beta": 0.0}),
        ("vit_tiny_patch4", {"bias": 0.0, "scale": 1.0, "class_token": 0.0}),
    ],
)
def test_kernels_start_from_a_plain_normal_of_deviation_0_02(name: str, others: dict[str, float]) -> None:
    found = flat(split_model(create_model(name, num_classes=10))[1])
    for path, leaf in found.items():
        leaf_name = path.rpartition("/")[2]
        if leaf_name in ("kernel", "position"):
            check_deviation(leaf, 0.02)
        else:
            assert np.all(np.asarray(leaf) == others[leaf_name]), path
    expand = next(leaf for path, leaf in found.items() if path.endswith("stages/3/blocks/0/expand/kernel"))
    # A normal cut at two deviations would end at 0.04.
    assert 0.04 < np.abs(expand).max() < 0.16


def test_a_resnet_starts_by_the_fan_out_and_its_head_by_the_fan_in() -> None:
    params = flat(split_model(create_model("resnet18", num_classes=10))[1])
    for path, outputs in {
        "stem/conv/kernel": 49 * 64,
        "stages/0/blocks/0/conv1/kernel": 9 * 64,
        "stages/3/blocks/0/conv1/kernel": 9 * 512,
        "stages/3/blocks/0/shortcut/conv/kernel": 512,
    }.items():
        check_deviation(params[path], (2 / outputs) ** 0.5)
    check_deviation(params["head/kernel"], 512**-0.5)


def test_fan_in_draws_by_the_number_of_inputs() -> None:
    params = flat(split_model(create_model("convnext_atto", num_classes=10, initialization="fan_in"))[1])
    for path, inputs in {
        "stages/2/blocks/0/depthwise/kernel": 49,
        "stages/2/blocks/0/expand/kernel": 160,
        "stages/2/blocks/0/project/kernel": 640,
        "stem/conv/kernel": 48,
        "head/kernel": 320,
    }.items():
        check_deviation(params[path], inputs**-0.5)


def test_an_lstm_starts_by_the_fan_in_whatever_the_network() -> None:
    params = flat(split_model(BiLSTM2D(initializer("normal"), 64))[1])
    check_deviation(params["vertical/forward/input/kernel"], 64**-0.5)
    check_deviation(params["horizontal/backward/recurrent_kernel"], 16**-0.5)
    check_deviation(params["project/kernel"], 0.02)


def test_initial_values_differ_between_layers_and_seeds() -> None:
    def kernels(seed: int) -> list[bytes]:
        params = flat(split_model(create_model("convnext_atto", num_classes=10, seed=seed))[1])
        return [np.asarray(params[f"stages/2/blocks/{i}/expand/kernel"]).tobytes() for i in range(6)]

    first, other = kernels(0), kernels(1)
    assert first == kernels(0)
    assert len({*first, *other}) == 12
