"""What PyTorch's networks answer with random weights, recorded for tests that run without torch.

``python tests/torch_reference.py [NAME ...]`` compares every network, or those named, with timm, and some with
torchvision, at several image sizes, and updates ``torch_reference.json``. It needs torch, torchvision and timm, and
some minutes.
"""

import copy
import dataclasses
import json
import math
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

RECORD = Path(__file__).with_name("torch_reference.json")
NUM_CLASSES = 13
CONVNEXTS = tuple(
    f"convnext{version}_{size}"
    for version, sizes in {
        "": ("atto", "femto", "pico", "nano", "tiny", "small", "base"),
        "v2": ("atto", "femto", "pico", "nano", "tiny", "base"),
    }.items()
    for size in sizes
)
RESNETS = tuple(f"resnet{depth}{stem}" for depth in (18, 34, 50, 101) for stem in ("", "_small_stem"))
VITS = tuple(f"vit_{size}_patch{patch}" for size in ("tiny", "small", "base") for patch in (16, 4))
# The shapes of the images that each is compared at, the last of them recorded. A table of positions fits one size.
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    **dict.fromkeys((*CONVNEXTS, *RESNETS), ((1, 224, 224, 3), (1, 160, 96, 3), (1, 64, 96, 3))),
    **{name: ((1, 224, 224, 3) if name.endswith("16") else (1, 32, 32, 3),) for name in VITS},
}
# The small stem is for small images. At some shapes a value is so near to the kink of a ReLU that rounding decides its
# sign, which changes the gradient by 1e-3, and the more so the larger the network. At these shapes none is.
SHAPES |= {name: ((1, 32, 32, 3), (1, 24, 40, 3)) for name in RESNETS if name.endswith("small_stem")}
SHAPES["resnet101"] = ((1, 160, 96, 3), (1, 64, 96, 3))
# What the tests have the time for; `main` compares all.
RECORDED = (
    *("convnext_atto", "convnext_tiny", "convnextv2_atto", "convnextv2_tiny"),
    *("resnet18_small_stem", "resnet50", "vit_tiny_patch4", "vit_tiny_patch16"),
)


