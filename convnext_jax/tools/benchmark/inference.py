"""What a trained network costs to use: time by batch size, and memory."""

import statistics
from typing import Any

import jax
import numpy as np

from convnext_jax.data.dataset import Images
from convnext_jax.evaluate.predictions import MOST_AT_ONCE, Forward, Predictor
from convnext_jax.memory import memory_limit, program_bytes
from convnext_jax.tools.benchmark.timing import time_calls

_REPEATS = 7
_LONG = 2.0  # seconds of a call beyond which larger batches are not tried


def inference_cost(forward: Forward, params: Any, batch_stats: Any, images: Images) -> dict[str, Any]:
    """Times the forward pass, from pixels on the devices to logits, at batch sizes from 1 to 512.

    Args:
      forward: how pixels become logits.
      params: the parameters, on the devices.
      batch_stats: the running statistics, empty if there are none.
      images: uint8 [N,H,W,C], of which as many as a batch needs are used, again and again if there are fewer.

    Returns:
      ``milliseconds_per_image`` and ``images_per_second`` at ``best_batch_size``, the fastest that was tried;
      ``milliseconds_batch_1``, the time of a single image; ``memory_bytes``, what the best one needs on a device by
      XLA's plan, None if there is none. Times are medians of seven calls, which take turns.
    """
    sharding, sizes = forward.sharding, []
    calls, memory = {}, {}
    for size in (1, 8, 32, 128, MOST_AT_ONCE):
        size = max(size, sharding.num_devices)
        batch = images[np.arange(size) % len(images)]
        program, _ = Predictor(forward, size).compile(params, batch_stats, batch)
        needed, limit = program_bytes(program), memory_limit(sharding)
        if size in sizes or (needed is not None and limit is not None and needed > limit):
            continue
        placed = jax.device_put(batch, sharding.batch)

        def call(program: Any = program, placed: jax.Array = placed) -> None:
            jax.block_until_ready(program(params, batch_stats, placed))

        sizes.append(size)
        calls[str(size)], memory[size] = call, needed
        if min(time_calls({"first": call}, 1)["first"]) > _LONG:
            break
    seconds = {int(size): statistics.median(each) for size, each in time_calls(calls, _REPEATS).items()}
    best = min(sizes, key=lambda size: seconds[size] / size)
    return {
        "milliseconds_per_image": 1e3 * seconds[best] / best,
        "images_per_second": best / seconds[best],
        "best_batch_size": best,
        "milliseconds_batch_1": 1e3 * seconds[sizes[0]],
        "memory_bytes": memory[best],
    }
