"""Linear layers and convolutions against NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import depthwise, images, initializer, linear, with_random_weights

from convnext_jax.layers.convolution import Conv, ConvTranspose, DepthwiseConv, Linear
from convnext_jax.layers.parameters import Role
from convnext_jax.models.parameters import flat, merge_model, roles_of, split_model
from convnext_jax.ops.convolution import Padding


def grouped_conv(
    x: np.ndarray, kernel: np.ndarray, stride: int, padding: Padding, groups: int, bias: np.ndarray | float
) -> np.ndarray:
    """Each output channel by itself, from the channels of its group."""
    size, inputs, outputs = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((x.shape[0], rows, columns, outputs))
    for d in range(outputs):
        first = d // (outputs // groups) * inputs
        for r in range(rows):
            for c in range(columns):
                window = x[:, r * stride : r * stride + size, c * stride : c * stride + size, first : first + inputs]
                y[:, r, c, d] = (window * kernel[..., d]).sum((1, 2, 3))
    return y + bias


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    layer, params = with_random_weights(Linear(initializer(), 4, 6, bias=bias))
    assert set(params) == ({"kernel", "bias"} if bias else {"kernel"})
    x = images(2, 3, 4)
    np.testing.assert_allclose(layer(x), linear(x.astype(np.float64), params), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 4])  # the scale of the outputs, and of the kernel
@pytest.mark.parametrize("bias", [True, False])
def test_linear_with_a_scale_and_its_gradients(bias: bool, rows: int) -> None:
    layer, params = with_random_weights(Linear(initializer(), 4, 6, bias=bias))
    definition, tree, _ = split_model(layer)
    scale, x, grad = (images(*shape).astype(np.float64) for shape in ((6,), (rows, 4), (rows, 6)))

    def outputs(tree: Any, scale: jax.Array, x: jax.Array) -> jax.Array:
        return merge_model(definition, tree)(x, scale=scale)

    y, vjp = jax.vjp(outputs, tree, *(jnp.asarray(each, jnp.float32) for each in (scale, x)))
    by_params, by_scale, by_x = vjp(jnp.asarray(grad, jnp.float32))
    before = linear(x, params)
    expected = {"x": grad * scale @ params["kernel"].T, "scale": (before * grad).sum(0), "kernel": x.T @ (grad * scale)}
    np.testing.assert_allclose(y, before * scale, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_x, expected["x"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_scale, expected["scale"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_params["kernel"], expected["kernel"], rtol=1e-5, atol=1e-5)
    if bias:
        np.testing.assert_allclose(by_params["bias"], (grad * scale).sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": 1, "stride": 2, "bias": False},
        {"padding": ((0, 1), (2, 1)), "stride": 2},
        {"padding": 1, "groups": 2},
        {"padding": ((1, 0), (0, 2)), "stride": 2, "groups": 4, "bias": False},
    ],
    ids=str,
)
def test_convolution(options: dict) -> None:
    layer, params = with_random_weights(Conv(initializer(), 4, 8, 3, **options))
    stride, padding, groups = options.get("stride", 1), options.get("padding", 0), options.get("groups", 1)
    assert params["kernel"].shape == (3, 3, 4 // groups, 8)
    assert ("bias" in params) == options.get("bias", True)
    x = images(2, 6, 5, 4)
    around = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    expected = grouped_conv(x.astype(np.float64), params["kernel"], stride, around, groups, params.get("bias", 0.0))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


# Windows that overlap, that meet, that leave gaps; a size that is no multiple of the stride.
@pytest.mark.parametrize(("size", "stride", "padding"), [(4, 2, 1), (2, 2, 0), (1, 2, 0), (3, 2, 1), (3, 1, 0)])
def test_transposed_convolution(size: int, stride: int, padding: int) -> None:
    layer, params = with_random_weights(ConvTranspose(initializer(), 3, 5, size, stride=stride, padding=padding))
    x = images(2, 4, 3, 3)
    height, width = ((side - 1) * stride + size for side in x.shape[1:3])
    y = np.zeros((2, height, width, 5))
    for row, column in np.ndindex(4, 3):
        window = np.einsum("bc,ijdc->bijd", x[:, row, column].astype(np.float64), params["kernel"])
        y[:, row * stride : row * stride + size, column * stride : column * stride + size] += window
    y = y[:, padding : height - padding, padding : width - padding] + params["bias"]
    np.testing.assert_allclose(layer(x), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "bias"), [(3, True), (5, False), ((1, 3), True), ((3, 1), True)])
def test_depthwise_convolution(size: int | tuple[int, int], bias: bool) -> None:
    layer, params = with_random_weights(DepthwiseConv(initializer(), 4, size, bias=bias))
    assert params["kernel"].shape == (*(size if isinstance(size, tuple) else (size, size)), 1, 4)
    assert ("bias" in params) == bias
    x = images(2, 6, 5, 4)
    np.testing.assert_allclose(layer(x), depthwise(x.astype(np.float64), params), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "role"),
    [
        (lambda init: Linear(init, 4, 8), Role.LINEAR),
        (lambda init: Linear(init, 4, 8, role=Role.HEAD), Role.HEAD),
        (lambda init: Conv(init, 4, 8, 3), Role.CONVOLUTION),
        (lambda init: Conv(init, 4, 8, 3, groups=2), Role.GROUPED),
        (lambda init: Conv(init, 4, 8, 3, role=Role.STEM), Role.STEM),
        (lambda init: DepthwiseConv(init, 4, 3), Role.DEPTHWISE),
        (lambda init: ConvTranspose(init, 4, 8, 2, stride=2), Role.CONVOLUTION),
    ],
)
def test_roles(layer, role: Role) -> None:
    assert flat(roles_of(layer(initializer()))) == {"kernel": role, "bias": Role.BIAS}


def test_the_gradient_of_a_bias_is_summed_in_float32() -> None:
    """In bfloat16 4,096 + 1 is 4,096."""
    definition, params, _ = split_model(Linear(initializer(), 2, 1))
    x = jnp.ones((4097, 2), jnp.bfloat16)
    grads = jax.grad(lambda params: merge_model(definition, params)(x).astype(jnp.float32).sum())(params)
    assert grads["bias"].tolist() == [4097.0]


def test_parameters_are_float32_whatever_the_map() -> None:
    layer = Conv(initializer(), 4, 8, 3)
    assert layer(jnp.ones((1, 4, 4, 4), jnp.bfloat16)).dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in jax.tree.leaves(split_model(layer)[1])} == {"float32"}
