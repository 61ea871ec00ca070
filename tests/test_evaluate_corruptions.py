"""Corruptions against the published definitions in NumPy, SciPy and Pillow, the random ones against distributions."""

import colorsys
import functools
import io
import re

import jax
import numpy as np
import pytest
from photographs import photographs
from PIL import Image
from scipy import ndimage
from scipy.stats import binomtest, kstest

from convnext_jax.errors import UserError
from convnext_jax.evaluate.corruptions.blur import blur_along, copy_neighbors
from convnext_jax.evaluate.corruptions.digital import affine_points
from convnext_jax.evaluate.corruptions.registry import CORRUPTIONS, corrupt
from convnext_jax.evaluate.corruptions.resampling import bilinear, mirror, reflect
from convnext_jax.evaluate.corruptions.weather import plasma
from convnext_jax.sharding import Sharding, make_mesh

NUMBERS = np.arange(12, dtype=np.int32)
SEVERITIES = (1, 2, 3, 4, 5)
SIZES = (32, 64)


@functools.cache
def corrupted(name: str, severity: int, size: int = 32) -> np.ndarray:
    return np.asarray(corrupt(name, severity)(photographs(size, size), NUMBERS))


def assert_within_one_level(found: np.ndarray, values: np.ndarray, most_different: float = 0.02) -> None:
    """The published values are truncated, so one that is whole but for its rounding may end a level lower."""
    expected = np.clip(values, 0, 255).astype(np.uint8)
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= most_different


def brightness(image: np.ndarray, amount: float) -> np.ndarray:
    def brighter(pixel: np.ndarray) -> tuple[float, float, float]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255.0))
        return colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1.0))

    return 255.0 * np.apply_along_axis(brighter, -1, image)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    means = image.mean((0, 1), dtype=np.float64)
    return (image - means) * factor + means


def defocus_blur(image: np.ndarray, radius: float, deviation: float) -> np.ndarray:
    line = np.arange(-8, 9)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    line = np.exp(-(np.arange(-1, 2) ** 2) / (2 * deviation**2))
    kernel = ndimage.correlate(disk / disk.sum(), np.outer(line, line) / line.sum() ** 2, mode="constant")
    return ndimage.correlate(image.astype(np.float64), kernel[..., None], mode="mirror")


def zoom_blur(image: np.ndarray, end: float) -> np.ndarray:
    size, factors = len(image), np.arange(1, end, 0.01)
    total = image.astype(np.float64)
    for factor in factors:
        crop = int(np.ceil(size / factor))
        top = (size - crop) // 2
        middle = image[top : top + crop, top : top + crop].astype(np.float64)
        zoomed = ndimage.zoom(middle, (factor, factor, 1), order=1)
        trim = (len(zoomed) - size) // 2
        total += zoomed[trim : trim + size, trim : trim + size]
    return total / (len(factors) + 1)


# The constants of severities 2 and 5 at each size, from make_cifar_c.py and make_tinyimagenet_c.py.
DEFINED = {
    "brightness": (brightness, {32: ((0.1,), (0.3,)), 64: ((0.2,), (0.5,))}),
    "contrast": (contrast, {32: ((0.5,), (0.15,)), 64: ((0.3,), (0.05,))}),
    "defocus_blur": (defocus_blur, {32: ((0.4, 0.5), (1.5, 0.1)), 64: ((1, 0.1), (3, 0.1))}),
    "zoom_blur": (zoom_blur, {32: ((1.11,), (1.26,)), 64: ((1.11,), (1.26,))}),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DEFINED)
def test_a_deterministic_corruption_is_within_one_level_of_its_definition(name: str, size: int):
    define, constants = DEFINED[name]
    for severity, arguments in zip((2, 5), constants[size], strict=True):
        expected = np.stack([define(image, *arguments) for image in photographs(size, size)[::3]])
        assert_within_one_level(corrupted(name, severity, size)[::3], expected, most_different=0.04)


def pillow_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


