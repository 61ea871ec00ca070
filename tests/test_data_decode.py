"""Pictures of every kind that is read, against their pixels computed by hand."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from convnext_jax.data.decode import FORMATS, Picture, decode_picture
from convnext_jax.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
RGBA = RNG.integers(0, 256, (5, 7, 4), np.uint8)


def saved(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(encoded: bytes, size: int | None = None, channels: int = 3) -> np.ndarray:
    return decode_picture(Picture("a.jpg", encoded, 0), size, channels)


def png(rows: np.ndarray, depth: int, color: int, **chunks: bytes) -> bytes:
    """A PNG, put together by hand: rows of packed bytes, bits of a channel, color type, and chunks before the data."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    height, width = len(rows), rows.nbytes // len(rows) * 8 // depth // channels
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = {"IHDR": header, **chunks, "IDAT": data, "IEND": b""}
    body = (
        struct.pack(">I", len(content))
        + name.encode()
        + content
        + struct.pack(">I", zlib.crc32(name.encode() + content))
        for name, content in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def on_white(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """What is seen of colors, [...,3], with an alpha from 0 to 255, [...], on white."""
    share = alpha[..., None] / 255
    return np.round(share * colors + (1 - share) * 255).astype(np.uint8)


def gray_of(rgb: np.ndarray) -> np.ndarray:
    """The luma of ITU-R 601-2, by which Pillow makes colors gray."""
    return rgb @ np.array([0.299, 0.587, 0.114])


# --- formats


@pytest.mark.parametrize("kind", ["png", "webp", "gif", "bmp", "tiff", "ppm"])
def test_a_format_without_loss_gives_the_pixels_that_were_saved(kind: str) -> None:
    pixels = RGB if kind != "gif" else np.repeat(RGB[..., :1], 3, -1)
    options = {"lossless": True, "exact": True} if kind == "webp" else {}
    np.testing.assert_array_equal(decoded(saved(pixels, kind, **options)), pixels)


@pytest.mark.parametrize("kind", ["jpeg", "mpo", "avif"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
def test_a_format_with_loss_gives_them_nearly(kind: str, options: dict[str, object]) -> None:
    if kind == "avif" and "AVIF" not in FORMATS:
        pytest.skip("this Pillow has no AVIF")
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0:240:16j, 255:55:24j], 90), -1).astype(np.uint8)
    found = decoded(saved(smooth, kind, quality=95, **options))
    assert abs(found.astype(int) - smooth).max() <= 12 and abs(found.astype(int) - smooth).mean() < 3


def test_avif_is_read_if_pillow_has_it() -> None:
    assert ("AVIF" in FORMATS) == ("avif" in features.modules and features.check("avif"))


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_of_several_frames_or_pages_the_first_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "lime")]
    several = saved(
        frames[0], kind, save_all=True, append_images=frames[1:], **{"webp": {"lossless": True}}.get(kind, {})
    )
    with Image.open(io.BytesIO(several)) as opened:
        assert getattr(opened, "n_frames", 1) == 3
    assert np.unique(decoded(several).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    noise = saved(RNG.integers(0, 256, (64, 64, 3), np.uint8), kind)
    with pytest.raises(UserError, match=r"picture a\.jpg cannot be read \(.+\): replace or remove it"):
        decoded(noise[: len(noise) // 2])


# --- upright

# Where the first row and the first column of the stored pixels are seen: the table of the EXIF standard.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
    9: lambda stored: stored,  # no such orientation
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_a_picture_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    np.testing.assert_array_equal(decoded(saved(RGB, kind, exif=exif, **options)), UPRIGHT[orientation](RGB))


@pytest.mark.parametrize("kind", ["jpeg", "mpo"])
def test_a_photograph_of_a_phone_is_turned_before_it_is_resized(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:16] = 255  # the upper half as it is stored is the right half as it is seen
    photograph = saved(stored, kind, exif=exif)
    assert decoded(photograph).shape == (64, 32, 3)
    seen = decoded(photograph, size=8)
    assert seen[:, :3].max() < 10 and seen[:, 5:].min() > 245


def test_damaged_exif_data_do_no_harm() -> None:
    # A tag with a negative offset, at which `ImageOps.exif_transpose` fails after it has turned the picture.
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x8769, 9, 1, 0xFFFFFFFF)
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + tags + bytes(4)
    assert decoded(saved(RGB, "jpeg", exif=damaged)).shape == (7, 5, 3)
    assert decoded(saved(RGB, "jpeg", exif=b"Exif\0\0garbage")).shape == (5, 7, 3)
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n8\nnot hexadecimal")
    np.testing.assert_array_equal(decoded(saved(RGB, "png", pnginfo=text)), RGB)


# --- 16 bits

DEEP = np.array([[0, 128, 129, 255], [256, 257, 1000, 4095], [32767, 32768, 65406, 65535]], np.uint16)
GRAY = np.repeat(np.round(DEEP / 257).astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    np.testing.assert_array_equal(decoded(saved(DEEP, kind)), GRAY)
    np.testing.assert_array_equal(decoded(saved(DEEP, kind), channels=1), GRAY[..., :1])
    opaque = np.full_like(GRAY[..., :1], 255)
    np.testing.assert_array_equal(decoded(saved(DEEP, kind), channels=4), np.concatenate([GRAY, opaque], -1))


def test_sixteen_bits_of_the_other_byte_order() -> None:
    def big_endian(content: bytes) -> bytes:
        with Image.open(io.BytesIO(content)) as opened:
            return saved(Image.frombytes("I;16B", opened.size, DEEP.astype(">u2").tobytes()), "tiff")

    np.testing.assert_array_equal(decoded(big_endian(saved(DEEP, "tiff"))), GRAY)


@pytest.mark.parametrize(("interpretation", "expected"), [(0, 255 - GRAY), (1, GRAY)])
def test_a_tiff_says_whether_white_is_zero(interpretation: int, expected: np.ndarray) -> None:
    black_is_zero, tag = saved(DEEP, "tiff"), struct.Struct("<HHIHH")
    assert tag.pack(262, 3, 1, 1, 0) in black_is_zero
    found = decoded(black_is_zero.replace(tag.pack(262, 3, 1, 1, 0), tag.pack(262, 3, 1, interpretation, 0)))
    np.testing.assert_array_equal(found, expected)


def test_twelve_bits_of_a_tiff_are_scaled_to_eight() -> None:
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    two = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes([0x80, 0x0F, 0xFF])
    assert decoded(two, channels=1).ravel().tolist() == [round(0x800 / 4095 * 255), 255]


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_of_sixteen_bits_of_a_color_the_upper_eight_are_taken(color: int, channels: int) -> None:
    deep = RNG.integers(0, 2**16, (4, 3 * channels), np.uint16)
    found = decoded(png(deep.astype(">u2"), 16, color), channels=channels)
    np.testing.assert_array_equal(found.reshape(deep.shape), deep >> 8)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "floating-point"),
        (np.arange(12, dtype=np.int32).reshape(3, 4) << 20, "signed or 32-bit"),
    ],
)
def test_pixels_without_a_known_range_are_refused(values: np.ndarray, kind: str) -> None:
    with pytest.raises(UserError, match=rf"a\.jpg has {kind} pixels, whose range is not known: save it with 8 or 16"):
        decoded(saved(values, "tiff"))


