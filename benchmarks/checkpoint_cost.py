"""What a checkpoint costs: how long training stands still, how much it slows the steps beside it, and its verification.

    python benchmarks/checkpoint_cost.py --config configs/cifar100_cpu.py --output benchmarks/results/NAME.json

Rounds of calls to the device with one save in each, and rounds without, take turns. Their difference is what a save
costs in all. The data are noise of the shape of the data set, since the step does not depend on what the pictures show.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from convnext_jax.data import Dataset, Split
from convnext_jax.run.environment import describe_environment
from convnext_jax.run.prepare import initial_state, make_plan, put_data
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.storage.files import write_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.checkpoint_folder import ITEMS, set_damaged_aside
from convnext_jax.workdir.checkpoints import Checkpoints

STEPS = 5  # of a call


def noise(classes: int, size: int, count: int = 2000) -> Dataset:
    """Returns a data set of pictures that show nothing."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    split = Split(images, (np.arange(count) % classes).astype(np.int32))
    half = np.full(3, 0.5, np.float32)
    return Dataset("noise", split, split, tuple(map(str, range(classes))), half, half / 2)


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--config", required=True, metavar="FILE")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=6, help="in a round")
    parser.add_argument("--output", type=Path)
    arguments, overrides = parser.parse_known_args()
    if arguments.output is not None:
        check_new_file("--output", arguments.output)
    experiment = command_line.load_experiment(arguments.config, overrides)
    dataset = noise(arguments.classes, arguments.size)
    plan = make_plan(experiment, dataset, Sharding(make_mesh()))
    source, _ = put_data(plan, dataset)
    state = initial_state(plan)
    seed, steps = jax.device_put((np.uint32(0), np.int32(STEPS)), plan.spec.sharding.replicated)
    size = plan.image_size_at(0)
    with StepCompiler() as compiler, tempfile.TemporaryDirectory() as folder:
        compiler.begin([size], plan.spec, plan.state)
        call = compiler.wait_for(size)
        feed = source.feed(0, STEPS)
        directory = Path(folder) / "checkpoints"
        seconds: dict[bool, list[float]] = {False: [], True: []}
        blocked: list[float] = []
        with Checkpoints(directory) as checkpoints:
            for number in range(2 * arguments.rounds + 2):
                saves = number % 2 == 1
                began = time.monotonic()
                for index in range(arguments.calls):
                    state, metrics = call(state, feed, steps, seed)
                    jax.block_until_ready(metrics)
                    if saves and index == 0:
                        stands = time.monotonic()
                        checkpoints.save(number, {name: getattr(state, name) for name in ITEMS})
                        blocked.append(time.monotonic() - stands)
                checkpoints.wait()
                if number >= 2:  # the first of each kind warms up
                    seconds[saves].append(time.monotonic() - began)
            written = max(directory.glob("[0-9]*"), key=lambda path: int(path.name))
            size_in_bytes = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
        began = time.monotonic()
        assert set_damaged_aside(directory) == []
        verified = time.monotonic() - began
    pairs = zip(seconds[True], seconds[False], strict=True)
    cost = statistics.median(with_save - without for with_save, without in pairs)
    interval = 60 * experiment.run.checkpoint_minutes
    content = {
        "config": arguments.config,
        "model": experiment.model.name,
        "megabytes": round(size_in_bytes / 1e6, 1),
        "round_seconds_median": {
            "without a save": statistics.median(seconds[False]),
            "with": statistics.median(seconds[True]),
        },
        "save_costs_seconds": cost,
        "save_blocks_seconds": statistics.median(blocked[1:]),
        "share_of_training_at_the_default_interval": cost / interval,
        "verification_seconds": verified,
        "rounds": arguments.rounds,
        "environment": describe_environment(),
    }
    command_line.print_fields({name: value for name, value in content.items() if name != "environment"})
    if arguments.output:
        write_json(arguments.output, content)


if __name__ == "__main__":
    command_line.run_main(main)
