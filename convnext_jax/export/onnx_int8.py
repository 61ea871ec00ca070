"""An ONNX model in 8 bits, by ONNX Runtime's static quantization on real images, with what it costs in accuracy."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convnext_jax import data
from convnext_jax.data import Dataset
from convnext_jax.errors import UserError
from convnext_jax.evaluate.opened_classifier import OpenedClassifier
from convnext_jax.export.onnx_model import REMEDY, run_onnx

CALIBRATION_IMAGES = 512
_BATCH_SIZE = 32


def data_of(network: OpenedClassifier, data_dir: str | None) -> Dataset:
    """Returns the data that a network was trained on.

    Args:
      network: the network.
      data_dir: where they are on this machine; None is where the config says.

    Raises:
      UserError: a folder of weights, which knows no data, other data than the run's, or a network that is opened for
        another size of images than that of the data.
    """
    run = network.origin.run
    if run is None:
        raise UserError("--format onnx_int8 needs the data of a run: give the workdir of train.py as --workdir")
    config = run.experiment.data
    dataset = run.of_task(data.load(config if data_dir is None else dataclasses.replace(config, data_dir=data_dir)))
    run.check_same_data(dataset)
    if (shape := dataset.train.images.shape[1:]) != network.preprocess.shape:
        raise UserError(
            f"--format onnx_int8 is calibrated on the images of the training, of {shape[0]}x{shape[1]} pixels; leave"
            " --image_size out"
        )
    return dataset


def quantize(model: Path, quantized: Path, dataset: Dataset) -> dict[str, Any]:
    """Writes a model with 8-bit weights and activations, and compares both models on the whole test split.

    The ranges of the activations are those of images of the training split, evenly spaced. Weights have a scale for
    each channel.

    Args:
      model: the file of an ONNX model.
      quantized: the file to write.
      dataset: what it was trained on.

    Returns:
      The accuracy of both models on the test split, and the bytes of both files.

    Raises:
      UserError: ONNX Runtime is not installed.
    """
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UserError(f"--format onnx_int8 needs {error.name}: {REMEDY}") from error
    count = min(CALIBRATION_IMAGES, len(dataset.train))
    chosen = np.linspace(0, len(dataset.train) - 1, count).astype(np.int64)

    class Images(quantization.CalibrationDataReader):
        """Calibration images, a batch at a time."""

        def __init__(self) -> None:
            self._batches = _batches(np.asarray(dataset.train.images[chosen]))

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Returns the next batch, None after the last."""
            return next(({"images": batch} for batch in self._batches), None)

    prepared = quantized.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    # ONNX Runtime 1.32 cannot adjust scales that are one for each channel to those of a bias.
    options = {"QDQDisableWeightAdjustForInt32Bias": True}
    quantization.quantize_static(str(prepared), str(quantized), Images(), per_channel=True, extra_options=options)
    prepared.unlink()
    images, labels = dataset.test.images, dataset.test.labels
    top1 = {path.name: float(np.mean(_predict(path, images) == labels)) for path in (model, quantized)}
    return {
        "calibration_images": count,
        "test_images": len(labels),
        "top1_float32": top1[model.name],
        "top1_int8": top1[quantized.name],
        "bytes_float32": model.stat().st_size,
        "bytes_int8": quantized.stat().st_size,
    }


def _predict(model: Path, images: Any) -> np.ndarray:
    answer = run_onnx(model)
    return np.concatenate([answer(batch) for batch in _batches(images)]).argmax(-1)


def _batches(images: Any) -> Iterator[np.ndarray]:
    for start in range(0, len(images), _BATCH_SIZE):
        yield np.ascontiguousarray(images[start : start + _BATCH_SIZE])
