"""What real data and augmentation cost: training throughput against the same step fed one constant batch.

    python benchmarks/input_overhead.py --config configs/cifar100.py --output benchmarks/results/NAME.json

Both programs take the same steps with the same model and optimiser; the one gathers each batch from the resident data
set by a fresh permutation and augments it as the config says, the other uses one batch again and again, untouched.
Calls alternate, and the ratio is the median over the pairs.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

from convnext_jax import command_line, data, preparation
from convnext_jax.config import AugmentConfig
from convnext_jax.data.resident import Batch
from convnext_jax.distributed import batch_sharded, make_mesh, replicated, use_all_cores
from convnext_jax.environment import describe_environment
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import compile_train_steps, train_step


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--config", required=True, help="the experiment whose step is measured")
    parser.add_argument("--steps", type=int, default=10, help="steps a call")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of calls")
    parser.add_argument("--output", type=Path, help="the JSON file to write")
    options, overrides = parser.parse_known_args()
    experiment = command_line.load_experiment(options.config, overrides)
    steps_per_epoch = len(data.load(experiment.data).train) // experiment.run.batch_size
    steps = preparation.largest_divisor(steps_per_epoch, options.steps)
    seconds = measure(*build(experiment, steps), pairs=options.pairs)
    ratios = [constant / real for real, constant in seconds]
    images = steps * experiment.run.batch_size
    result = {
        "benchmark": "input_overhead",
        "config": options.config,
        "overrides": overrides,
        "steps_per_call": steps,
        "images_per_second_real": images / statistics.median(real for real, _ in seconds),
        "images_per_second_constant": images / statistics.median(constant for _, constant in seconds),
        "throughput_ratio_median": statistics.median(ratios),
        "throughput_ratios": ratios,
        "environment": describe_environment(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n")


def build(experiment: Any, steps: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Two functions without arguments, each a call of so many steps that returns when the device is done."""
    dataset = data.load(experiment.data)
    use_all_cores(experiment.run.batch_size)
    mesh = make_mesh()
    preparation.check_against_data(experiment, dataset, mesh)
    seed = jax.device_put(jnp.uint32(0), replicated(mesh))

    run, state = preparation.prepare(experiment, dataset, mesh)
    real = compile_train_steps(run.program, state, run.train, seed, steps)
    program = dataclasses.replace(run.program, augment=AugmentConfig(crop_padding=0, flip="none"))
    indices = jnp.arange(program.batch_size, dtype=jnp.int32)
    images, labels, indices = jax.device_put((*run.train.take(indices), indices), batch_sharded(mesh))
    batch = Batch(images, labels, indices, jax.device_put(jnp.int32(0), replicated(mesh)))

    def constant_steps(state: TrainState, batch: Batch, seed: jax.Array) -> Any:
        return jax.lax.scan(lambda state, _: train_step(program, state, batch, seed), state, length=steps)

    _, other = preparation.prepare(experiment, dataset, mesh)
    jitted = jax.jit(constant_steps, donate_argnums=0, out_shardings=replicated(mesh))
    constant = jitted.lower(other, batch, seed).compile()
    return _repeater(real, state, run.train, seed), _repeater(constant, other, batch, seed)


def _repeater(call: Any, state: TrainState, inputs: Any, seed: jax.Array) -> Callable[[], None]:
    def once() -> None:
        nonlocal state
        state, metrics = call(state, inputs, seed)
        jax.block_until_ready(metrics)

    return once


def measure(real: Callable[[], None], constant: Callable[[], None], *, pairs: int) -> list[tuple[float, float]]:
    """Seconds of each of the two in each pair, after one pair that is not counted."""
    seconds = []
    for _ in range(pairs + 1):
        times = []
        for call in (real, constant):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        seconds.append((times[0], times[1]))
    return seconds[1:]


if __name__ == "__main__":
    command_line.run_main(main)