@pytest.mark.parametrize(("size", "qualities"), [(32, (80, 65, 58, 50, 40)), (64, (65, 58, 50, 40, 25))])
def test_jpeg_is_pillow_s_own_bit_for_bit(size: int, qualities: tuple[int, ...]):
    for severity, quality in zip(SEVERITIES, qualities, strict=True):
        expected = np.stack([pillow_jpeg(image, quality) for image in photographs(size, size)])
        np.testing.assert_array_equal(corrupted("jpeg_compression", severity, size), expected)


@pytest.mark.parametrize(("shape", "quality"), [((28, 28, 1), 40), ((37, 50, 3), 25)], ids=str)
def test_jpeg_is_exact_where_blocks_do_not_fit(shape: tuple[int, int, int], quality: int):
    images = photographs(*shape[:2])[..., : shape[2]]
    expected = np.stack([pillow_jpeg(image, quality) for image in images])
    np.testing.assert_array_equal(corrupt("jpeg_compression", 5)(images, NUMBERS), expected)


@pytest.mark.parametrize(("size", "shares"), [(32, (0.95, 0.9, 0.85, 0.75, 0.65)), (64, (0.9, 0.8, 0.7, 0.6, 0.5))])
def test_pixelate_is_pillow_s_box_filter_bit_for_bit(size: int, shares: tuple[float, ...]):
    for severity, share in zip(SEVERITIES, shares, strict=True):
        small = (int(size * share),) * 2
        expected = [
            Image.fromarray(image).resize(small, Image.Resampling.BOX).resize((size, size), Image.Resampling.BOX)
            for image in photographs(size, size)
        ]
        np.testing.assert_array_equal(corrupted("pixelate", severity, size), np.stack(expected))


def test_glass_copies_pixels_one_after_another():
    rng = np.random.default_rng(0)
    for reach in (1, 2):
        image = rng.integers(0, 256, (12, 10, 3)).astype(np.float32)
        offsets = rng.integers(-reach, reach, (2, 12, 10)).astype(np.int32)
        expected = image.copy()
        for row in range(12 - reach, reach, -1):
            for column in range(10 - reach, reach, -1):
                down, right = offsets[:, row, column]
                expected[row, column] = expected[row + down, column + right]
        found = copy_neighbors(image, offsets.reshape(2, -1), np.int32(reach))
        np.testing.assert_array_equal(found, expected)


def test_motion_blur_is_half_a_gaussian_along_a_line():
    table = np.array([(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)])
    image = photographs(32, 32)[0]
    for severity, degrees in ((0, 20.0), (4, -101.0)):
        radius, deviation = table[severity]
        weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * deviation**2))
        expected, (rows, columns) = np.zeros(image.shape), np.mgrid[:32, :32]
        for step, weight in enumerate(weights / weights.sum()):
            down, right = (np.ceil(step * along(np.deg2rad(degrees)) - 0.5).astype(int) for along in (np.sin, np.cos))
            expected += weight * image[np.clip(rows + down, 0, 31), np.clip(columns + right, 0, 31)]
        found = blur_along(image.astype(np.float32), np.float32(degrees), table, np.int32(severity))
        assert_within_one_level(np.asarray(found), expected)


