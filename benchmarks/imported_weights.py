"""Imports weights from files that other libraries write, and compares the networks' outputs with those libraries'.

    python -m benchmarks.imported_weights --facebookresearch ConvNeXt --output benchmarks/results/imported.json

``--facebookresearch`` is a checkout of github.com/facebookresearch/ConvNeXt, which is no package. Every weight is drawn
at random. Each file is given to ``convnext_jax.tools.import_torch``, as a user would. Of a network with a classifier
the logits are compared, of one without the map of its last stage. Needs torch, timm, transformers and torchvision.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exported_models import described
from convnext_jax.errors import UserError
from convnext_jax.storage.cloud import local_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

_ATTO = {"depths": [2, 2, 6, 2], "dims": [40, 80, 160, 320]}
_IMAGE_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """A file of weights.

    Attributes:
      label: whose names it has, and what is special about it.
      model: which of our networks it holds.
      network: theirs.
      content: what the file holds, for ``torch.save``; a dictionary of tensors alone becomes safetensors.
      suffix: of the file.
      has_classifier: whether there are logits to compare.
    """

    label: str
    model: str
    network: Any
    content: dict[str, Any]
    suffix: str
    has_classifier: bool = True


def main() -> None:
    """The command."""
    parser = command_line.Parser("Imports weights from files that other libraries write, and compares the outputs.")
    parser.add_argument("--facebookresearch", type=local_path, metavar="DIR", required=True, help="their repository")
    parser.add_argument("--output", type=local_path, required=True, metavar="FILE", help="the record to write")
    arguments = parser.parse_args()
    check_new_file("--output", arguments.output)
    if not (arguments.facebookresearch / "models" / "convnext.py").is_file():
        raise UserError(f"{arguments.facebookresearch} is no checkout of facebookresearch/ConvNeXt")

    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.storage.files import write_json

    rows = {case.label: compare(case) for case in cases(arguments.facebookresearch)}
    record = described("imported_weights", "torch", "timm", "transformers", "torchvision") | {
        "image_size": _IMAGE_SIZE,
        "largest": max(row["relative_difference"] for row in rows.values()),
        "files": rows,
    }
    write_json(arguments.output, record)
    print(json.dumps(rows, indent=2))


def cases(facebookresearch: Path) -> Iterator[Case]:
    """Yields the files, with the networks of a checkout of facebookresearch/ConvNeXt among them."""
    import timm  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]
    import torchvision  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    sys.path.insert(0, str(facebookresearch))
    from models.convnext import ConvNeXt  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    original, averaged, large = (_random(ConvNeXt(**_ATTO, num_classes=count)) for count in (1000, 1000, 21841))
    yield Case("facebookresearch", "convnext_atto", original, original.state_dict(), ".pth")
    wrapped = {"model": original.state_dict(), "epoch": 3}
    yield Case("facebookresearch, model", "convnext_atto", original, wrapped, ".pth")
    both = wrapped | {"model_ema": averaged.state_dict()}
    yield Case("facebookresearch, model and model_ema", "convnext_atto", averaged, both, ".pth")
    parallel = {"state_dict": torch.nn.DataParallel(original).state_dict()}
    yield Case("facebookresearch, state_dict with module.", "convnext_atto", original, parallel, ".pth")
    yield Case("facebookresearch, 21,841 classes", "convnext_atto", large, {"model": large.state_dict()}, ".pth")
    network = _random(timm.create_model("convnext_atto"))
    yield Case("timm", "convnext_atto", network, network.state_dict(), ".safetensors")
    network = _random(timm.create_model("convnext_atto", num_classes=0))
    yield Case("timm, no classifier", "convnext_atto", network, network.state_dict(), ".safetensors", False)
    network = _random(torchvision.models.convnext_tiny())
    yield Case("torchvision", "convnext_tiny", network, network.state_dict(), ".pth")
    for name, model in (("ConvNext", "convnext_atto"), ("ConvNextV2", "convnextv2_atto")):
        config = getattr(transformers, f"{name}Config")(
            depths=_ATTO["depths"], hidden_sizes=_ATTO["dims"], num_labels=7, layer_norm_eps=1e-6
        )
        network = _random(getattr(transformers, f"{name}ForImageClassification")(config))
        yield Case(f"transformers, {name}", model, network, network.state_dict(), ".safetensors")
        network = _random(getattr(transformers, f"{name}Model")(config))
        yield Case(f"transformers, {name}, no classifier", model, network, network.state_dict(), ".safetensors", False)


def _random(network: Any) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


def compare(case: Case) -> dict[str, Any]:
    """Returns the layout that was recognized, and how far our outputs are from theirs, over the largest of theirs."""
    images = np.random.default_rng(0).normal(size=(2, _IMAGE_SIZE, _IMAGE_SIZE, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / f"weights{case.suffix}"
        _save(case.content, weights)
        said = _import(weights, case.model, Path(folder) / "imported")
        ours = _our_output(Path(folder) / "imported", case, images)
    theirs = _their_output(case, images)
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    return {"said": said, "output": list(theirs.shape), "relative_difference": float(difference)}


def _save(content: dict[str, Any], path: Path) -> None:
    import torch  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file

    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)


def _import(weights: Path, model: str, output: Path) -> str:
    """Runs the command, and returns what it says of the weights."""
    command = [sys.executable, "-m", "convnext_jax.tools.import_torch", weights, "--model", model, "--output", output]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.partition(":")[0]


def _our_output(folder: Path, case: Case, images: np.ndarray) -> np.ndarray:
    from convnext_jax.models.parameters import abstract_model, flat, merge_model, nested
    from convnext_jax.models.registry import create_model
    from convnext_jax.models.weights import ModelFolder

    imported = ModelFolder.read(folder)
    like = abstract_model(lambda: create_model(case.model, num_classes=max(len(imported.class_names), 1)))
    # A backbone lacks the classifier, which the maps do not need.
    zeros = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in flat(like.params).items()}
    model = merge_model(like.definition, nested(zeros | flat(imported.params)), imported.batch_stats)
    return np.asarray(model(images) if case.has_classifier else model.features(images)[-1])


def _their_output(case: Case, images: np.ndarray) -> np.ndarray:
    import torch  # pyright: ignore[reportMissingImports]

    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        if case.has_classifier:
            logits = case.network(pixels)
            return getattr(logits, "logits", logits).numpy()
        features = getattr(case.network, "forward_features", case.network)(pixels)
        return getattr(features, "last_hidden_state", features).permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    command_line.run_main(main)
