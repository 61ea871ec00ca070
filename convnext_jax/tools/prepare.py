"""Prepares a data set ahead of time: download, verify, write as ArrayRecord, decode into the cache.

    python -m convnext_jax.tools.prepare cifar100 --data_dir DIR [--manual_dir DIR] [--image_size N]

An archive that was fetched by hand is taken from ``--manual_dir``. It must be the official one, byte for
byte. For Tiny ImageNet it may also be another archive in the official layout, which is called
``tiny-imagenet-200*.zip`` and has its own checksum beside it::

    sha256sum tiny-imagenet-200-mine.zip > tiny-imagenet-200-mine.zip.sha256

Such data is kept apart from the official data, and used whenever that manual_dir is given.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

import numpy as np

from convnext_jax.config import DataConfig, parse_experiment
from convnext_jax.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the words after the program's name; those of the process where None.

    Returns:
      The exit status: 0, or 2 after a mistake of the user's.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    options = _parser().parse_args(arguments)
    try:
        _prepare(parse_experiment({"data": vars(options)}).data)
    except UserError as error:
        # The messages name the fields of a configuration; here each is a flag of its own.
        print(f"error: {error}".replace("--config.data.", "--").replace("config.data.", "--"), file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convnext_jax.tools.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="digits, cifar10, cifar100, tiny_imagenet, image_folder, or a TFDS name")
    parser.add_argument("--data_dir", help="folder of the prepared data sets; for image_folder, the folder itself")
    parser.add_argument("--manual_dir", help="folder with an archive that was fetched by hand")
    parser.add_argument("--image_size", type=int, help="side in pixels to resize the images to")
    parser.add_argument(
        "--validation_fraction", type=float, default=0.0, help="share of every class to be held out of train"
    )
    return parser


def _prepare(config: DataConfig) -> None:
    from convnext_jax.data import load  # after the arguments are known to be right

    dataset = load(config)
    print(f"{dataset.name} is ready, {len(dataset.class_names)} classes")
    for name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        if split is None:
            continue
        height, width = split.images.shape[1:3]
        where = f"in {split.images.filename}" if isinstance(split.images, np.memmap) else "made on loading"
        print(f"{name}: {len(split):,} images of {width}x{height} pixels, {where}")
    print(f"mean: {_numbers(dataset.mean)}")
    print(f"std:  {_numbers(dataset.std)}")


def _numbers(channels: np.ndarray) -> str:
    return " ".join(f"{value:.4f}" for value in channels)


if __name__ == "__main__":
    sys.exit(main())
