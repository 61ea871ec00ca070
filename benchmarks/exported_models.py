"""Loads exported networks with the software that they are for, and compares their answers with our own.

    python -m benchmarks.exported_models --workdir runs/digits exported/timm exported/onnx --output answers.json
    python -m benchmarks.exported_models --random --output random.json
    python -m benchmarks.exported_models --time convnext_tiny --image_size 64 --output times.json

The first form runs the Python of each folder's model card on all test images of the run. The second does so with
networks of random weights, for each library that knows them. The third times such a network, one batch at a time in
turns: ours, PyTorch's (timm) and ONNX Runtime's. All need torch, timm, transformers, torchvision, onnxruntime and
jax2onnx.
"""

import contextlib
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convnext_jax.errors import UserError
from convnext_jax.storage.cloud import local_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

if TYPE_CHECKING:
    from convnext_jax.evaluate.opened_classifier import OpenedClassifier

Answers = Callable[[np.ndarray], np.ndarray]
_BATCH_SIZES = (1, 64)
_ROUNDS = 15
# Networks of the second form: name, fields, channels and size of the images, and the libraries.
_NETWORKS: tuple[tuple[str, dict[str, Any], int, int, tuple[str, ...]], ...] = (
    ("convnext_atto", {"stem": "conv3x3_s1"}, 3, 32, ("timm", "transformers", "torchvision")),
    ("convnext_atto", {"stem": "patch2"}, 1, 32, ("timm", "transformers", "torchvision")),
    ("convnext_tiny", {}, 3, 64, ("timm", "transformers", "torchvision")),
    ("convnext_atto", {"kernel_size": 5, "activation": "silu"}, 3, 64, ("timm",)),
    ("convnextv2_atto", {"stem": "patch2"}, 3, 32, ("timm", "transformers")),
    ("convnextv2_atto", {"stem": "conv3x3_s2"}, 4, 32, ("timm", "transformers")),
    ("resnet18", {}, 3, 64, ("timm", "torchvision")),
    ("resnet50_small_stem", {}, 1, 32, ("timm", "torchvision")),
    ("resnext50_32x4d", {}, 3, 64, ("timm", "torchvision")),
    ("resnet50", {"width_per_group": 128}, 3, 64, ("timm", "torchvision")),
    ("resnet18", {"block": "bottleneck"}, 3, 64, ("timm", "torchvision")),
    ("vit_tiny_patch4", {}, 3, 32, ("timm",)),
    ("swin_tiny_patch2_window4", {}, 3, 32, ("torchvision",)),
    ("swin_3stage_patch2_window4", {}, 3, 32, ("timm", "torchvision")),
    ("swin_tiny", {}, 3, 224, ("timm", "torchvision")),
)


def main() -> None:
    """The command."""
    parser = command_line.Parser("Loads exported networks with the software that they are for, and compares answers.")
    parser.add_argument("folders", nargs="*", type=local_path, metavar="FOLDER", help="written by tools.export")
    parser.add_argument("--workdir", type=local_path, metavar="DIR", help="the run that they come from")
    parser.add_argument("--random", action="store_true", help="networks of random weights, for all libraries")
    parser.add_argument("--time", metavar="NAME", help="which network to time")
    parser.add_argument("--image_size", type=int, default=64, metavar="PIXELS", help="of the network to time")
    parser.add_argument("--output", type=local_path, required=True, metavar="FILE", help="the record to write")
    arguments = parser.parse_args()
    check_new_file("--output", arguments.output)
    if sum([arguments.random, arguments.time is not None, arguments.workdir is not None]) != 1:
        parser.error("give one of --workdir, --random and --time")
    if missing := [folder for folder in arguments.folders if not (folder / "README.md").is_file()]:
        raise UserError(f"{missing[0]} is no folder that convnext_jax.tools.export wrote")

    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.storage.files import write_json

    if arguments.time is not None:
        found = time_network(arguments.time, arguments.image_size)
    else:
        found = compare_random_networks() if arguments.random else compare_answers(arguments.workdir, arguments.folders)
    packages = ("torch", "timm", "transformers", "torchvision", "onnxruntime", "jax2onnx")
    write_json(arguments.output, described("exported_models", *packages) | found)
    print(json.dumps(found, indent=2))


def described(program: str, *packages: str) -> dict[str, Any]:
    """Returns how a program here makes its record, without the folders of this machine, and with which packages."""
    from convnext_jax.run.environment import describe_environment

    command = ["python", "-m", f"benchmarks.{program}", *(Path(word).name for word in sys.argv[1:])]
    versions = {name: _version(name) for name in packages}
    return {"environment": describe_environment() | {"command": command}, "packages": versions}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# --- answers


def compare_answers(workdir: Path, folders: list[Path]) -> dict[str, Any]:
    """Returns for each folder how many answers on the test images are ours, and how far its logits are from ours."""
    import jax

    from convnext_jax import data
    from convnext_jax.evaluate.opened_classifier import open_classifier

    network = open_classifier(workdir, dtype="float32")
    run = network.origin.run
    assert run is not None
    images = np.asarray(data.load(run.experiment.data).test.images)
    own = np.asarray(jax.jit(network.forward)(network.params, network.batch_stats, images))
    rows = {}
    for folder in folders:
        theirs = loaded(folder, network)(images)
        rows[folder.name] = {
            "same_answers": int((theirs.argmax(-1) == own.argmax(-1)).sum()),
            "largest_difference": float(np.abs(theirs - own).max()),
        }
    return {"images": len(images), "largest_logit": float(np.abs(own).max()), "formats": rows}


