"""Prepares a data set ahead of time: download, verify, write as ArrayRecord, decode into the cache.

``python -m convnext_jax.tools.prepare cifar100 --data_dir DIR [--manual_dir DIR] [--image_size N]``
"""

from typing import TYPE_CHECKING

from convnext_jax.config import DataConfig, parse_sections
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import data_options

if TYPE_CHECKING:
    import numpy as np


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Prepares a data set ahead of time: download, verify, write as ArrayRecord, decode into the cache.",
        "An archive that was fetched by hand is taken from --manual_dir. It must be the official one, byte for byte.\n"
        "For Tiny ImageNet it may also be another archive in the official layout, which is called\n"
        "tiny-imagenet-200*.zip and has its own checksum beside it:\n"
        "  sha256sum tiny-imagenet-200-mine.zip > tiny-imagenet-200-mine.zip.sha256\n"
        "Such data is kept apart from the official data, and used whenever that --manual_dir is given.",
    )
    parser.add_argument("name", help="cifar10, cifar100, tiny_imagenet, image_folder, mask_folder, or a TFDS name")
    parser.add_argument(
        "--data_dir", metavar="DIR", help="folder of the prepared data sets; for your own pictures, the folder itself"
    )
    parser.add_argument("--manual_dir", metavar="DIR", help="folder with an archive that was fetched by hand")
    parser.add_argument("--image_size", type=int, help="side in pixels to resize the images to")
    parser.add_argument("--channels", type=int, help="channels to convert the images to, 1 to 4")
    parser.add_argument(
        "--validation_fraction", type=float, default=0.0, help="share of every class to be held out of train"
    )
    arguments = parser.parse_args()
    given = vars(arguments)
    with data_options(*given):
        _prepare(parse_sections({"data": given})["data"])


def _prepare(config: DataConfig) -> None:
    import numpy as np

    from convnext_jax.data import load  # after the arguments are known to be right

    dataset = load(config)
    print(dataset.describe())
    for name, split in dataset.splits.items():
        # A memory-mapped array knows its file.
        file = getattr(split.images, "filename", None)
        otherwise = "made on loading" if isinstance(split.images, np.ndarray) else "decoded while training"
        print(f"{name}: {f'in {file}' if file else otherwise}")
    print(f"mean: {_numbers(dataset.mean)}")
    print(f"std:  {_numbers(dataset.std)}")


def _numbers(channels: "np.ndarray") -> str:
    return " ".join(f"{value:.4f}" for value in channels)


if __name__ == "__main__":
    command_line.run_main(main)