def draw_weights(names: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random weights by PyTorch's names, each a function of its name, such that no layer can be left out unnoticed."""
    return {name: _draw(name, shape) for name, shape in names.items() if not name.endswith("num_batches_tracked")}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    kind = name.rpartition(".")[2]
    if kind == "running_var":
        return (1.0 + 0.5 * np.abs(normal)).astype(np.float32)
    if kind in ("cls_token", "pos_embed"):
        return (0.5 * normal).astype(np.float32)
    squeezed = [size for size in shape if size != 1]
    if len(squeezed) > 1:
        return (normal / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
    center = {"weight": 1.0, "gamma": 0.3}.get(kind, 0.0) * ("grn" not in name)
    return (center + 0.2 * normal).astype(np.float32)


def draw_images(shape: tuple[int, ...]) -> np.ndarray:
    """Random images, float32 [B,H,W,3]."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def direction() -> np.ndarray:
    """The weights [1,classes] of the sum of logits whose gradient by the images is compared."""
    return np.random.default_rng(7).standard_normal((1, NUM_CLASSES)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Answers:
    """Logits [B,classes], four feature maps [B,H,W,C] and the gradient by the images [B,H,W,3]."""

    logits: np.ndarray
    features: list[np.ndarray]
    gradient: np.ndarray

    def sample(self) -> dict[str, Any]:
        """Some values of each, and the scale that errors are relative to."""
        arrays = {"logits": self.logits, "gradient": self.gradient}
        arrays |= {f"features{index}": array for index, array in enumerate(self.features)}
        return {
            name: {"values": pick(array).tolist(), "scale": float(np.abs(array).max())}
            for name, array in arrays.items()
        }


def pick(array: np.ndarray) -> np.ndarray:
    """Thirteen values spread over an array."""
    flat = np.asarray(array, np.float32).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, NUM_CLASSES).astype(int)]


def our_model(name: str, state: Mapping[str, np.ndarray]) -> Any:
    """Our model with weights of PyTorch's names."""
    from convnext_jax.models.parameters import abstract_model, merge_model
    from convnext_jax.models.registry import create_model
    from convnext_jax.models.torch_import import import_state_dict

    definition = abstract_model(lambda: create_model(name, num_classes=NUM_CLASSES)).definition
    imported = import_state_dict(state, name)
    return merge_model(definition, imported.params, imported.batch_stats)


def jax_answers(
    name: str,
    state: Mapping[str, np.ndarray],
    images: np.ndarray,
    *,
    gradient: bool = True,
    compiled: bool = False,
) -> Answers:
    """What our model answers with weights of PyTorch's names.

    Not ``compiled`` as a whole, a hundred small programs serve all models and sizes, and a large one takes up to a
    minute for each. For a single small size the one is sooner done.
    """
    import jax

    from convnext_jax.models import merge_model, split_model

    definition, *arrays = split_model(our_model(name, state))

    def run(arrays: Any, images: jax.Array) -> Any:
        model = merge_model(definition, *arrays)
        return model(images), model.features(images)

    def product(arrays: Any, images: jax.Array) -> jax.Array:
        return (merge_model(definition, *arrays)(images) * direction()).sum()

    # The arrays are arguments: with them as constants, compiling takes several times as long.
    compile_ = jax.jit if compiled else lambda function: function
    logits, features = compile_(run)(arrays, images)
    slope = np.zeros_like(images)
    if gradient:
        slope = compile_(jax.grad(product, argnums=1))(arrays, images)
    return Answers(np.asarray(logits), [np.asarray(array) for array in features], np.asarray(slope))


def _torch_answers(model: Any, features: Callable[[Any], list[Any]], images: np.ndarray) -> Answers:
    import torch

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = model(x)
    (logits * torch.from_numpy(direction())).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        maps = [array.numpy().transpose(0, 2, 3, 1) for array in features(x)]
    return Answers(logits.detach().numpy(), maps, x.grad.numpy().transpose(0, 2, 3, 1))


def _timm_model(name: str) -> tuple[Any, Callable[[Any], list[Any]], dict[str, np.ndarray]]:
    import timm
    import torch

    if name.startswith("vit"):
        patch = int(name.rpartition("patch")[2])
        size = {"patch_size": patch, "img_size": 224 if patch == 16 else 32}
        model = timm.create_model(f"{name.partition('_patch')[0]}_patch16_224", num_classes=NUM_CLASSES, **size)
        wanted = [2, 5, 8, 11]
    else:
        model = timm.create_model(name.partition("_small_stem")[0], num_classes=NUM_CLASSES)
        wanted = None
        if name.endswith("_small_stem"):
            model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
            model.maxpool = torch.nn.Identity()
    model.eval()
    state = draw_weights({key: tuple(value.shape) for key, value in model.state_dict().items()})
    missing, unexpected = model.load_state_dict(
        {key: torch.from_numpy(value) for key, value in state.items()}, strict=False
    )
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)

    def features(x: Any) -> list[Any]:
        return model.forward_intermediates(x, indices=wanted, intermediates_only=True)[-4:]

    return model, features, state


def _worst(ours: Answers, theirs: Answers) -> float:
    pairs = [
        (ours.logits, theirs.logits),
        (ours.gradient, theirs.gradient),
        *zip(ours.features, theirs.features, strict=True),
    ]
    return max(_difference(one, other) for one, other in pairs)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def _check_training(name: str) -> None:
    """One forward pass in training: the answers by the batch's statistics, and the running ones afterwards.

    A variance of few values is badly conditioned, so PyTorch in float64 is the reference, and PyTorch in float32 says
    how much rounding alone may change.
    """
    import jax
    import torch

    from convnext_jax.models.parameters import batch_stats_of, flat
    from convnext_jax.models.registry import MODELS

    theirs, _, state = _timm_model(name)
    images = draw_images((8, 32, 32, 3) if name.endswith("small_stem") else (8, 160, 160, 3))
    model = our_model(name, state)
    logits = np.asarray(model(images, key=jax.random.key(0)))
    ours = {path: np.asarray(array) for path, array in flat(batch_stats_of(model)).items()}
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    double = copy.deepcopy(theirs).double().train()
    expected, single = double(inputs.double()).detach().numpy(), theirs.train()(inputs).detach().numpy()
    error, rounding = _difference(logits, expected), _difference(single, expected)
    names = {path: MODELS[name].torch_name(path, "torchvision") for path in ours}
    for path, array in ours.items():
        exact = double.state_dict()[names[path]].numpy()
        error = max(error, _difference(array, exact))
        rounding = max(rounding, _difference(theirs.state_dict()[names[path]].numpy(), exact))
    print(
        f"{name} in training, {images.shape[1]}x{images.shape[2]}: largest relative difference from float64"
        f" {error:.1e}, PyTorch's own in float32 {rounding:.1e}",
        flush=True,
    )
    assert error < max(2e-5, 2 * rounding) and rounding < 1e-4


def _check_torchvision(name: str) -> None:
    import torch
    import torchvision

    model = torchvision.models.get_model(name, num_classes=NUM_CLASSES).eval()
    state = draw_weights({key: tuple(value.shape) for key, value in model.state_dict().items()})
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
    images = draw_images((1, 64, 96, 3))
    expected = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).detach().numpy()
    error = _difference(np.asarray(our_model(name, state)(images)), expected)
    print(f"{name} of torchvision, 64x96: largest relative difference {error:.1e}", flush=True)
    assert error < 2e-5


def main() -> None:
    """Compares and records."""
    record = json.loads(RECORD.read_text())
    for name, shapes in SHAPES.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        model, features, state = _timm_model(name)
        for shape in shapes:
            images = draw_images(shape)
            theirs = _torch_answers(model, features, images)
            error = _worst(jax_answers(name, state, images), theirs)
            print(f"{name} {shape[1]}x{shape[2]}: largest relative difference {error:.1e}", flush=True)
            assert error < 2e-5
        if name in RECORDED:
            record[name] = theirs.sample()
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
    for name in ("resnet18_small_stem", "resnet50"):
        _check_training(name)
    for name in ("resnet18", "resnet50"):
        _check_torchvision(name)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
