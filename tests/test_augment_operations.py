"""Each operation against Pillow's own result on photographs, pixel by pixel."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import photographs
from PIL import Image, ImageEnhance, ImageOps

from convnext_jax.augment.color import color_jitter, enhance
from convnext_jax.augment.operations import Operation, apply_operation, apply_to_one

FILL = (125, 123, 114)
PillowOperation = Callable[[Image.Image, float], Image.Image]


def fill_of(image: Image.Image) -> int | tuple[int, ...]:
    return FILL[0] if image.mode == "L" else FILL


def shift(a: float, b: float, c: float, d: float, e: float, f: float, image: Image.Image) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=fill_of(image)
    )


PILLOW: dict[Operation, PillowOperation] = {
    Operation.IDENTITY: lambda image, value: image,
    Operation.AUTO_CONTRAST: lambda image, value: ImageOps.autocontrast(image),
    Operation.EQUALIZE: lambda image, value: ImageOps.equalize(image),
    Operation.INVERT: lambda image, value: ImageOps.invert(image),
    Operation.ROTATE: lambda image, value: image.rotate(value, Image.Resampling.BILINEAR, fillcolor=fill_of(image)),
    Operation.POSTERIZE: lambda image, value: ImageOps.posterize(image, int(value)),
    Operation.SOLARIZE: lambda image, value: ImageOps.solarize(image, int(value)),
    Operation.SOLARIZE_ADD: lambda image, value: image.point(
        [min(255, level + int(value)) if level < 128 else level for level in range(256)] * len(image.getbands())
    ),
    Operation.COLOR: lambda image, value: ImageEnhance.Color(image).enhance(value),
    Operation.CONTRAST: lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    Operation.BRIGHTNESS: lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    Operation.SHARPNESS: lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
    Operation.SHEAR_X: lambda image, value: shift(1, value, 0, 0, 1, 0, image),
    Operation.SHEAR_Y: lambda image, value: shift(1, 0, 0, value, 1, 0, image),
    Operation.TRANSLATE_X: lambda image, value: shift(1, 0, value, 0, 1, 0, image),
    Operation.TRANSLATE_Y: lambda image, value: shift(1, 0, 0, 0, 1, value, image),
}
VALUES = {
    Operation.ROTATE: (-135.0, -21.0, 0.0, 8.5, 30.0),
    Operation.POSTERIZE: (1.0, 2.0, 3.0, 4.0, 8.0),
    Operation.SOLARIZE: (0.0, 77.0, 128.0, 255.0, 256.0),
    Operation.SOLARIZE_ADD: (0.0, 33.0, 77.0, 110.0, 255.0),
    Operation.SHEAR_X: (-0.99, -0.3, 0.0, 0.12, 0.21),
    Operation.SHEAR_Y: (-0.99, -0.3, 0.0, 0.12, 0.21),
    Operation.TRANSLATE_X: (-32.0, -7.0, 0.4, 3.6, 50.0),
    Operation.TRANSLATE_Y: (-32.0, -7.0, 0.4, 3.6, 50.0),
}
FACTORS = (0.0, 0.37, 1.0, 1.63, 1.99)
VALUES |= dict.fromkeys((Operation.COLOR, Operation.CONTRAST, Operation.BRIGHTNESS, Operation.SHARPNESS), FACTORS)
GEOMETRIC = (
    Operation.ROTATE,
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
)


@jax.jit
def one_by_one(images: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    return jax.lax.map(lambda each: apply_to_one(*each, fill), (images, operation, value))


# The tests have eight devices, where a batch goes through all operations at once. On a single CPU it is a loop.
FORMS = {"one_by_one": one_by_one, "all_at_once": jax.jit(apply_operation)}


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Color images as gray images, or with the red of another image as their alpha."""
    color = images[..., 1:2] if channels < 3 else images
    return color if channels in (1, 3) else np.concatenate([color, np.roll(images, 1, axis=0)[..., :1]], -1)


def flat_and_two_colored() -> np.ndarray:
    """An image of one color and one of two, on which some operations divide by nothing."""
    flat = np.full((32, 40, 3), 17, np.uint8)
    two = flat.copy()
    two[:, 20:] = 230
    return np.stack([flat, two])


def test_the_list_is_complete():
    assert set(PILLOW) == set(Operation)


@pytest.fixture(params=FORMS)
def apply(request: pytest.FixtureRequest) -> Callable[..., jax.Array]:
    """What a CPU and what an accelerator does."""
    return FORMS[request.param]


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.name)
def test_it_is_pillows(apply: Callable[..., jax.Array], operation: Operation):
    images = np.concatenate([photographs(), flat_and_two_colored()])
    for value in VALUES.get(operation, (0.0,)):
        expected = np.stack([PILLOW[operation](Image.fromarray(image), value) for image in images])
        count = len(images)
        found = apply(
            jnp.asarray(images),
            jnp.full((count,), int(operation), jnp.int32),
            jnp.full((count,), value, jnp.float32),
            jnp.asarray(FILL, jnp.uint8),
        )
        difference = np.abs(np.asarray(found, np.int32) - expected)
        # Pillow computes in float64 and we in float32, so that a value may be cut off one level lower or higher; most
        # often between pixels, where whole numbers come out.
        assert difference.max() <= 1, value
        assert (difference > 0).mean() < (0.03 if operation in GEOMETRIC else 0.005), value


