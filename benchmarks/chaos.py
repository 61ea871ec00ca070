"""Ends real runs at random instants, again and again, and compares what comes out with a run that nothing happened to.

    python benchmarks/chaos.py --kills 50 --terms 20 --output benchmarks/results/NAME.json

Each run trains a small network with a moving average on the digits and saves every 16 steps. A SIGKILL comes at any
instant: in a start, a compilation, an evaluation or a save. So does a SIGTERM, which must end the process within ten
seconds, with status 75, or with 0 if the run was done. In the end parameters, optimizer, moving average and log must
have the bits of the undisturbed run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

sys.path.insert(0, str(Path(__file__).parent.parent))

from convnext_jax.errors import EXIT_FAILURE, EXIT_TEMPFAIL
from convnext_jax.run.environment import describe_environment
from convnext_jax.storage.files import write_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.workdir.metrics_log import read_metrics

ROOT = Path(__file__).parent.parent
ARGUMENTS = (
    "--config=configs/digits.py",
    "--config.model.depths=(1,1,1,1)",
    "--config.model.dims=(16,16,32,32)",
    "--config.model.kernel_size=3",
    "--config.optim.ema_decay=0.9",
    "--config.optim.warmup_epochs=1",
    "--config.run.epochs=10",
    "--config.run.eval_every_epochs=4",
    "--config.run.steps_per_dispatch=4",
    "--config.run.checkpoint_steps=16",
)
CLOCKS = ("seconds", "train/images_per_second")
PATIENCE = 10.0  # seconds that a SIGTERM may take


def start(workdir: Path) -> subprocess.Popen[str]:
    """Starts the run, or goes on with it."""
    command = [sys.executable, str(ROOT / "train.py"), *ARGUMENTS, f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(workdir: Path) -> float:
    """Runs it to its end; returns the seconds."""
    began = time.monotonic()
    process = start(workdir)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"status {process.returncode}: {errors}")
    return time.monotonic() - began


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Returns all arrays of the last checkpoint."""
    folder = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    found = {}
    for item in ("params", "opt_state", "ema"):
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(folder / item)
        found |= {
            f"{item}{jax.tree_util.keystr(path)}": np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
    return found  # fmt: skip


def lines(workdir: Path) -> list[dict[str, float]]:
    """Returns the log without its clocks."""
    return [
        {name: value for name, value in line.items() if name not in CLOCKS}
        for line in read_metrics(workdir / "metrics.jsonl")
    ]


def differing_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> int:
    """Returns in how many bits two sets of arrays differ."""
    if one.keys() != other.keys():
        return -1
    return sum(
        int(np.unpackbits(np.frombuffer(a.tobytes(), np.uint8) ^ np.frombuffer(other[name].tobytes(), np.uint8)).sum())
        for name, a in one.items()
    )


def disturb(folder: Path, number: signal.Signals, count: int, seconds: float, draw: random.Random) -> dict[str, Any]:
    """Sends a signal so many times to one run after another; returns what happened and the workdirs."""
    statuses: dict[int, int] = {}
    slowest, faults = 0.0, []
    workdirs = [folder / f"{number.name}_0"]
    for _ in range(count):
        if (workdirs[-1] / "summary.json").exists():
            workdirs.append(folder / f"{number.name}_{len(workdirs)}")
        process = start(workdirs[-1])
        time.sleep(draw.uniform(0.1, 1.1 * seconds))
        asked = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate()
        slowest = max(slowest, time.monotonic() - asked)
        statuses[process.returncode] = statuses.get(process.returncode, 0) + 1
        expected = (0, -signal.SIGKILL) if number == signal.SIGKILL else (0, EXIT_TEMPFAIL)
        if process.returncode not in expected or "Traceback" in errors:
            faults.append(f"status {process.returncode}: {errors[-2000:]}")
    return {"sent": count, "statuses": statuses, "slowest_seconds": slowest, "faults": faults, "workdirs": workdirs}


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("--kills", type=int, default=50, help="how many SIGKILLs (default: 50)")
    parser.add_argument("--terms", type=int, default=20, help="how many SIGTERMs (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the record is written")
    options = parser.parse_args()
    if options.output is not None:
        check_new_file("--output", options.output)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = temporary  # the first starts compile
        finish(folder / "warm")
        seconds = finish(folder / "undisturbed")
        expected = arrays(folder / "undisturbed"), lines(folder / "undisturbed")
        print(f"undisturbed: {seconds:.1f} s, {expected[1][-1]['step']} steps", flush=True)
        record: dict[str, Any] = {"arguments": ARGUMENTS, "seconds_undisturbed": seconds}
        for number, count in ((signal.SIGKILL, options.kills), (signal.SIGTERM, options.terms)):
            found = disturb(folder, number, count, seconds, draw)
            workdirs = found.pop("workdirs")
            for workdir in workdirs:
                finish(workdir)
            found["runs"] = len(workdirs)
            found["differing_bits"] = [differing_bits(arrays(workdir), expected[0]) for workdir in workdirs]
            found["equal_logs"] = [lines(workdir) == expected[1] for workdir in workdirs]
            record[number.name] = found
            print(number.name, json.dumps(found), flush=True)
    bad = any(
        found["faults"] or any(found["differing_bits"]) or not all(found["equal_logs"])
        for found in (record["SIGKILL"], record["SIGTERM"])
    )
    bad |= record["SIGTERM"]["slowest_seconds"] > PATIENCE
    if options.output is not None:
        write_json(options.output, record | {"environment": describe_environment()})
    sys.exit(EXIT_FAILURE if bad else 0)


if __name__ == "__main__":
    command_line.run_main(main)
