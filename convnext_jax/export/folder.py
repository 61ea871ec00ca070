"""A folder of an exported network: its weights or program, what is needed to use it, and its model card."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from convnext_jax.errors import writing
from convnext_jax.evaluate.opened_classifier import OpenedClassifier
from convnext_jax.export import PROGRAMS
from convnext_jax.export.model_card import model_card
from convnext_jax.export.onnx_int8 import data_of, quantize
from convnext_jax.export.onnx_model import MODEL_FILE, onnx_model, run_onnx
from convnext_jax.export.pytorch_files import write_pytorch
from convnext_jax.export.pytorch_models import pytorch_model
from convnext_jax.export.stablehlo import PROGRAM_FILE, stablehlo_program
from convnext_jax.models.weights import ModelFolder
from convnext_jax.storage.files import new_folder, write_json

_CLASSES_FILE = "classes.json"
_CHECKED_IMAGES = 8


def write_export(
    network: OpenedClassifier, form: str, directory: Path, data_dir: str | None = None, *, stored: str = "float32"
) -> list[str]:
    """Writes the folder, whole or not at all.

    Args:
      network: the network.
      form: one of `convnext_jax.export.PROGRAMS`, or a library or layout of
        `convnext_jax.export.pytorch_models.formats_of`.
      directory: the folder to make.
      data_dir: where the data are on this machine, for ``onnx_int8``; None is where the config says.
      stored: the number format of the parameters, for ``convnext_jax``; see `ModelFolder.write`.

    Returns:
      What was found on the way, a line each.

    Raises:
      UserError: the network cannot be written in the format, a package is missing, or the folder cannot be written.
    """
    with writing(directory, "--output"), new_folder(directory) as folder:
        if form in PROGRAMS:
            code, lines = _WRITERS[form](network, folder, _Options(data_dir, stored))
        else:
            model = pytorch_model(network, form)
            write_pytorch(network, model, folder)
            code, lines = model.code, []
        (folder / "README.md").write_text(model_card(network, form, code, lines), encoding="utf-8")
    return lines


class _Options(NamedTuple):
    data_dir: str | None
    stored: str


_Written = tuple[str, list[str]]  # the code that loads it, and lines for the user


def _write_native(network: OpenedClassifier, folder: Path, options: _Options) -> _Written:
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    weights = ModelFolder(
        params=params,
        batch_stats=batch_stats,
        model=network.model,
        architecture=dataclasses.asdict(network.architecture),
        class_names=network.classes,
        mean=network.preprocess.mean,
        std=network.preprocess.std,
        source=network.origin.text,
        image_size=network.preprocess.shape[:2],
        network_size=network.forward.image_size,
    )
    weights.write_into(folder, dtype=options.stored)
    code = 'import convnext_jax\n\nclassifier = convnext_jax.load(".")'
    rounded = f"parameters rounded to {options.stored}; figures are those of float32"
    return code, [] if options.stored == "float32" else [rounded]


def _write_stablehlo(network: OpenedClassifier, folder: Path, options: _Options) -> _Written:
    del options
    program = stablehlo_program(network)
    (folder / PROGRAM_FILE).write_bytes(program)
    _write_classes(network, folder)
    call = jax.export.deserialize(bytearray(program)).call
    line = _compared(network, lambda images: np.asarray(call(images)))
    return _STABLEHLO_CODE.format(**_shapes(network)), [line]


def _write_onnx(network: OpenedClassifier, folder: Path, options: _Options) -> _Written:
    del options
    model = onnx_model(network)
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())
    _write_classes(network, folder)
    return _ONNX_CODE.format(**_shapes(network)), [_compared(network, run_onnx(folder / MODEL_FILE))]


def _write_onnx_int8(network: OpenedClassifier, folder: Path, options: _Options) -> _Written:
    dataset = data_of(network, options.data_dir)  # what is wrong with it is said before the work
    code, _ = _write_onnx(network, folder, options)
    exact = (folder / MODEL_FILE).rename(folder / "float32.onnx")
    figures = quantize(exact, folder / MODEL_FILE, dataset)
    exact.unlink()
    write_json(folder / "quantization.json", figures)
    line = (
        f"top-1 on the {figures['test_images']:,} test images: {figures['top1_int8']:.2%} in 8 bits,"
        f" {figures['top1_float32']:.2%} in float32; {figures['bytes_int8']:,} bytes instead of"
        f" {figures['bytes_float32']:,}"
    )
    return code, [line]


_WRITERS: Mapping[str, Callable[[OpenedClassifier, Path, _Options], _Written]] = {
    "convnext_jax": _write_native,
    "onnx": _write_onnx,
    "onnx_int8": _write_onnx_int8,
    "stablehlo": _write_stablehlo,
}
_STABLEHLO_CODE = """\
from pathlib import Path

from jax import export

program = export.deserialize(bytearray(Path("model.stablehlo").read_bytes()))
logits = program.call(images)  # uint8 {images} -> float32 {logits}"""
_ONNX_CODE = """\
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(None, {{"images": images}})  # uint8 {images} -> float32 {logits}"""


def _shapes(network: OpenedClassifier) -> dict[str, str]:
    height, width, channels = network.preprocess.shape
    return {"images": f"[B,{height},{width},{channels}]", "logits": f"[B,{len(network.classes)}]"}


def _write_classes(network: OpenedClassifier, folder: Path) -> None:
    write_json(folder / _CLASSES_FILE, {"classes": network.classes})


def _compared(network: OpenedClassifier, call: Callable[[np.ndarray], np.ndarray]) -> str:
    """Returns how much the logits of an exported program differ from the network's own."""
    shape = (_CHECKED_IMAGES, *network.preprocess.shape)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    own = np.asarray(jax.jit(network.forward)(network.params, network.batch_stats, images))
    difference = float(np.abs(call(images) - own).max())
    return f"largest difference of the logits on {len(images)} random images: {difference:.1e}"
