"""The batch and the weights that all systems share, written once for the workers to read."""

import zlib
from pathlib import Path

import jax
import numpy as np

from benchmarks.comparison.case import Case
from convnext_jax.models.costs import summarize
from convnext_jax.models.parameters import abstract_model, flat, nested
from convnext_jax.models.registry import create_model, named_architecture
from convnext_jax.models.table import MODELS
from convnext_jax.models.torch_import import export_state_dict


def write_inputs(case: Case, folder: Path) -> None:
    """Writes a random batch, and random weights in the layouts that `benchmarks.comparison.protocol.Job` reads."""
    jax.config.update("jax_platforms", "cpu")  # leaves the accelerator to the workers
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (case.batch_size, case.image_size, case.image_size, 3), np.uint8)
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "images.npy", normalized(pixels))
    np.save(folder / "labels.npy", rng.integers(0, case.num_classes, case.batch_size, np.int32))
    weights = draw_weights(case)
    np.savez(folder / "weights_flat.npz", **weights)  # pyright: ignore[reportArgumentType]
    for layout in ("facebookresearch", "timm"):
        state = export_state_dict(MODELS[case.model], layout, nested(weights))
        np.savez(folder / f"weights_{layout}.npz", **state)  # pyright: ignore[reportArgumentType]


def normalized(pixels: np.ndarray) -> np.ndarray:
    """Normalizes uint8 pixels as this project does, with a mean of 1/2 and a deviation of 1/4: float32, same shape."""
    return ((pixels / 255.0 - 0.5) / 0.25).astype(np.float32)


def draw_weights(case: Case) -> dict[str, np.ndarray]:
    """Returns random parameters by their paths. Each one depends on its path alone.

    They are not the usual initial values: a layer scale of 1e-6 would hide all blocks from a comparison of logits.
    """
    model = abstract_model(lambda: create_model(case.model, num_classes=case.num_classes, stem=case.stem))
    return {path: _draw(path, leaf.shape) for path, leaf in flat(model.params).items()}


def _draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
    normal = np.random.default_rng(zlib.crc32(path.encode())).standard_normal(shape)
    if len(shape) > 1:
        return (normal / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
    center = {"scale": 1.0, "layer_scale": 0.3}.get(path.rpartition("/")[2], 0.0)
    return (center + 0.1 * normal).astype(np.float32)


def network_macs(case: Case) -> int:
    """Returns the multiply-adds of a forward pass of one image."""
    architecture = named_architecture(case.model, {"stem": case.stem})
    parts = summarize(architecture, height=case.image_size, width=case.image_size, num_classes=case.num_classes)
    return sum(part.macs for part in parts)