def test_the_cloud_of_fog_is_that_of_the_diamond_square_algorithm():
    rng = np.random.default_rng(0)
    draws = [rng.uniform(-1, 1, (3, 1 << step, 1 << step)) for step in range(4)]
    side, cloud = 16, np.zeros((16, 16))
    for step, (centers, across, down) in enumerate(draws):
        width, half, amplitude = side >> step, side >> (step + 1), (100 / 2.5**step) ** 2
        at = functools.partial(lambda cloud, y, x: cloud[y % side, x % side], cloud)
        points = [(y, x) for y in range(0, side, width) for x in range(0, side, width)]
        for y, x in points:
            noise = amplitude * centers[y // width, x // width]
            corners = at(y, x) + at(y, x + width) + at(y + width, x) + at(y + width, x + width)
            cloud[y + half, x + half] = corners / 4 + noise
        for y, x in points:
            top = at(y, x) + at(y, x + width) + at(y + half, x + half) + at(y - half, x + half)
            left = at(y, x) + at(y + width, x) + at(y + half, x + half) + at(y + half, x - half)
            cloud[y, x + half] = top / 4 + amplitude * across[y // width, x // width]
            cloud[y + half, x] = left / 4 + amplitude * down[y // width, x // width]
    expected = (cloud - cloud.min()) / (cloud.max() - cloud.min())
    found = jax.jit(plasma)([np.float32(each) for each in draws], np.float32(2.5))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fog_lies_on_top_and_keeps_the_brightest_value():
    image = photographs(32, 32).astype(np.float64) / 255
    fogged = corrupted("fog", 4) / 255.0  # amount 1
    brightest = image.max((1, 2, 3), keepdims=True)
    cloud = fogged * (brightest + 1) / brightest - image  # the same in each channel, from 0 to 1
    assert np.ptp(cloud, axis=-1).max() < 0.02
    np.testing.assert_allclose(cloud.min((1, 2, 3)), 0, atol=0.01)
    np.testing.assert_allclose(cloud.max((1, 2, 3)), 1, atol=0.02)


def test_an_affine_map_is_the_one_that_its_three_points_define():
    moves = np.array([[2.5, -1.0], [0.5, 2.0], [-1.5, -2.0]])
    before = np.array([[26, 26], [26, 6], [6, 6]], np.float64)  # x and y
    after = np.column_stack([before + moves, np.ones(3)])
    back = np.linalg.solve(after, before)  # (x, y, 1) @ back
    y, x = np.mgrid[:32, :32]
    expected = np.stack([x, y, np.ones_like(x)], -1) @ back
    found_y, found_x = affine_points(32, 32, moves.astype(np.float32))
    np.testing.assert_allclose(np.stack([found_x, found_y], -1), expected, atol=1e-4)


@pytest.mark.parametrize(("fold", "mode"), [(reflect, "mirror"), (mirror, "reflect")])
def test_an_image_is_interpolated_as_by_scipy(fold, mode: str):
    image = photographs(32, 40)[3].astype(np.float32)
    y, x = np.random.default_rng(0).uniform(-20, 60, (2, 30, 30)).astype(np.float32)
    expected = [ndimage.map_coordinates(channel, (y, x), order=1, mode=mode) for channel in np.moveaxis(image, -1, 0)]
    np.testing.assert_allclose(bilinear(image, y, x, fold), np.stack(expected, -1), atol=2e-3)


def test_gaussian_noise_has_its_deviation():
    noise = corrupted("gaussian_noise", 3, 64) / 255.0 - photographs(64, 64) / 255.0
    noise = noise[(photographs(64, 64) > 110) & (photographs(64, 64) < 145)]  # nothing is clipped there
    assert abs(noise.mean() + 0.5 / 255) < 0.002  # truncated
    assert abs(noise.std() - 0.12) < 0.003
    assert kstest(noise + np.random.default_rng(0).uniform(0, 1 / 255, noise.size), "norm", (0, 0.12)).pvalue > 1e-3


def test_shot_noise_is_poisson():
    levels = photographs(64, 64).astype(np.float64)
    for severity, photons in ((1, 250), (5, 15)):
        found = corrupted("shot_noise", severity, 64).astype(np.float64)
        counts = np.ceil(found * photons / 255 - 1e-6)  # a photon is a level or more
        chosen = (levels > 40) & (levels < 110)  # at 15 photons, 1 in 1,000 is clipped
        counts, means = counts[chosen], levels[chosen] * photons / 255
        assert abs((counts - means).mean() / np.sqrt(means.mean() / means.size)) < 4
        assert abs(((counts - means) ** 2 / means).mean() - 1) < 0.04


def test_impulse_noise_hits_its_share_with_black_and_white():
    images = photographs(64, 64)
    found = corrupted("impulse_noise", 5, 64)
    inner = (images > 0) & (images < 255)
    black, white = ((found == value)[inner].sum() for value in (0, 255))
    assert binomtest(int(black), int(inner.sum()), 0.07).pvalue > 1e-3
    assert binomtest(int(white), int(inner.sum()), 0.07).pvalue > 1e-3
    untouched = inner & (found > 0) & (found < 255)
    np.testing.assert_array_equal(found[untouched], images[untouched])


def test_snow_is_alike_turned_by_180_degrees_and_frost_is_bluish():
    black = np.zeros((12, 32, 32, 3), np.uint8)
    snow = np.asarray(corrupt("snow", 3)(black, NUMBERS))
    np.testing.assert_array_equal(snow, snow[:, ::-1, ::-1])
    assert snow.max() > 100
    frost = np.asarray(corrupt("frost", 1)(black, NUMBERS)).mean((0, 1, 2)) / 0.2
    np.testing.assert_allclose(frost, (146, 167, 179), atol=25)  # the published photographs' mean


# The published constants of the others do not rise throughout, as those of elastic_transform, whose severities 4 and 5
# move corners less and single pixels more.
RISING = set(CORRUPTIONS) - {"elastic_transform", "frost", "glass_blur", "motion_blur"}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_image_changes_and_more_so_with_the_severity(name: str):
    images = photographs(32, 32).astype(np.float64)
    changes = np.stack([np.abs(corrupted(name, severity) - images).mean((1, 2, 3)) for severity in SEVERITIES])
    assert changes.min() > 0.1
    if name in RISING:
        assert (np.diff(changes.mean(1)) > 0).all()
    elif name != "elastic_transform":
        assert changes[4].mean() > changes[0].mean()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_the_same_in_any_batch_and_on_any_number_of_devices(name: str):
    order = np.array([7, 2, 5, 11, 0, 3, 9, 4], np.int32)  # 8 instead of 12 images, one on each device
    batch = jax.device_put((photographs(32, 32)[order], order), Sharding(make_mesh()).batch)
    assert len(batch[0].sharding.device_set) == 8
    np.testing.assert_array_equal(corrupt(name, 4)(*batch), corrupted(name, 4)[order])


def test_another_seed_and_another_number_are_other_noise():
    images = np.full((2, 32, 32, 3), 128, np.uint8)
    numbers = np.array([0, 1], np.int32)
    first = np.asarray(corrupt("impulse_noise", 5)(images, numbers))
    other = np.asarray(corrupt("impulse_noise", 5, seed=1)(images, numbers))
    assert (first[0] != first[1]).any() and (first != other).any()


def test_the_severities_share_one_program(caplog: pytest.LogCaptureFixture):
    images = np.zeros((3, 16, 16, 3), np.uint8)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for severity in SEVERITIES:
            corrupt("contrast", severity)(images, NUMBERS[:3])
    assert len(re.findall("Finished XLA compilation", caplog.text)) == 1


@pytest.mark.parametrize("shape", [(8, 8, 1), (60, 48, 3)], ids=str)
def test_gray_images_and_other_sizes_have_all_corruptions(shape: tuple[int, int, int]):
    images = jax.ShapeDtypeStruct((2, *shape), np.uint8)
    for name in CORRUPTIONS:
        changed = jax.eval_shape(corrupt(name, 3), images, jax.ShapeDtypeStruct((2,), np.int32))
        assert (changed.shape, changed.dtype) == (images.shape, np.uint8), name


@pytest.mark.parametrize("name", ["brightness", "contrast", "snow"])
def test_a_gray_image_becomes_what_its_colored_copy_becomes(name: str):
    gray = photographs(32, 32)[..., :1]
    found = np.asarray(corrupt(name, 3)(gray, NUMBERS)).astype(int)
    colored = np.asarray(corrupt(name, 3)(np.repeat(gray, 3, -1), NUMBERS)).astype(int)
    assert np.abs(found - colored).max() <= 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 32, 32, 2), "defined for gray and RGB images, and these have 2 channels"),
        ((1, 32, 32, 4), "defined for gray and RGB images, and these have 4 channels"),
        ((1, 6, 32, 3), "need images of 8 pixels or more, and these have 32x6"),
    ],
)
def test_images_without_corruptions_are_refused(shape: tuple[int, ...], message: str):
    with pytest.raises(UserError, match=message):
        corrupt("fog", 1)(np.zeros(shape, np.uint8), NUMBERS[:1])


def test_a_wrong_name_or_severity_is_named():
    with pytest.raises(UserError, match="no corruption 'frog': did you mean 'fog'"):
        corrupt("frog", 1)
    with pytest.raises(UserError, match="severity=6: must be 1 to 5"):
        corrupt("fog", 6)
