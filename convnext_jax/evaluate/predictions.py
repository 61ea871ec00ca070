"""The outputs for any number of images, which every figure of an offline evaluation is computed from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from convnext_jax.batches.preprocess import Normalization, normalize, resize
from convnext_jax.data.dataset import Images
from convnext_jax.errors import UserError
from convnext_jax.evaluate.views import VIEWS
from convnext_jax.memory import memory_limit, program_bytes, size_text
from convnext_jax.models.parameters import merge_model
from convnext_jax.sharding import Sharding, abstract

MOST_AT_ONCE = 512  # images of a batch; more of them make no processor faster

# What is done to images before a network sees them: images, uint8 [B,H,W,C], and their numbers in the split, int32 [B],
# to images of the same shape.
Change = Callable[[jax.Array, jax.Array], jax.Array]
_Kinds = tuple[tuple[tuple[int, ...], str], ...]  # shape and dtype of each array of a batch


@dataclasses.dataclass(frozen=True)
class Forward:
    """How pixels become logits.

    Attributes:
      definition: the model without its parameters.
      normalization: of the channels.
      image_size: side in pixels that the images are scaled to; None keeps their own.
      sharding: how arrays lie on the devices.
      tta: which views of an image are averaged, a name of `convnext_jax.evaluate.views.VIEWS`.
    """

    definition: Any
    normalization: Normalization
    image_size: int | None
    sharding: Sharding
    tta: str = "none"

    def __call__(self, params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
        """Returns the logits of images, float32 [B,K]. Of several views they are the log of the mean probability.

        Args:
          params: the parameters.
          batch_stats: the running statistics, empty if there are none.
          images: uint8 [B,H,W,C].
        """
        inputs = resize(normalize(images, self.normalization), self.image_size)
        model = merge_model(self.definition, params, batch_stats)
        views = VIEWS[self.tta](inputs)  # [V,B,H,W,C]
        if len(views) == 1:
            return model(views[0])
        log_probabilities = jax.nn.log_softmax(jax.lax.map(model, views))  # [V,B,K]
        return jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(jnp.float32(len(views)))


class Predictor:
    """Computes the outputs for any number of images, a batch at a time. It compiles once for each size of a batch.

    Args:
      forward: how pixels become outputs: logits, or a tree of arrays [B,...].
      batch_size: most images at a time, rounded up to a multiple of the devices; it changes no figure. None takes 512,
        or as many as fit into the memory.
    """

    def __init__(self, forward: Forward, batch_size: int | None = None) -> None:
        self.forward = forward
        self._most = batch_size
        self._compiled: dict[_Kinds, jax.stages.Compiled] = {}

    def __call__(
        self,
        params: Any,
        batch_stats: Any,
        images: Images,
        *others: np.ndarray,
        change: Change | None = None,
        title: str | None = None,
    ) -> Any:
        """Returns the outputs for images in their order: logits, float32 [N,K], or a tree of arrays [N,...].

        Args:
          params: the parameters, on the devices.
          batch_stats: the running statistics, empty if there are none.
          images: uint8 [N,H,W,C], N at least 1.
          *others: what else the forward pass takes of each image, arrays [N,...].
          change: what is done to them before, a jitted function.
          title: of the progress bar, which a terminal shows if it takes more than two seconds; None shows none.

        Raises:
          UserError: not even one image for each device fits into the memory.
        """
        batch_stats = batch_stats or {}
        program, size = self.compile(params, batch_stats, images, *others)
        sharding, outputs, waiting = self.forward.sharding, [], []
        quiet = True if title is None else None
        with tqdm(total=len(images), desc=title, unit=" images", delay=2, leave=False, disable=quiet) as bar:
            for start in range(0, len(images), size):
                # The last batch is filled up with the last image.
                numbers = np.minimum(np.arange(start, start + size, dtype=np.int32), len(images) - 1)
                given = [array[numbers] for array in (images, *others)]
                (batch, *rest), indices = jax.device_put((given, numbers), sharding.batch)
                batch = batch if change is None else jax.device_put(change(batch, indices), sharding.batch)
                waiting.append(program(params, batch_stats, batch, *rest))
                if len(waiting) > 2:  # the devices have something to do while this waits
                    outputs.append(jax.device_get(waiting.pop(0)))
                    bar.update(size)
            outputs += map(jax.device_get, waiting)
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(images)], *outputs)

    def compile(
        self, params: Any, batch_stats: Any, images: Images, *others: np.ndarray
    ) -> tuple[jax.stages.Compiled, int]:
        """Returns the compiled forward pass that a call with these arguments uses, and the size of its batches.

        All batches are alike, so that as little as possible is computed for nothing.
        """
        devices = self.forward.sharding.num_devices
        most = self._most or MOST_AT_ONCE
        while True:
            batches = -(-len(images) // most)
            size = -(-len(images) // (batches * devices)) * devices
            kinds = tuple(((size, *array.shape[1:]), str(array.dtype)) for array in (images, *others))
            if kinds not in self._compiled:
                self._compiled[kinds] = self._compile(params, batch_stats, kinds)
            program = self._compiled[kinds]
            if self._most is not None or _fits(program, self.forward.sharding):
                return program, size
            if size == devices:
                needed = size_text(program_bytes(program))
                raise UserError(
                    f"the network needs {needed} for one image, and there is less memory; take more devices"
                )
            most = max(size // 2, devices)

    def _compile(self, params: Any, batch_stats: Any, kinds: _Kinds) -> jax.stages.Compiled:
        sharding = self.forward.sharding
        arrays = [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batch) for shape, dtype in kinds]
        like = abstract((params, batch_stats), sharding.replicated)
        return jax.jit(self.forward, out_shardings=sharding.batch).lower(*like, *arrays).compile()


def _fits(program: jax.stages.Compiled, sharding: Sharding) -> bool:
    needed, limit = program_bytes(program), memory_limit(sharding)
    return needed is None or limit is None or needed <= limit