# --- transparency


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_a_transparent_picture_is_seen_on_white(kind: str) -> None:
    pixels = RGBA.copy()
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    encoded = saved(pixels, kind, **({"lossless": True, "exact": True} if kind == "webp" else {}))
    expected = on_white(pixels[..., :3], pixels[..., 3])
    np.testing.assert_array_equal(decoded(encoded), expected)
    assert (decoded(encoded)[0] == 255).all(), "the hidden colors stay hidden"
    assert abs(decoded(encoded, channels=1)[..., 0] - gray_of(expected)).max() <= 0.51
    np.testing.assert_array_equal(decoded(encoded, channels=4), pixels)
    gray_and_alpha = decoded(encoded, channels=2)
    assert abs(gray_and_alpha[..., 0] - gray_of(pixels[..., :3])).max() <= 0.51
    np.testing.assert_array_equal(gray_and_alpha[..., 1], pixels[..., 3])


def test_gray_and_alpha() -> None:
    pixels = RGBA[..., :2]
    expected = on_white(np.repeat(pixels[..., :1], 3, -1), pixels[..., 1])
    np.testing.assert_array_equal(decoded(saved(pixels, "png")), expected)
    np.testing.assert_array_equal(decoded(saved(pixels, "png"), channels=1), expected[..., :1])
    np.testing.assert_array_equal(decoded(saved(pixels, "png"), channels=2), pixels)


PALETTE = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
INDICES = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


