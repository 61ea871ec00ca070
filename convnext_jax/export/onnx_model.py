"""A network as an ONNX model.

The converter is jax2onnx: of those from JAX to ONNX it is the one with releases for the current JAX, and it needs no
TensorFlow. It gets a program without this project's forms for single platforms, in which a convolution is one
convolution, and the operations that it would turn into slow or unsupported operators are written in others.
"""

import contextlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives

from convnext_jax.errors import UserError, first_line
from convnext_jax.evaluate.opened_classifier import OpenedClassifier
from convnext_jax.export.one_platform import for_one_platform
from convnext_jax.ops.convolution import plain_convolutions

MODEL_FILE = "model.onnx"
OPSET = 21  # ONNX Runtime 1.18 and later have it
REMEDY = "pip install jax2onnx onnx onnxruntime"


def onnx_model(network: OpenedClassifier) -> Any:
    """Returns a network as an `onnx.ModelProto`.

    Its input ``images`` is uint8 [batch,H,W,C], its output ``logits`` float32 [batch,K]; normalization is a part of it.
    Its metadata have the names of the classes.

    Args:
      network: the network, in float32.

    Raises:
      UserError: jax2onnx is not installed, or cannot convert an operation of the network.
    """
    for name in ("jax2onnx", "onnx_ir"):  # of plugins that no network here needs, and of types that are inferred later
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        import jax2onnx
        import onnx
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}: {REMEDY}") from error
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    height, width, channels = network.preprocess.shape

    def logits(images: jax.Array) -> jax.Array:
        return network.forward(params, batch_stats, images)

    try:
        with plain_convolutions(), _unchanged_jax_numpy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = jax2onnx.to_onnx(
                for_one_platform(logits, replacements=_REPLACEMENTS),
                inputs=[jax.ShapeDtypeStruct(("batch", height, width, channels), jnp.uint8)],
                opset=OPSET,
                input_names=["images"],
                output_names=["logits"],
                model_name=network.model,
            )
    except NotImplementedError as error:
        raise UserError(f"--format onnx: jax2onnx cannot convert {network.model} ({first_line(error)})") from error
    onnx.helper.set_model_props(model, {"class_names": json.dumps(network.classes), "source": network.origin.text})
    return model


@contextlib.contextmanager
def _unchanged_jax_numpy() -> Iterator[None]:
    """Puts the functions of `jax.numpy` back: jax2onnx leaves a `cumsum` there that takes fewer arguments."""
    before = dict(jnp.__dict__)
    try:
        yield
    finally:
        jnp.__dict__.update(before)


def run_onnx(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what a model of `onnx_model` answers in ONNX Runtime on the CPU: images, uint8 [B,H,W,C], to logits.

    Args:
      model: its file.

    Raises:
      UserError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"--format onnx needs onnxruntime: {REMEDY}") from None
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


# --- operations in the forms that become fast operators


def _gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def _dot_general(x: jax.Array, y: jax.Array, *, dimension_numbers: Any, **options: Any) -> jax.Array:
    """A product of two matrices, or of two stacks of them."""
    (contracted_x, contracted_y), (batch_x, batch_y) = dimension_numbers
    free_x = [axis for axis in range(x.ndim) if axis not in (*contracted_x, *batch_x)]
    free_y = [axis for axis in range(y.ndim) if axis not in (*contracted_y, *batch_y)]
    sizes = [*(x.shape[axis] for axis in (*batch_x, *free_x)), *(y.shape[axis] for axis in free_y)]
    inner = math.prod(x.shape[axis] for axis in contracted_x)
    stack = [x.shape[axis] for axis in batch_x]
    x = x.transpose(*batch_x, *free_x, *contracted_x).reshape(*stack, _prod(x, free_x), inner)
    y = y.transpose(*batch_y, *contracted_y, *free_y).reshape(*stack, inner, _prod(y, free_y))
    return jnp.matmul(x, y).reshape(sizes)


def _prod(x: jax.Array, axes: list[int]) -> Any:
    return math.prod(x.shape[axis] for axis in axes)


def _max_pool(x: jax.Array, *, window_dimensions: Any, window_strides: Any, padding: Any, **options: Any) -> jax.Array:
    """Pooling of maps as volumes of which one side are the images and channels: ONNX Runtime pools three sides."""
    del options
    batch, _, _, channels = x.shape
    maps = x.transpose(0, 3, 1, 2).reshape(batch * channels, *x.shape[1:3])
    pooled = jax.lax.reduce_window(
        maps,
        np.array(-np.inf, x.dtype),
        jax.lax.max,
        (1, *window_dimensions[1:3]),
        (1, *window_strides[1:3]),
        ((0, 0), *padding[1:3]),
    )
    return pooled.reshape(batch, channels, *pooled.shape[1:]).transpose(0, 2, 3, 1)


def _scan(*inputs: Any, **params: Any) -> Any:
    """A loop from the front."""
    primitive = primitives.scan_p
    if not params["reverse"]:
        return primitive.bind(*inputs, **params)
    first, carries = params["num_consts"] + params["num_carry"], params["num_carry"]
    turned = [array if number < first else jnp.flip(array, 0) for number, array in enumerate(inputs)]
    results = primitive.bind(*turned, **params | {"reverse": False})
    return [result if number < carries else jnp.flip(result, 0) for number, result in enumerate(results)]


_REPLACEMENTS = {
    "gelu": _gelu,
    "dot_general": _dot_general,
    "reduce_window_max": _max_pool,
    "scan": _scan,
}
