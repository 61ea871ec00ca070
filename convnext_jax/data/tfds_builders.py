"""Runs the builders of TFDS without TensorFlow.

A builder needs TensorFlow for three things: opening files, encoding arrays as pictures, and unpacking downloads. They
are replaced for a single builder, while it prepares its data. Names, versions, URLs, checksums, features and the
generators of examples are those of TFDS, so the data is like any other that TFDS prepares.
"""

import contextlib
import glob
import io
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from convnext_jax.data.decode import opened_image
from convnext_jax.data.no_pickle import no_pickle
from convnext_jax.data.tfds_downloads import Downloads
from convnext_jax.data.tiny_imagenet import TinyImagenet
from convnext_jax.data.tiny_imagenet_archive import choose_archive
from convnext_jax.errors import UserError, first_line


def _decode_image(encoded: bytes) -> np.ndarray:
    with opened_image("picture of an archive", encoded) as opened:
        return np.asarray(opened.convert("RGB"))


def _encode_jpeg(image: np.ndarray) -> Any:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=95)  # as TensorFlow has it
    return types.SimpleNamespace(numpy=buffer.getvalue)


# The part of ``tf`` that builders use to read what they have downloaded, for local files, and to mend pictures.
SUBSTITUTE = types.SimpleNamespace(
    image=types.SimpleNamespace(decode_image=_decode_image),
    shape=np.shape,
    io=types.SimpleNamespace(
        encode_jpeg=_encode_jpeg,
        gfile=types.SimpleNamespace(
            GFile=lambda name, mode="r": open(name, mode),
            exists=os.path.exists,
            glob=glob.glob,
            isdir=os.path.isdir,
            listdir=os.listdir,
            walk=os.walk,
        ),
    ),
)


def make_builder(name: str, root: Path, manual_dir: Path | None) -> tfds.core.DatasetBuilder:
    """Makes the builder of a data set. Does not use the network.

    Args:
      name: a name that `convnext_jax.data.registry.check_name` accepts.
      root: the folder of the prepared data sets.
      manual_dir: a folder with the user's own archives, if any.

    Returns:
      A builder that prepares its data in ``root``.

    Raises:
      UserError: there is no such data set, configuration or archive.
    """
    if name == TinyImagenet.name:
        return TinyImagenet(archive=choose_archive(manual_dir), data_dir=root)
    base, _, config = name.partition("/")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints advice about installing TensorFlow
            return tfds.builder_cls(base)(data_dir=root, config=config or None)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(f"data set {name} is not registered with TFDS {tfds.__version__}") from error
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"data set {name} cannot be used: {reason}") from error


def expected_files(builder: tfds.core.DatasetBuilder, manual_dir: Path | None) -> dict[str, Any]:
    """Returns the files that a builder may ask for.

    Args:
      builder: a builder from `make_builder`.
      manual_dir: a folder with the user's own archives, if any.

    Returns:
      For each URL the size, checksum and name of the file, as TFDS or `RemoteFile` stores them.

    Raises:
      UserError: the archive in ``manual_dir`` is ambiguous, or its checksum file is malformed.
    """
    if isinstance(builder, TinyImagenet):
        file = choose_archive(manual_dir).file
        return {file.url: file}
    return dict(builder.url_infos or {})


def check_features(builder: tfds.core.DatasetBuilder, image_size: int | None) -> None:
    """Raises an error unless a data set has uint8 images of one size, each with one label, a mask or both.

    Args:
      builder: a builder from `make_builder`.
      image_size: the size that images are resized to. If None, they must all have the same size.

    Raises:
      UserError: the data set cannot be used.
    """
    name, features = builder.name, _features(builder)
    image, labeled = features.get("image"), isinstance(features.get("label"), tfds.features.ClassLabel)
    if not (isinstance(image, tfds.features.Image) and (labeled or _is_mask(features.get("segmentation_mask")))):
        raise UserError(
            f"data set {name} is not for image classification or segmentation: it has no features `image` and `label`"
            " or `segmentation_mask`"
        )
    if image.np_dtype != np.uint8:
        raise UserError(f"data set {name} has {image.np_dtype} images, and only uint8 can be used")
    shape: Any = image.shape
    if image_size is None and None in shape:
        raise UserError(
            f"data set {name} has images of several sizes: give one, for example --config.data.image_size=64"
        )


