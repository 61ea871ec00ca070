"""Pictures of the user's own with masks: which files belong together, what a mask says, and what a mistake gets."""

import io
import os
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_untrusted import png

from convnext_jax.config import DataConfig
from convnext_jax.data import Dataset, load
from convnext_jax.data.decode import Mask
from convnext_jax.data.decode_mask import decode_mask
from convnext_jax.data.load import holds_out_test
from convnext_jax.errors import UserError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four pictures to train on and two to test on, of 8x8 pixels; masks of the classes 0 to 2, and 255."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for seed in seeds:
            save(tmp_path / "data" / split, str(seed), seed)
    return tmp_path / "data"


SEEDS = ((0, 1, 2, 3), (4, 5))


def pixels(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def values(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (height, width))


def save(split: Path, name: str, seed: int, height: int = 8, width: int = 8) -> None:
    for folder, array in (("images", pixels(seed, height, width)), ("masks", values(seed, height, width))):
        path = split / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def read(root: Path, size: int | None = None, fraction: float = 0.0) -> Dataset:
    return load(DataConfig("mask_folder", data_dir=str(root), image_size=size, validation_fraction=fraction))


def masks_of(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    assert dataset.train.masks is not None and dataset.test.masks is not None
    return dataset.train.masks, dataset.test.masks


# --- what is found


@pytest.mark.parametrize("test", ["val", "validation", "test"])
def test_train_and_a_test_folder(root: Path, test: str) -> None:
    (root / "val").rename(root / test)
    for _ in range(2):  # decoded, and from the cache
        dataset = read(root)
        for split, masks, seeds in zip((dataset.train, dataset.test), masks_of(dataset), SEEDS, strict=True):
            np.testing.assert_array_equal(split.images, np.stack(list(map(pixels, seeds))))
            np.testing.assert_array_equal(masks, np.stack(list(map(values, seeds))))
            assert masks.dtype == np.uint8 and isinstance(masks, np.memmap) and not masks.flags.writeable
            assert split.labels.tolist() == [0] * len(seeds)
        assert dataset.class_names == () and dataset.mask_names == ("0", "1", "2") and not dataset.left_out
    assert dataset.describe() == (f"data: mask_folder in {root}: train 4 pictures, test 2, masks of 3 classes, 8x8x3")
    without = dataset.without_masks()
    assert without.train.masks is None and without.test.masks is None and without.mask_names == ()


@pytest.mark.parametrize("folder", [".", "train"])
def test_without_a_test_folder_a_share_is_tested_on(root: Path, folder: str) -> None:
    for name in ("images", "masks"):
        (root / "train" / name).rename(root / name)
        for path in (root / "val" / name).iterdir():
            path.rename(root / name / path.name)
        (root / "val" / name).rmdir()
    (root / "val").rmdir()
    (root / "train").rmdir()
    if folder == "train":
        (root / "train").mkdir()
        for name in ("images", "masks"):
            (root / name).rename(root / "train" / name)
    assert holds_out_test(DataConfig("mask_folder", data_dir=str(root)))
    with pytest.raises(UserError, match=r"has no folder val/, .*validation_fraction=0\.1"):
        read(root)
    dataset = read(root, fraction=0.5)
    assert len(dataset.train) == len(dataset.test) == 3 and dataset.validation is None
    known = {pixels(seed).tobytes(): values(seed).tobytes() for seed in range(6)}
    for split, masks in zip((dataset.train, dataset.test), masks_of(dataset), strict=True):
        for image, mask in zip(split.images, masks, strict=True):
            assert known.pop(image.tobytes()) == mask.tobytes()
    assert not known
    # By the names of the files, whatever pictures there are besides.
    test = {image.tobytes() for image in dataset.test.images}
    save(root if folder == "." else root / "train", "6", 6)
    assert len(test & {image.tobytes() for image in read(root, fraction=0.5).test.images}) >= 2


def test_with_a_test_folder_the_share_is_validation(root: Path) -> None:
    dataset = read(root, fraction=0.5)
    assert not holds_out_test(DataConfig("mask_folder", data_dir=str(root)))
    assert dataset.validation is not None and dataset.validation.masks is not None
    assert len(dataset.train) == len(dataset.validation) == len(dataset.test) == 2
    found = [*masks_of(dataset)[0], *dataset.validation.masks]
    assert {mask.tobytes() for mask in found} == {values(seed).tobytes() for seed in range(4)}


def test_names_decide_what_belongs_together(root: Path) -> None:
    train = root / "train"
    composed, decomposed = (unicodedata.normalize(form, "épée") for form in ("NFC", "NFD"))
    for picture, mask in ((f"{decomposed}.JPG", f"{composed}.PNG"), ("deep/er/a.b.webp", "deep/er/a.b.tif")):
        for folder, name, array in (("images", picture, pixels(9)), ("masks", mask, values(9))):
            (train / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(train / folder / name)
    (train / "masks" / "notes.txt").write_text("none")
    (train / "masks" / ".0.png").write_text("hidden")
    Image.fromarray(values(3)).save(train / "masks" / "more.bmp")
    save(root / "dev", "0", 0)
    dataset = read(root)
    assert sum((mask == values(9)).all() for mask in masks_of(dataset)[0]) == 2 and len(dataset.train) == 6
    expected = {"masks without a picture": 1, ".txt": 1, "hidden": 1, "in dev/, which is not used": 2}
    assert dataset.left_out == expected


def test_a_changed_mask_is_seen(root: Path) -> None:
    read(root)
    Image.fromarray(values(77)).save(root / "val" / "masks" / "4.png")
    np.testing.assert_array_equal(masks_of(read(root))[1][0], values(77))


# --- what a mask says


def test_pictures_and_masks_are_cropped_alike(root: Path) -> None:
    for path in root.glob("*/images/*.png"):
        mask = np.zeros((24, 72), np.uint8)
        mask[4:13, 30:47], mask[:, :10] = 1, 2  # class 2 lies outside of the center square
        mask[20:] = 255
        Image.fromarray(mask).save(path.parent.parent / "masks" / path.name)
        Image.fromarray(np.where(mask[..., None] == 1, 255, [0, 0, 9]).astype(np.uint8)).save(path)
    dataset = read(root, size=12)
    mask, _ = masks_of(dataset)
    assert mask.shape == (4, 12, 12) and set(np.unique(mask)) == {0, 1, 255}, "no value between those of the masks"
    assert dataset.mask_names == ("0", "1", "2"), "the classes do not depend on the size"
    assert ((dataset.train.images[..., 0] > 127) == (mask == 1)).mean() > 0.9
    dataset = read(root, size=24)  # nothing is resized
    light = dataset.train.images[..., 0] == 255
    assert light[0].sum() == 9 * 17
    np.testing.assert_array_equal(masks_of(dataset)[0] == 1, light)


def test_a_picture_is_upright_when_it_is_compared_with_its_mask(root: Path) -> None:
    save(root / "train", "0", 0, height=8, width=6)
    for path in [*root.glob("*/*/*.png")]:
        path.unlink()
    for split in ("train", "val"):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels(0, 6, 8)).save(root / split / "images" / "0.png", exif=exif)
        Image.fromarray(values(0, 8, 6)).save(root / split / "masks" / "0.png")
    dataset = read(root)
    assert dataset.train.images.shape == (1, 8, 6, 3)
    np.testing.assert_array_equal(dataset.train.images[0], np.rot90(pixels(0, 6, 8), -1))


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette(array: np.ndarray) -> Image.Image:
    image = Image.fromarray(array)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())  # makes the image a mode P
    return image


INDICES = values(0)
HALVES = np.repeat([[0, 255]], 8, 0).repeat(4, 1).astype(np.uint8)  # the left half is black, the right one white
RGB = np.repeat(HALVES[..., None], 3, -1)
OPAQUE = np.concatenate([RGB, np.full((8, 8, 1), 255, np.uint8)], -1)

MASKS = {
    "gray": (encoded(Image.fromarray(INDICES)), INDICES, False),
    "gray with alpha": (encoded(Image.fromarray(INDICES).convert("LA")), INDICES, False),
    "a palette": (encoded(palette(INDICES)), INDICES, False),
    "a palette of two colors": (encoded(palette(HALVES // 255), bits=1), HALVES // 255, False),
    "a transparent color of a palette": (encoded(palette(INDICES), transparency=1), INDICES, False),
    "bmp": (encoded(palette(INDICES), "bmp"), INDICES, False),
    "gif": (encoded(palette(INDICES % 4), "gif", transparency=0, optimize=False), INDICES % 4, False),
    "tiff": (encoded(palette(INDICES), "tiff", compression="tiff_lzw"), INDICES, False),
    "gray tiff": (encoded(Image.fromarray(INDICES), "tiff"), INDICES, False),
    "1 bit": (encoded(Image.fromarray(HALVES).convert("1")), HALVES, True),
    "colors": (encoded(Image.fromarray(RGB)), HALVES, True),
    "colors and alpha": (encoded(Image.fromarray(OPAQUE)), HALVES, True),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_values_of_a_mask(name: str) -> None:
    content, expected, black_and_white = MASKS[name]
    found, known = decode_mask(Mask("a", content))
    assert found.dtype == np.uint8 and known == black_and_white
    np.testing.assert_array_equal(found, expected)


def test_gray_of_few_bits_is_a_class_number() -> None:
    # Four bits, which Pillow does not write: a row of 0, 1, 2 and 15.
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, 4, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes([0, 0x01, 0x2F]))),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    assert decode_mask(Mask("a", b"\x89PNG\r\n\x1a\n" + body))[0].tolist() == [[0, 1, 2, 15]]


def test_a_mask_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found, _ = decode_mask(Mask("a", encoded(palette(values(0, 4, 8)), exif=exif)))
    np.testing.assert_array_equal(found, np.rot90(values(0, 4, 8), -1))


NOISE = Image.fromarray(pixels(0))
TRANSPARENT = np.concatenate([RGB, HALVES[..., None]], -1)
REFUSED = {
    "colors": (encoded(NOISE), "is in colors without a palette: save it with a palette or as grayscale class numbers"),
    "gray colors": (encoded(Image.fromarray(RGB // 2)), "is in colors without a palette"),
    "a JPEG": (encoded(NOISE, "jpeg"), "is a JPEG file, whose compression changes class numbers: save it as .png, .bm"),
    "a JPEG in a TIFF": (encoded(NOISE, "tiff", compression="jpeg"), "is a JPEG file, whose compression"),
    "WebP": (encoded(NOISE, "webp", lossless=True), "is a WEBP file: save it as .png, .bmp, .tif or .gif"),
    "16 bits": (encoded(Image.fromarray(INDICES.astype(np.uint16))), "has more than 8 bits a pixel: save it with 8"),
    "transparent": (encoded(Image.fromarray(TRANSPARENT)), "has transparent pixels: save it without transparency"),
    "absurd": (png(9000, 9000), "would have 9000x9000 pixels, and at most 67,108,864 make sense"),
    "empty": (b"", r"is empty \(0 bytes\): replace or remove it"),
    "nothing": (b"no mask", "cannot be read .*: replace or remove it"),
    "half": (encoded(NOISE)[:90], "cannot be read .*: replace or remove it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mask_that_says_no_classes_is_named(root: Path, name: str) -> None:
    content, message = REFUSED[name]
    path = root / "train" / "masks" / "2.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^mask {path} {message}") as caught:
        read(root)
    assert "\n" not in str(caught.value)


def black_and_white(root: Path, kind: str) -> None:
    for number, path in enumerate(sorted(root.glob("*/masks/*.png"))):
        image = Image.fromarray(np.roll(HALVES, number, axis=1))
        image.convert(kind).save(path)


@pytest.mark.parametrize("kind", ["1", "L", "RGB"])
def test_black_and_white_masks_have_two_classes(root: Path, kind: str) -> None:
    black_and_white(root, kind)
    for _ in range(2):
        train, test = masks_of(read(root))
        np.testing.assert_array_equal(train, [np.roll(HALVES, number, axis=1) // 255 for number in range(4)])
        np.testing.assert_array_equal(test[0], np.roll(HALVES, 4, axis=1) // 255)
        assert read(root).mask_names == ("0", "1")
    (root / "classes.txt").write_text("wall\ndoor\n")
    assert read(root).mask_names == ("wall", "door")


def test_black_and_white_masks_among_class_numbers_are_refused(root: Path) -> None:
    path = root / "train" / "masks" / "1.png"
    Image.fromarray(RGB).save(path)
    with pytest.raises(UserError, match=f"^mask {path} is black and white, and others have class numbers: save all wi"):
        read(root)
    Image.fromarray(HALVES).save(path)
    assert set(np.unique(masks_of(read(root))[0][1])) == {0, 255}, "gray 255 is ignored"


# --- the classes


def test_classes_have_the_names_of_a_file(root: Path) -> None:
    (root / "classes.txt").write_text("\ufeffwall\n  front door \nvitré\nfloor\n\n", encoding="utf-8")
    assert read(root).mask_names == ("wall", "front door", "vitré", "floor")
    (root / "classes.txt").write_text("a\nb\nc\n")
    assert read(root).mask_names == ("a", "b", "c")
    (root / "classes.txt").write_text("a\nb\n")
    message = (
        r"^mask .*train/masks/0\.png has the value 2, and the classes are 0 to 1 \(255 is ignored\): correct the mask$"
    )
    with pytest.raises(UserError, match=message):
        read(root)


def test_a_class_of_the_test_masks_alone_is_refused(root: Path) -> None:
    path = root / "val" / "masks" / "5.png"
    mask = values(5)
    mask[3, 3] = 7
    Image.fromarray(mask).save(path)
    message = (
        rf"^mask {path} has the value 7, and the training masks have 0 to 2 \(255 is ignored\): correct the mask, or"
        r" name all classes in classes\.txt, one a line$"
    )
    with pytest.raises(UserError, match=message):
        read(root)
    (root / "classes.txt").write_text("\n".join(map(str, range(8))))
    assert len(read(root).mask_names) == 8


def test_one_class_is_no_segmentation(root: Path) -> None:
    for path in root.glob("*/masks/*.png"):
        Image.new("L", (8, 8)).save(path)
    with pytest.raises(UserError, match=r"the masks have 1 class\(es\), and segmentation needs two or more: correct"):
        read(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"names 0 class\(es\), and there must be 2 to 255: write one on each line"),
        (b"only\n", r"names 1 class\(es\)"),
        (b"a\n\nb\n", "line 2 is empty: give each class a name of its own"),
        (b"a\nb\na\n", "line 3 names a again: give each class a name of its own"),
        (b"a\n\xff\n", "is not UTF-8: save it as UTF-8"),
        ("\n".join(map(str, range(256))).encode(), r"names 256 class\(es\)"),
    ],
)
def test_names_of_classes_that_cannot_be_used(root: Path, content: bytes, message: str) -> None:
    (root / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"classes\.txt:? {message}"):
        read(root)


# --- mistakes


def shrink_a_mask(root: Path) -> None:
    Image.fromarray(values(0, 7, 9)).save(root / "val" / "masks" / "5.png")


def lose_a_mask(root: Path) -> None:
    (root / "train" / "masks" / "3.png").unlink()


def save_a_jpeg(root: Path) -> None:
    (root / "train" / "masks" / "3.png").unlink()
    Image.fromarray(values(0)).save(root / "train" / "masks" / "3.jpg")


def save_a_webp(root: Path) -> None:
    Image.fromarray(values(0)).save(root / "val" / "masks" / "9.webp")


def rename(before: str, after: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / after).parent.mkdir(parents=True, exist_ok=True)
        (root / before).rename(root / after)

    return change


def empty(folder: str, *names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for path in (root / folder).iterdir():
            path.unlink()
        for name in names:
            (root / folder / name).touch()

    return change


MISTAKES = {
    "another size": (
        shrink_a_mask,
        r"^mask .*val/masks/5\.png has 9x7 pixels and its picture .*images/5\.png has 8x8: give both the same size$",
    ),
    "no mask": (
        lose_a_mask,
        r"^picture .*train/images/3\.png has no mask: add .*train/masks/3\.png, or remove the picture$",
    ),
    "a JPEG": (save_a_jpeg, r"^mask .*3\.jpg is a JPEG file, whose compression changes class numbers: save it as"),
    "a WebP": (save_a_webp, r"^mask .*9\.webp is a \.webp file: save it as \.png, \.bmp, \.tif or \.gif$"),
    "two pictures": (
        rename("train/images/3.png", "train/images/2.jpg"),
        r"images/2\.jpg and 2\.png belong to the same picture: remove or rename one of them",
    ),
    "no pictures": (empty("train/images"), "^folder .*train/images is empty: lay the data out as train/images/NAME.jp"),
    "no masks": (empty("val/masks", "a.txt"), r"^folder .*val/masks is empty, only 1 \.txt: lay the data out"),
    "no folder of masks": (
        rename("val/masks", "val/labels"),
        "val has no folder masks/: lay the data out as train/ima",
    ),
    "no folder of pictures": (
        rename("train/images", "train/pictures"),
        "^.*train has no folder images/: lay the data ",
    ),
    "letter case": (rename("train", "Train"), "has no folder train/, but Train/: rename it to train$"),
    "a folder too high": (
        rename("train", "deep/train"),
        "but .*/deep has: name that with --config.data.data_dir=.*ep$",
    ),
    "another layout": (
        rename("train/images", "images/train"),
        r"train has no folder images/: lay the data out as train/images/NAME\.jpg and train/masks/NAME\.png$",
    ),
    "splits below": (rename("val", "train/images/val"), "train/images has a folder val/: lay the data out as train/"),
    "nothing": (rename("train", "other"), "^.*data has neither train/images/ nor images/: lay the data out as"),
    "no test folder": (rename("val", "valid"), "or test/, but valid/: rename it to val"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_one_line_with_the_remedy(root: Path, name: str) -> None:
    change, message = MISTAKES[name]
    change(root)
    with pytest.raises(UserError, match=message) as caught:
        read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "message"), [("missing", "does not exist: name"), ("file", "is a file: unpack it")])
def test_a_folder_that_is_none(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{name} {message}"):
        read(tmp_path / name)


def test_without_a_folder_it_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"name the folder .* --config\.data\.data_dir=DIR$"):
        load(DataConfig("mask_folder"))


def test_one_picture_cannot_be_split(root: Path) -> None:
    for number in (1, 2, 3):
        for folder in ("images", "masks"):
            (root / "train" / folder / f"{number}.png").unlink()
    with pytest.raises(
        UserError, match=r"fraction=0\.5: mask_folder has one training example, and it takes two to hold"
    ):
        read(root, fraction=0.5)
    (root / "val").rename(root / "other")
    with pytest.raises(UserError, match="train/images has one picture: to hold one out takes two"):
        read(root, fraction=0.5)


def test_pictures_of_several_sizes_need_a_size(root: Path) -> None:
    save(root / "train", "3", 3, height=9, width=12)
    with pytest.raises(UserError, match=r"3\.png has 12x9 pixels .* 8x8: give one size.*image_size=64"):
        read(root)
    assert masks_of(read(root, size=4))[0].shape == (4, 4, 4)


def test_the_folder_itself_stays_untouched(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}
    os.chmod(root, 0o555)
    read(root, fraction=0.5)
    os.chmod(root, 0o755)
    assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before
