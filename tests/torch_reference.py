"""What PyTorch's ConvNeXt answers with random weights, recorded for tests that run without torch.

``python tests/torch_reference.py`` compares every size with timm at 224 pixels and at a size that is not square, in
full, and rewrites ``torch_reference.json``. Needs torch, timm and transformers, and some minutes.
"""

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
RECORDED_SHAPE = (1, 64, 96, 3)
FULL_SHAPES = ((1, 224, 224, 3), (1, 160, 96, 3))
NAMES = tuple(
    f"convnext{version}_{size}"
    for version, sizes in {
        "": ("atto", "femto", "pico", "nano", "tiny", "small", "base"),
        "v2": ("atto", "femto", "pico", "nano", "tiny", "base"),
    }.items()
    for size in sizes
)

# What the tests have the time for; `main` compares all.
RECORDED_NAMES = ("convnext_atto", "convnext_tiny", "convnextv2_atto", "convnextv2_tiny")


def draw_weights(names: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random weights by timm's names, each a function of its name, such that no layer can be left out unseen."""
    return {name: _draw(name, shape) for name, shape in names.items()}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    squeezed = [size for size in shape if size != 1]
    if len(squeezed) > 1:
        return (normal / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
    centre = {"weight": 1.0, "gamma": 0.3}.get(name.rpartition(".")[2], 0.0) * ("grn" not in name)
    return (centre + 0.2 * normal).astype(np.float32)


def draw_images(shape: tuple[int, ...]) -> np.ndarray:
    """Random images, float32 [B,H,W,3]."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def direction() -> np.ndarray:
    """The weights [B,classes] of the sum of logits whose gradient by the images is compared."""
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


def jax_answers(
    name: str,
    state: Mapping[str, np.ndarray],
    images: np.ndarray,
    *,
    gradient: bool = True,
    compiled: bool = False,
) -> Answers:
    """What our model answers with weights of PyTorch's names.

    Not ``compiled`` as a whole, a hundred small programs serve all models and sizes, where a large one takes up to a
    minute for each; for a single small size the one is sooner done.
    """
    import jax

    from convnext_jax.models import create_model, merge_model, split_model
    from convnext_jax.models.torch_import import import_state_dict

    definition, _, _ = split_model(create_model(name, num_classes=NUM_CLASSES))
    model = merge_model(definition, import_state_dict(state, name).params)
    compile_ = jax.jit if compiled else lambda function: function
    logits, features = compile_(lambda images: (model(images), model.features(images)))(images)
    slope = np.zeros_like(images)
    if gradient:
        slope = compile_(jax.grad(lambda images: (model(images) * direction()).sum()))(images)
    return Answers(np.asarray(logits), [np.asarray(array) for array in features], np.asarray(slope))


def _torch_answers(model: Any, features: Callable[[Any], list[Any]], images: np.ndarray) -> Answers:
    import torch

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = model(x)
    logits = getattr(logits, "logits", logits)
    (logits * torch.from_numpy(direction())).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        maps = [array.numpy().transpose(0, 2, 3, 1) for array in features(x)]
    return Answers(logits.detach().numpy(), maps, x.grad.numpy().transpose(0, 2, 3, 1))


def _timm_model(name: str) -> tuple[Any, Callable[[Any], list[Any]], dict[str, np.ndarray]]:
    import timm
    import torch

    model = timm.create_model(name, num_classes=NUM_CLASSES).eval()
    state = draw_weights({key: tuple(value.shape) for key, value in model.state_dict().items()})
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return model, lambda x: model.forward_intermediates(x, intermediates_only=True), state


def _worst(ours: Answers, theirs: Answers) -> float:
    pairs = [
        (ours.logits, theirs.logits),
        (ours.gradient, theirs.gradient),
        *zip(ours.features, theirs.features, strict=True),
    ]
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


def main() -> None:
    """Compares and records."""
    record = {}
    for name in NAMES:
        model, features, state = _timm_model(name)
        for shape in (*FULL_SHAPES, RECORDED_SHAPE):
            images = draw_images(shape)
            theirs = _torch_answers(model, features, images)
            error = _worst(jax_answers(name, state, images), theirs)
            print(f"{name} {shape[1]}x{shape[2]}: largest relative difference {error:.1e}", flush=True)
            assert error < 2e-5
        if name in RECORDED_NAMES:
            record[name] = theirs.sample()
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