def _is_mask(feature: Any) -> bool:
    if not isinstance(feature, tfds.features.Image) or feature.np_dtype != np.uint8:
        return False
    shape: Any = feature.shape
    return shape[-1] == 1


def _features(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """Returns the features of a data set by name; none if they are not a dictionary."""
    features = builder.info.features
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}


def prepare(builder: tfds.core.DatasetBuilder, manual_dir: Path | None) -> Path:
    """Downloads the data of a builder and writes it as ArrayRecord files.

    Only one process at a time may prepare a data set.

    Args:
      builder: a builder from `make_builder`.
      manual_dir: a folder with the user's own archives, if any.

    Returns:
      The folder of the prepared data.

    Raises:
      UserError: a download fails or has the wrong checksum, the data cannot be written, or the builder uses more of
        TensorFlow than is replaced here.
    """
    root = Path(builder.data_dir_root)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    files = expected_files(builder, manual_dir)
    with Downloads(builder, files, root / "downloads" / builder.name, manual_dir) as downloads:
        with _without_tensorflow(builder, downloads), no_pickle(f"the TFDS builder of {builder.name}"):
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints sizes, most of them unknown
                    builder.download_and_prepare(download_config=settings, file_format="array_record")
            except (AttributeError, ImportError) as error:
                raise UserError(
                    f"the TFDS builder of {builder.name} cannot prepare its data here ({error}): prepare it "
                    "elsewhere with file_format='array_record', and give that folder with "
                    "--config.data.data_dir"
                ) from error
            except OSError as error:
                raise UserError(f"the data of {builder.name} cannot be written to {root}: {error}") from error
            except Exception as error:  # a builder raises errors of any kind about files that are not what it expects
                raise _explained(error, builder) from error
    return Path(builder.data_dir)


def _explained(error: BaseException, builder: tfds.core.DatasetBuilder) -> UserError:
    """Returns the UserError in a chain of errors, which TFDS and NumPy extend, or one of its own."""
    first: BaseException | None = error
    while first is not None:
        if isinstance(first, UserError):
            return UserError(str(first))
        first = first.__cause__ or first.__context__
    return UserError(
        f"the TFDS builder of {builder.name} cannot use its files ({type(error).__name__}: {first_line(error)}): are"
        " they the official ones? Fetch them again"
    )


@contextlib.contextmanager
def _without_tensorflow(builder: tfds.core.DatasetBuilder, downloads: Downloads) -> Iterator[None]:
    """Replaces what a builder needs TensorFlow for, and restores it at the end of the context."""
    features = _features(builder)
    encoders = [features[name] for name in ("image", "segmentation_mask") if name in features]
    for encoder in encoders:
        encoder.encode_example = _with_arrays(encoder.encode_example)
    vars(builder)["_make_download_manager"] = lambda **_: downloads
    with contextlib.ExitStack() as stack:
        for cls in type(builder).__mro__:  # a builder's helpers are in its own module or in those of its bases
            module = sys.modules[cls.__module__]
            if "tf" in vars(module) and not cls.__module__.startswith("tensorflow_datasets.core."):
                stack.callback(setattr, module, "tf", vars(module)["tf"])
                vars(module)["tf"] = SUBSTITUTE
        try:
            yield
        finally:
            for encoder in encoders:
                del encoder.encode_example
            del vars(builder)["_make_download_manager"]


def _with_arrays(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns an encoder that takes arrays as well."""
    return lambda image: encode(encode_png(image) if isinstance(image, np.ndarray) else image)


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image losslessly.

    >>> encode_png(np.zeros((2, 2, 3), np.uint8))[:4]
    b'\\x89PNG'

    Args:
      image: uint8 [H,W,C], where C is 1, 3 or 4.

    Returns:
      The bytes of a PNG file.
    """
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()
