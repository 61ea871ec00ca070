"""Counts of multiply-adds and activations: by hand for small functions, and the published figures."""

import jax
import jax.numpy as jnp
import pytest
from networks import TINY

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, abstract_model, create_model, merge_model
from convnext_jax.models.costs import activation_bytes, count_macs, summarize
from convnext_jax.ops.convolution import conv
from convnext_jax.ops.depthwise import depthwise_conv

# 10^9 multiply-adds at 224 pixels with 1,000 classes, as Liu et al. 2022 and Woo et al. 2023 give them, Hassani et al.
# 2021 for CCT, and torchvision for all others.
PUBLISHED = {
    "convnext_tiny": 4.46,
    "convnext_small": 8.69,
    "convnext_base": 15.38,
    "convnext_large": 34.40,
    "convnext_xlarge": 60.98,
    "convnext_isotropic_small": 4.3,
    "convnext_isotropic_base": 16.9,
    "convnext_isotropic_large": 59.7,
    "convnextv2_atto": 0.55,
    "convnextv2_femto": 0.78,
    "convnextv2_pico": 1.37,
    "convnextv2_nano": 2.45,
    "convnextv2_tiny": 4.47,
    "convnextv2_base": 15.4,
    "convnextv2_large": 34.4,
    "convnextv2_huge": 115,
    "resnet18": 1.81,
    "resnet34": 3.66,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "resnet152": 11.51,
    "resnext50_32x4d": 4.23,
    "resnext101_32x8d": 16.41,
    "vit_base_patch16": 17.56,
    "alexnet": 0.71,
    "vgg16": 15.47,
    "googlenet": 1.498,
    "densenet121": 2.834,
    "densenet161": 7.728,
    "swin_tiny": 4.491,
    "swin_small": 8.741,
    "swin_base": 15.431,
    "cct_14_7x2": 5.53,
}


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def scanned(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda carry, _: (carry @ kernel, None), x, length=7)[0]


def strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (lambda x, y: x @ y, [(3, 4), (4, 5)], 3 * 4 * 5),
        (lambda x, y: jnp.einsum("bij,bjk->bik", x, y), [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (jax.jit(lambda x, y: x * 2 + y), [(3, 4), (3, 4)], 0),
        (scanned, [(3, 4), (4, 4)], 7 * 3 * 4 * 4),
        (strided, [(1, 8, 8, 6), (2, 2, 3, 10)], 4 * 4 * 10 * 2 * 2 * 3),
        (lambda x, y: conv(x, y, stride=2, groups=2), [(1, 8, 8, 6), (2, 2, 3, 10)], 4 * 4 * 10 * 2 * 2 * 3),
        (lambda x, y: conv(x, y, stride=2), [(1, 8, 8, 3), (2, 2, 3, 10)], 4 * 4 * 10 * 2 * 2 * 3),
        # The same whether a backend takes shifts, a banded matrix or a convolution.
        (depthwise_conv, [(1, 16, 16, 5), (7, 7, 5)], 16 * 16 * 5 * 49),
        (depthwise_conv, [(1, 3, 3, 5), (7, 7, 5)], 3 * 3 * 5 * 49),
    ],
)
def test_multiply_adds_by_hand(function, shapes, macs: int) -> None:
    assert count_macs(function, *(array(*shape) for shape in shapes)) == macs


def test_a_loop_of_unknown_length_is_refused() -> None:
    def loop(x):
        return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="loop of unknown length"):
        count_macs(loop, array(3, 3))


def test_activations_are_what_autodiff_keeps_of_each_image() -> None:
    kernel = jnp.ones((3, 5))
    # The exponential keeps its output, the product nothing of the images.
    assert activation_bytes(lambda x: jnp.exp(x @ kernel), array(1, 2, 2, 3)) == 2 * 2 * 5 * 4
    assert activation_bytes(lambda x: x @ kernel, array(1, 2, 2, 3)) == 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_multiply_adds_are_the_published_ones(name: str) -> None:
    model = abstract_model(lambda: create_model(name, num_classes=1000))

    def run(params, batch_stats, x):
        return merge_model(model.definition, params, batch_stats)(x)

    macs = count_macs(run, model.params, model.batch_stats, array(1, 224, 224, 3))
    assert macs / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize(
    ("name", "outputs", "parameters"),
    [
        ("convnext_atto", [(16, 8, 40), (16, 8, 40), (8, 4, 80), (4, 2, 160), (2, 1, 320)], 3_695_520 - 990 * 321),
        ("resnet18", [(16, 8, 64), (16, 8, 64), (8, 4, 128), (4, 2, 256), (2, 1, 512)], 11_689_512 - 990 * 513),
        # Eight patches and the class token.
        ("vit_tiny_patch16", [(9, 192)] * 5, 5_717_416 - 990 * 193),
    ],
)
def test_parts_add_up_to_the_model(name: str, outputs: list[tuple[int, ...]], parameters: int) -> None:
    parts = summarize(MODELS[name], height=64, width=32, num_classes=10)
    assert [part.name for part in parts] == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"]
    assert [part.output for part in parts] == [*outputs, (10,)]
    assert sum(part.parameters for part in parts) == parameters
    assert all(part.macs > 0 and part.activation_bytes > 0 for part in parts[1:-1])


def test_half_the_precision_takes_half_the_memory() -> None:
    full, half = (
        summarize(TINY, height=16, width=16, num_classes=10, dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    for one, other in zip(full[1:-1], half[1:-1], strict=True):
        assert one.macs == other.macs and 0.45 < other.activation_bytes / one.activation_bytes < 0.65


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(UserError, match="images of 31x64 pixels are too small"):
        summarize(MODELS["convnext_atto"], height=31, width=64, num_classes=10)