@pytest.mark.parametrize("alphas", [[], [0], [0, 128], [255, 255, 7]])
def test_a_palette_with_transparent_colors(alphas: list[int]) -> None:
    encoded = png(INDICES, 8, 3, PLTE=PALETTE.tobytes(), **({"tRNS": bytes(alphas)} if alphas else {}))
    alpha = np.array(alphas + [255] * 3)[:3][INDICES]
    np.testing.assert_array_equal(decoded(encoded), on_white(PALETTE[INDICES], alpha))
    np.testing.assert_array_equal(
        decoded(encoded, channels=4), np.concatenate([PALETTE[INDICES], alpha[..., None]], -1)
    )


def test_a_gif_with_a_transparent_color() -> None:
    image = Image.frombytes("P", (3, 2), INDICES.tobytes())
    image.putpalette(PALETTE.tobytes())
    found = decoded(saved(image, "gif", transparency=1))
    np.testing.assert_array_equal(found, on_white(PALETTE[INDICES], np.where(INDICES == 1, 0, 255)))


@pytest.mark.parametrize("key", [0, 1])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_shade_of_gray_that_is_transparent(depth: int, key: int) -> None:
    values = np.arange(16).reshape(2, 8) % min(4, 2**depth)
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1  # most significant first
    encoded = png(np.packbits(bits.reshape(2, -1), axis=1), depth, 0, tRNS=struct.pack(">H", key))
    gray = np.repeat(np.round(values * 255 / (2**depth - 1))[..., None], 3, -1).astype(np.uint8)
    alpha = np.where(values == key, 0, 255)
    np.testing.assert_array_equal(decoded(encoded), on_white(gray, alpha))
    np.testing.assert_array_equal(decoded(encoded, channels=2), np.stack([gray[..., 0], alpha], -1))


@pytest.mark.parametrize("depth", [8, 16])
def test_one_color_that_is_transparent(depth: int) -> None:
    colors = np.array([[[0x12, 0x34, 0x56], [0x56, 0x34, 0x12], [0, 0, 0]]], np.uint16) << (depth - 8)
    rows = colors.reshape(1, -1).astype({8: np.uint8, 16: ">u2"}[depth])
    encoded = png(rows, depth, 2, tRNS=struct.pack(">HHH", *colors[0, 0]))
    eight = (colors >> (depth - 8)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(encoded), on_white(eight, np.array([[0, 255, 255]])))


# --- modes


@pytest.mark.parametrize("kind", ["png", "tiff", "bmp", "ppm", "gif"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    bits = RGB[..., 0] > 127
    found = decoded(saved(Image.fromarray(bits), kind))
    np.testing.assert_array_equal(found, np.repeat(bits[..., None] * np.uint8(255), 3, -1))


@pytest.mark.parametrize(("kind", "error"), [("tiff", 1), ("jpeg", 6)])
def test_the_inks_of_print(kind: str, error: int) -> None:
    # One flat color, so that a JPEG loses little. Adobe's JPEG hold the inks inverted.
    inks = np.array([200, 100, 30, 60])
    found = decoded(
        saved(Image.new("CMYK", (16, 16), tuple(inks.tolist())), kind, **{"jpeg": {"quality": 95}}.get(kind, {}))
    )
    assert abs(found - (255 - inks[:3]) * (255 - inks[3]) / 255).max() <= error


def test_luma_and_chroma() -> None:
    y, blue, red = 120, 90, 160
    image = Image.new("YCbCr", (4, 4), (y, blue, red))
    found = decoded(saved(image, "tiff", compression="tiff_lzw"))  # Pillow 11 cannot read what it writes without
    expected = [
        y + 1.402 * (red - 128),
        y - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        y + 1.772 * (blue - 128),
    ]
    assert abs(found - np.array(expected)).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lab(channels: int) -> None:
    found = decoded(saved(Image.new("LAB", (4, 4), (128, 128, 128)), "tiff"), channels=channels)
    # With a and b of zero it is gray: from lightness to luminance (CIE 1976), and to sRGB (IEC 61966-2-1).
    luminance = ((100 * 128 / 255 + 16) / 116) ** 3
    gray = 255 * (1.055 * luminance ** (1 / 2.4) - 0.055)
    assert abs(found[..., : channels - (channels % 2 == 0)] - gray).max() <= 2
    assert channels % 2 or (found[..., -1] == 255).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_opaque_colors_are_converted_to_any_number_of_channels(channels: int) -> None:
    found = decoded(saved(RGB, "png"), channels=channels)
    colors = RGB if channels > 2 else np.round(gray_of(RGB))[..., None]
    assert abs(found[..., : colors.shape[-1]].astype(float) - colors).max() <= channels % 3
    assert channels % 2 or (found[..., -1] == 255).all()
    assert decoded(saved(RGB, "png"), size=4, channels=channels).shape == (4, 4, channels)
