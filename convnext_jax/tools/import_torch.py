"""Makes weights to start from out of a PyTorch checkpoint.

``python -m convnext_jax.tools.import_torch WEIGHTS --model convnext_tiny --output DIR``
"""

import dataclasses
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convnext_jax.errors import UserError, first_line
from convnext_jax.storage.arrays import MOST_BYTES, read_arrays
from convnext_jax.storage.cloud import local_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder

# Training scripts put the weights under one of these; where there are averaged ones, they are what was evaluated.
_WRAPPERS = ("model_ema", "state_dict_ema", "model", "state_dict", "model_state_dict")
# What published checkpoints are fed with: the channel means and deviations of ImageNet.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_UNKNOWN = (0.5, 0.25)


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Makes weights to start from (config.model.init_from) out of a PyTorch checkpoint. docs/weights.md says whose"
        "\nnames of weights are known for which networks: those of torchvision, timm or the authors for most of them."
        "\nReading .pth needs torch to be installed; .safetensors does not."
    )
    parser.add_argument("weights", type=local_path, metavar="WEIGHTS", help="a .safetensors or .pth file")
    parser.add_argument("--model", required=True, metavar="NAME", help="which model it holds, such as convnext_tiny")
    parser.add_argument("--output", required=True, type=local_path, metavar="DIR", help="the folder to make")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise UserError(f"{arguments.output} exists already; choose another --output")
    check_new_folder("--output", arguments.output)

    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.models.registry import named_architecture
    from convnext_jax.models.torch_import import import_state_dict
    from convnext_jax.models.weights import ModelFolder

    architecture = named_architecture(arguments.model)
    imported = import_state_dict(read_state_dict(arguments.weights), arguments.model)
    print(f"{arguments.weights}: unverified, since no checksum was recorded with it", file=sys.stderr)
    channels = imported.in_channels
    mean, std = _IMAGENET if channels == 3 else ((value,) * channels for value in _UNKNOWN)
    ModelFolder(
        params=imported.params,
        batch_stats=imported.batch_stats,
        model=arguments.model,
        architecture=dataclasses.asdict(architecture),
        class_names=tuple(map(str, range(imported.num_classes))),
        mean=mean,
        std=std,
        source=f"{arguments.weights.name}, in {imported.layout}'s names",
    ).write(arguments.output)
    classes = f"of {imported.num_classes} classes" if imported.num_classes else "without a classifier"
    print(f"{arguments.model} {classes}, in {imported.layout}'s names: {arguments.output}")
    print(f"train from it with --config.model.name={arguments.model} --config.model.init_from={arguments.output}")


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a ``.safetensors`` or ``.pth`` file by name; runs no code of the file's.

    Raises:
      UserError: no such file, a file of another format, cut short or of absurd size, or torch is not installed.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        return read_arrays(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return _read_torch(path)
    raise UserError(f"{path} is no .safetensors, .pth, .pt or .bin file")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"{path} needs torch to be read: pip install torch, or convert it to .safetensors") from None
    _check_size(path)
    try:
        # Nothing but tensors and plain containers. Otherwise a pickle may run any code.
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises errors of any kind
        # The first sentence. The next ones advise to run the file's code.
        reason = first_line(error).split(". ")[0] or type(error).__name__
        raise UserError(f"{path} is no checkpoint of weights alone, or cut short ({reason})") from error
    found = [name for name in _WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(name), Mapping)]
    if len(found) > 1:
        print(f"{path}: of {', '.join(found)} its {found[0]} is taken", file=sys.stderr)
    content = content[found[0]] if found else content
    if not isinstance(content, Mapping) or not any(torch.is_tensor(value) for value in content.values()):
        raise UserError(f"{path} holds no weights by name")
    if strange := [name for name, value in content.items() if torch.is_tensor(value) and not _is_plain(value)]:
        raise UserError(f"{path} holds {str(strange[0])!r:.80}, which is no plain array: save its weights alone")
    return {str(name): value.float().numpy() for name, value in content.items() if torch.is_tensor(value)}


def _is_plain(tensor: Any) -> bool:
    return str(tensor.layout) == "torch.strided" and not tensor.is_quantized and not tensor.is_complex()


def _check_size(path: Path) -> None:
    """Refuses a checkpoint of absurd size, or whose parts, which torch does not compress, unpack to more."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(part.file_size for part in archive.infolist()))
        except Exception as error:  # BadZipFile, NotImplementedError, ...
            raise UserError(f"{path} is no checkpoint of weights alone, or cut short ({first_line(error)})") from error
    if size > MOST_BYTES:
        raise UserError(f"{path} holds {size:,} bytes, more than {MOST_BYTES:,}: no network here has so many weights")


if __name__ == "__main__":
    command_line.run_main(main)
