"""The multi-scale network: against NumPy, and against the paper's table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import depthwise, gelu, images, initializer, layer_norm, linear, with_random_weights

from convnext_jax.models import MODELS, abstract_model, count_parameters, create_model, merge_model
from convnext_jax.models.costs import count_macs
from convnext_jax.models.multiscale import DESIGNS, MultiscaleBlock
from convnext_jax.precision import Precision

PLAIN = {"block": "convnext", "stem": "patch4", "bilstm2d": False}
# Yang, Wang, Wei 2024: parameters in millions and multiply-adds in 10^9, 10 classes, 224 pixels.
TABLE = {
    "ConvNeXt-T/512": (PLAIN, 15.31, 2.55),
    "A": (PLAIN | {"block": "multiscale"}, 11.05, 2.01),
    "B": (PLAIN | {"bilstm2d": True}, 16.89, 2.56),
    "C": (PLAIN | {"stem": "conv7x7_patch2"}, 15.33, 2.71),
    "D": ({"bilstm2d": False}, 11.08, 2.17),
    "E": ({"stem": "patch4"}, 12.63, 2.03),
    "F": ({"block": "convnext"}, 16.91, 2.72),
    "ours": ({}, 12.65, 2.19),
    "design A": ({"block": "multiscale_a"}, 12.02, 1.97),
    "design B": ({"block": "multiscale_b"}, 11.77, 2.19),
    "design C": ({"block": "multiscale_c"}, 11.69, 1.86),
}


@pytest.mark.parametrize("row", TABLE)
def test_the_table_of_the_paper(row: str) -> None:
    changes, parameters, macs = TABLE[row]
    architecture = dataclasses.replace(MODELS["convnext_multiscale"], **changes)
    model = abstract_model(lambda: create_model(architecture, num_classes=10))
    assert count_parameters(model.params) / 1e6 == pytest.approx(parameters, rel=0.0015)
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    counted = count_macs(lambda params, x: merge_model(model.definition, params)(x), model.params, shape)
    # The paper's tool does not look into the LSTM, of which it counts the linear layer alone: row B is 0.01 above
    # ConvNeXt-T/512, where the LSTM does 0.06.
    if architecture.bilstm2d:
        counted -= 49 * 4 * (512 * 512 + 128 * 512)
    # And it counts a layer at each of its uses; here the shared one is computed once.
    if architecture.block != "convnext" and DESIGNS[architecture.block].shared:
        uses = 3 if DESIGNS[architecture.block].point == "narrow" else 2
        sides = (56, 28, 14, 7)
        for depth, dim, side in zip(architecture.depths, architecture.dims, sides, strict=True):
            counted += (uses - 1) * depth * side**2 * dim * dim // 2
    assert counted / 1e9 == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_blocks(design: str) -> None:
    block, params = with_random_weights(
        MultiscaleBlock(
            initializer(),
            8,
            DESIGNS[design],
            kernel_size=7,
            norm="layer",
            activation="gelu",
            scale=0.1,
            precision=Precision(),
        )
    )
    x = images(2, 6, 5, 8)
    exact = x.astype(np.float64)
    y = layer_norm(depthwise(exact, params["depthwise"]), params["norm"])
    convs, narrow = params["convs"], params["narrow"]
    if design == "multiscale_a":
        maps = [np.repeat(linear(y, narrow[str(i)]), 4, -1) for i in range(4)]
        branches = [depthwise(m, convs[str(i)]["0"]) for i, m in enumerate(maps)]
    elif design == "multiscale_c":
        crossed = depthwise(linear(y, narrow["0"]), convs["0"]["0"])
        assert params["convs"]["0"]["0"]["kernel"].shape == (1, 3, 1, 4)
        wide = depthwise(linear(y, narrow["1"]), convs["1"]["0"])
        branches = [y, linear(y, params["point"]), depthwise(crossed, convs["0"]["1"]), wide]
    else:
        half = linear(y, narrow["0"])
        point = linear(half if design == "multiscale_b" else y, params["point"])
        twice = np.repeat(half, 2, -1)
        branches = [y, point, depthwise(twice, convs["0"]["0"]), depthwise(twice, convs["1"]["0"])]
        assert convs["1"]["0"]["kernel"].shape == (5, 5, 1, 8)
    expected = exact + linear(gelu(np.concatenate(branches, -1)), params["project"]) * params["layer_scale"]
    np.testing.assert_allclose(jax.jit(block)(x), expected, rtol=1e-4, atol=1e-5)
