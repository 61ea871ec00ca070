"""The block of Swin-MLP against NumPy."""

import jax
import numpy as np
import pytest
from numpy_layers import gelu, images, initializer, layer_norm, linear, with_random_weights

from convnext_jax.models.swin_mlp import SwinMLPBlock
from convnext_jax.precision import Precision


@pytest.mark.parametrize(
    ("size", "shifted", "before"), [((14, 7), False, (0, 0)), ((9, 16), True, (4, 4)), ((5, 8), True, (0, 4))]
)
def test_values(size: tuple[int, int], shifted: bool, before: tuple[int, int]) -> None:
    block, params = with_random_weights(
        SwinMLPBlock(
            initializer(),
            64,
            shifted=shifted,
            expansion=4,
            norm="layer",
            activation="gelu",
            precision=Precision(),
        )
    )
    x = images(2, *size, 64)
    exact = x.astype(np.float64)
    y, mixed = layer_norm(exact, params["spatial_norm"]), np.zeros(x.shape)
    kernel, bias = params["spatial"]["kernel"].reshape(49, 2, 49), params["spatial"]["bias"].reshape(2, 49)
    height, width = size
    for top in range(-before[0], height, 7):
        for left in range(-before[1], width, 7):
            inside = [
                (r, c, 7 * (r - top) + c - left)
                for r in range(max(top, 0), min(top + 7, height))
                for c in range(max(left, 0), min(left + 7, width))
            ]
            for r, c, q in inside:
                for head in range(2):
                    channels = slice(32 * head, 32 * head + 32)
                    mixed[:, r, c, channels] = bias[head, q] + sum(
                        kernel[p, head, q] * y[:, rr, cc, channels] for rr, cc, p in inside
                    )
    exact += mixed
    expected = exact + linear(gelu(linear(layer_norm(exact, params["norm"]), params["expand"])), params["project"])
    np.testing.assert_allclose(jax.jit(block)(x), expected, rtol=1e-4, atol=2e-5)
