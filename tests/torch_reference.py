"""What PyTorch's networks answer with random weights, recorded for tests that run without torch.

``python tests/torch_reference.py [NAME ...]`` compares every network of `torch_networks`, or those named, with ours, at
several image sizes, and updates ``torch_networks/records``. It needs torch, torchvision, timm,
transformers, pytorchcv, PyWavelets and wavemix, and hours for all.
"""

import copy
import dataclasses
import json
import math
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch_networks import NETWORKS, NUM_CLASSES, Reference

_RECORDS = Path(__file__).with_name("torch_networks") / "records"


def record_path(name: str) -> Path:
    """The file of a network's recorded answers."""
    return _RECORDS / f"{name}.json"


def draw_weights(names: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random weights by PyTorch's names, each a function of its name, such that no layer can be left out unnoticed."""
    return {name: _draw(name, shape) for name, shape in names.items() if not name.endswith("num_batches_tracked")}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    kind = name.rpartition(".")[2]
    if kind == "running_var":
        return (1.0 + 0.5 * np.abs(normal)).astype(np.float32)
    if kind in ("cls_token", "pos_embed", "class_emb", "positional_emb"):
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
    """Logits [B,classes], the feature maps [B,H,W,C] and the gradient by the images [B,H,W,3]."""

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


def our_model(name: str, state: Mapping[str, np.ndarray], **fields: Any) -> Any:
    """Our model with weights of PyTorch's names, and some fields of its architecture changed."""
    from convnext_jax.models.parameters import abstract_model, merge_model
    from convnext_jax.models.registry import create_model
    from convnext_jax.models.torch_import import import_state_dict

    definition = abstract_model(lambda: create_model(name, num_classes=NUM_CLASSES, **fields)).definition
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


def _torch_network(reference: Reference) -> tuple[Any, dict[str, np.ndarray]]:
    """The network with drawn weights, and those weights by name."""
    import torch

    model = reference.build().eval()
    floats = {key: array for key, array in model.state_dict().items() if array.is_floating_point()}
    state = draw_weights({key: tuple(array.shape) for key, array in floats.items()})
    _, unexpected = model.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()}, strict=False)
    assert not unexpected
    return model, state


def _torch_answers(model: Any, reference: Reference, images: np.ndarray) -> Answers:
    import torch

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = model(x)
    (logits * torch.from_numpy(direction())).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        maps = reference.features(model, x) if reference.features else []
    features = [array.numpy().transpose(0, 2, 3, 1) for array in maps]
    return Answers(logits.detach().numpy(), features, x.grad.numpy().transpose(0, 2, 3, 1))


def _worst(ours: Answers, theirs: Answers, *, gradient: bool) -> float:
    pairs = [(ours.logits, theirs.logits)] + ([(ours.gradient, theirs.gradient)] if gradient else [])
    if theirs.features:
        pairs += zip(ours.features, theirs.features, strict=True)
    return max(_difference(one, other) for one, other in pairs)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def _check_training(name: str, reference: Reference, shape: tuple[int, ...]) -> None:
    """One forward pass in training: the answers by the batch's statistics, and the running ones afterwards.

    A variance of few values is badly conditioned, so PyTorch in float64 is the reference, and PyTorch in float32 says
    how much rounding alone may change.
    """
    import jax
    import torch

    from convnext_jax.models.parameters import batch_stats_of, flat
    from convnext_jax.models.table import MODELS

    theirs, state = _torch_network(reference)
    images = draw_images(shape)
    model = our_model(name, state, **reference.training_fields)
    logits, auxiliary = model.training_outputs(images, key=jax.random.key(0))
    outputs = np.stack([logits, *auxiliary])
    ours = {path: np.asarray(array) for path, array in flat(batch_stats_of(model)).items()}
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    double = copy.deepcopy(theirs).double().train()
    listed = reference.training_outputs or (lambda logits: [logits])
    expected, single = (
        torch.stack(listed(result)).detach().numpy() for result in (double(inputs.double()), theirs.train()(inputs))
    )
    error, rounding = _difference(outputs, expected), _difference(single, expected)
    names = {path: MODELS[name].torch_name(path, reference.layout) for path in ours}
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


def _check(name: str, reference: Reference) -> None:
    """Compares at each shape, records the last, and compares a forward pass in training."""
    model, state = _torch_network(reference)
    for shape in (*reference.forward_shapes, *reference.shapes):
        images, gradient = draw_images(shape), shape in reference.shapes
        theirs = _torch_answers(model, reference, images)
        error = _worst(jax_answers(name, state, images, gradient=gradient), theirs, gradient=gradient)
        without = "" if gradient else ", without the gradient"
        print(f"{name} {shape[1]}x{shape[2]}: largest relative difference {error:.1e}{without}", flush=True)
        assert error < 2e-5
    if reference.recorded:
        record_path(name).write_text(json.dumps(theirs.sample(), indent=1) + "\n")
    if reference.training:
        _check_training(name, reference, reference.training)


def main() -> None:
    """Compares and records."""
    for name in sys.argv[1:] or NETWORKS:
        _check(name, NETWORKS[name])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