def loaded(folder: Path, network: "OpenedClassifier") -> Answers:
    """Returns what an exported folder answers, by the Python of its card: images, uint8 [N,H,W,C], to logits."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    setup = code.partition("logits = ")[0].partition("(logits,) = ")[0]
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(setup, names)  # our own model card
    if "program" in names:
        return lambda images: np.asarray(names["program"].call(images))
    if "session" in names:
        return lambda images: names["session"].run(None, {"images": images})[0]
    return _of_torch(names["model"], network)


def _of_torch(model: Any, network: "OpenedClassifier") -> Answers:
    import torch  # pyright: ignore[reportMissingImports]

    preprocess = network.preprocess
    mean, std = (torch.tensor(value)[:, None, None] for value in (preprocess.mean, preprocess.std))

    def answers(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            logits = model((pixels - mean) / std)
        return getattr(logits, "logits", logits).numpy()

    return answers


def random_network(name: str, image_size: int, channels: int = 3, **fields: Any) -> "OpenedClassifier":
    """Returns a network with random weights, of which those that start from a constant are drawn too."""
    import jax

    from convnext_jax.batches.preprocess import Normalization
    from convnext_jax.evaluate.opened_classifier import OpenedClassifier, Origin
    from convnext_jax.evaluate.predictions import Forward
    from convnext_jax.evaluate.preprocessing import Preprocessing
    from convnext_jax.models.parameters import split_model
    from convnext_jax.models.registry import create_model
    from convnext_jax.sharding import Sharding, make_mesh

    model = create_model(name, num_classes=100, in_channels=channels, initialization="fan_in", **fields)
    definition, params, batch_stats = split_model(model)
    random = np.random.default_rng(0)

    def shifted(leaf: Any) -> Any:
        return leaf + 0.1 * random.uniform(size=leaf.shape).astype(np.float32) if leaf.ndim < 2 else leaf

    params, batch_stats = jax.tree.map(shifted, (params, batch_stats))
    mean, std = (0.5,) * channels, (0.25,) * channels
    return OpenedClassifier(
        model=name,
        architecture=model.architecture,
        forward=Forward(definition, Normalization(mean, std), None, Sharding(make_mesh())),
        params=params,
        batch_stats=batch_stats,
        classes=tuple(map(str, range(100))),
        preprocess=Preprocessing(image_size, image_size, mean, std),
        origin=Origin("random weights"),
    )


def compare_random_networks() -> dict[str, Any]:
    """Returns how far the logits of each library are from ours, over the largest of ours."""
    import jax

    from convnext_jax.export.folder import write_export

    rows = {}
    for name, fields, channels, size, libraries in _NETWORKS:
        network = random_network(name, size, channels, **fields)
        images = np.random.default_rng(1).integers(0, 256, (4, size, size, channels), np.uint8)
        own = np.asarray(jax.jit(network.forward)(network.params, network.batch_stats, images))
        differences = {}
        for library in libraries:
            with tempfile.TemporaryDirectory() as folder:
                write_export(network, library, Path(folder) / library)
                theirs = loaded(Path(folder) / library, network)(images)
            differences[library] = float(np.abs(theirs - own).max() / np.abs(own).max())
        settings = [f"{field}={value}" for field, value in fields.items()]
        rows[" ".join([name, *settings, f"{size}x{size}x{channels}"])] = differences
    return {"largest": max(max(each.values()) for each in rows.values()), "relative_differences": rows}


# --- speed


def time_network(name: str, image_size: int) -> dict[str, Any]:
    """Returns milliseconds an image of a network with random weights, medians of turns."""
    import jax

    from convnext_jax.export.folder import write_export

    network = random_network(name, image_size)
    compiled = jax.jit(network.forward)
    systems: dict[str, Answers] = {
        "convnext_jax": lambda images: np.asarray(compiled(network.params, network.batch_stats, images))
    }
    with tempfile.TemporaryDirectory() as folder:
        for form in ("timm", "onnx", "stablehlo"):
            write_export(network, form, Path(folder) / form)
            systems[form] = loaded(Path(folder) / form, network)
        systems["onnx, weights packed in each call"] = _without_prepacking(Path(folder) / "onnx")
    results = {}
    for size in _BATCH_SIZES:
        images = np.random.default_rng(0).integers(0, 256, (size, image_size, image_size, 3), np.uint8)
        times: dict[str, list[float]] = {system: [] for system in systems}
        for number in range(_ROUNDS + 2):
            for system, answers in systems.items():
                started = time.perf_counter()
                answers(images)
                if number >= 2:  # the first compile
                    times[system].append(time.perf_counter() - started)
        results[str(size)] = {system: 1000 * statistics.median(each) / size for system, each in times.items()}
    return {"network": name, "image_size": image_size, "rounds": _ROUNDS, "milliseconds_an_image": results}


def _without_prepacking(folder: Path) -> Answers:
    """Returns what ONNX Runtime answers if it lays out the weights anew in each call, as XLA does."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


if __name__ == "__main__":
    command_line.run_main(main)