def test_images_of_a_batch_do_not_touch_each_other(apply: Callable[..., jax.Array]):
    images = jnp.asarray(photographs()[[2] * len(Operation)])
    operations = jnp.arange(len(Operation), dtype=jnp.int32)
    value = jnp.asarray([VALUES.get(operation, (0.0,) * 4)[3] for operation in Operation], jnp.float32)
    fill = jnp.asarray(FILL, jnp.uint8)
    together = np.asarray(apply(images, operations, value, fill))
    for index in range(len(Operation)):
        of_all = apply(images, operations[index].repeat(len(Operation)), value[index].repeat(len(Operation)), fill)
        np.testing.assert_array_equal(together[index], of_all[index])
    np.testing.assert_array_equal(together[0], images[0])
    assert len({image.tobytes() for image in together}) == len(Operation)


def test_no_bits_are_black(apply: Callable[..., jax.Array]):
    # timm's range reaches 0 bits at magnitude 10; Pillow refuses them.
    black = apply(
        jnp.asarray(photographs()[:1]),
        jnp.int32([Operation.POSTERIZE]),
        jnp.float32([0.0]),
        jnp.asarray(FILL, jnp.uint8),
    )
    assert not black.any()


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.name)
def test_it_is_pillows_on_gray_images(operation: Operation):
    images = with_channels(photographs(), 1)
    value = VALUES.get(operation, (0.0,) * 4)[3]
    expected = [PILLOW[operation](Image.fromarray(image[..., 0]), value) for image in images]
    count = len(images)
    operations, values = jnp.full(count, int(operation), jnp.int32), jnp.full(count, value, jnp.float32)
    found = FORMS["all_at_once"](jnp.asarray(images), operations, values, jnp.asarray(FILL[:1], jnp.uint8))
    difference = np.abs(np.asarray(found, np.int32)[..., 0] - np.stack(expected))
    assert difference.max() <= 1
    assert (difference > 0).mean() < (0.03 if operation in GEOMETRIC else 0.005)


def assert_same_pixels(found: np.ndarray, expected: np.ndarray) -> None:
    """Images of another number of channels are computed by another program, which may round a half the other way."""
    difference = np.abs(found.astype(np.int32) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("channels", [2, 4])
def test_an_alpha_channel_goes_along_and_changes_no_color(apply: Callable[..., jax.Array], channels: int):
    images = with_channels(photographs()[[2] * len(Operation)], channels)
    operations = jnp.arange(len(Operation), dtype=jnp.int32)
    values = jnp.asarray([VALUES.get(operation, (0.0,) * 4)[3] for operation in Operation], jnp.float32)
    fill = np.array([*FILL[: channels - 1], 200], np.uint8)
    found, colors = (
        np.asarray(apply(jnp.asarray(images[..., :kept]), operations, values, jnp.asarray(fill[:kept])))
        for kept in (channels, channels - 1)
    )
    assert found.shape == images.shape and found.dtype == np.uint8
    assert_same_pixels(found[..., :-1], colors)
    # What moves pixels moves the alpha with them; what changes colors leaves it alone.
    alpha = np.asarray(apply(jnp.asarray(images[..., -1:]), operations, values, jnp.asarray(fill[-1:])))
    assert_same_pixels(found[GEOMETRIC, ..., -1], alpha[GEOMETRIC, ..., 0])
    color = [operation for operation in Operation if operation not in GEOMETRIC]
    np.testing.assert_array_equal(found[color, ..., -1], images[color, ..., -1])


@pytest.mark.parametrize("channels", [2, 4])
def test_jitter_of_the_colors_leaves_alpha_alone(channels: int):
    images = jnp.asarray(with_channels(photographs(), channels))
    found = color_jitter(jax.random.key(0), images, 0.8)
    np.testing.assert_array_equal(found[..., -1], images[..., -1])
    assert (found[..., :-1] != images[..., :-1]).any()


def test_brightness_contrast_and_saturation_in_any_order_are_pillows():
    images = photographs()
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(3)[:, None], (1, len(images))), axis=0)
    factors = rng.uniform(0.6, 1.4, order.shape).astype(np.float32)
    found = np.asarray(jax.jit(enhance)(jnp.asarray(images), jnp.asarray(order), jnp.asarray(factors)))
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index, image in enumerate(images):
        expected = Image.fromarray(image)
        for which, factor in zip(order[:, index], factors[:, index], strict=True):
            expected = enhancers[which](expected).enhance(float(factor))
        # A level more or less in one step may grow by the factors of the two that follow.
        difference = np.abs(found[index].astype(int) - np.asarray(expected))
        assert difference.max() <= 2 and (difference > 0).mean() < 0.02
