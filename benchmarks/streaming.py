"""Measures how many images a second a streamed split is read at, decoded and encoded, and writes them as JSON.

``python -m benchmarks.streaming --output benchmarks/results/NAME.json``

The pictures are noise over a smooth ramp, as much as makes their files about as large as those of photographs: 64x64
pixels, as in ``imagenet_resized/64x64``, and 500x375, about the mean of ``imagenet2012``. The record has the bytes of a
file. What is timed is all that the host does for a call: the order, reading, decoding, and the copy to the device. The
step that consumes them is measured by ``python -m convnext_jax.tools.benchmark``.
"""

import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.encoded_files import Files
from convnext_jax.data.encoded_images import EncodedImages
from convnext_jax.data.random_crop import RandomCrop
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

SHAPE = (64, 64, 3)
PHOTOGRAPH = (375, 500, 3)
BATCH, STEPS = 128, 10


def pixels(count: int, shape: tuple[int, int, int], noise: float) -> np.ndarray:
    """Returns pictures, uint8 [N,H,W,3], with noise of a deviation on the scale of 0 to 255."""
    rng = np.random.default_rng(0)
    height, width, _ = shape
    ramp = np.add.outer(np.linspace(0, 64, height), np.linspace(0, 64, width))[..., None]
    ramp = ramp * rng.uniform(0, 1.5, (count, 1, 1, 3))
    return np.clip(ramp + rng.normal(0, noise, (count, *shape)), 0, 255).astype(np.uint8)


def encode(images: np.ndarray, kind: str) -> list[bytes]:
    """Returns the files of pictures, ``png`` or ``jpeg``."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind)
        files.append(buffer.getvalue())
    return files


def rate(images: Any, count: int, workers: int | None, calls: int, crop: RandomCrop | None = None) -> dict[str, float]:
    """Returns the images a second of some calls after the first, which starts the processes: median, least and most."""
    from convnext_jax.batches.streaming import StreamingSource
    from convnext_jax.data.dataset import Split
    from convnext_jax.sharding import Sharding, make_mesh

    source = StreamingSource(
        Split(images, np.zeros(count, np.int32)),
        seed=0,
        batch_size=BATCH,
        sharding=Sharding(make_mesh()),
        most_steps=STEPS,
        workers=workers,
        crop=crop,
    )
    started = time.perf_counter()
    source._read(0, STEPS)
    first, rates = time.perf_counter() - started, []
    for call in range(1, calls + 1):
        started = time.perf_counter()
        source._read(call * STEPS, STEPS)
        rates.append(BATCH * STEPS / (time.perf_counter() - started))
    source.close()
    return {"median": float(np.median(rates)), "least": min(rates), "most": max(rates), "first_call_seconds": first}


def main() -> None:
    """The command."""
    from convnext_jax.run.environment import describe_environment
    from convnext_jax.storage.files import write_json

    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=8)
    arguments = parser.parse_args()
    check_new_file("--output", arguments.output)
    count, images = arguments.images, pixels(1000, SHAPE, noise=12)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        mapped = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(count, *SHAPE))
        for start in range(0, count, len(images)):
            mapped[start : start + len(images)] = images[: count - start]
        mapped.flush()
        results["decoded, memory-mapped"] = rate(np.load(file, mmap_mode="r"), count, None, arguments.calls)
    for kind in ("png", "jpeg"):
        files = encode(images, kind)
        encoded = EncodedImages(Files(files, count), (64, 64, 3))
        for workers in (1, 2):
            result = rate(encoded, count, workers, arguments.calls)
            result["bytes_per_file"] = float(np.mean([len(file) for file in files]))
            results[f"{kind}, {workers} process{'es' * (workers > 1)}"] = result
    files = encode(pixels(200, PHOTOGRAPH, noise=60), "jpeg")
    for size in (64, 128, 224):
        encoded = EncodedImages(Files(files, count), (size, size, 3), size)
        for what, crop in (("center square", None), ("random rectangle", RandomCrop(0, 0.08))):
            result = rate(encoded, count, 1, arguments.calls, crop)
            result["bytes_per_file"] = float(np.mean([len(file) for file in files]))
            results[f"500x375 to {size}, {what}, one process"] = result
    settings = {"image_shape": SHAPE, "batch_size": BATCH, "steps_per_call": STEPS, "images": count}
    write_json(arguments.output, settings | {"images_per_second": results, "environment": describe_environment()})
    for name, result in results.items():
        print(f"{name}: {result['median']:,.0f} images/s ({result['least']:,.0f} to {result['most']:,.0f})")


if __name__ == "__main__":
    command_line.run_main(main)
