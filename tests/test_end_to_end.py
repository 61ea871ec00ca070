"""The commands as a user runs them: processes of their own, real digits, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import QUICK_COMPILATION, ROOT

from convnext_jax.workdir.lock import WorkdirLock

# A network that compiles in seconds.
OVERRIDES = (
    "--config.model.depths=(1,1,1,1)",
    "--config.model.dims=(16,16,32,32)",
    "--config.model.kernel_size=3",
    "--config.run.epochs=2",
    "--config.optim.warmup_epochs=1",
    "--config.run.steps_per_dispatch=2",
    "--config.run.eval_every_epochs=1",
    "--config.run.batch_size=128",
    "--config.optim.ema_decay=0.9",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Compiled programs are kept between the processes, so that the one training step is compiled once."""
    cache = tmp_path_factory.mktemp("cache")
    optimized = os.environ["XLA_FLAGS"].replace(QUICK_COMPILATION, "")
    return os.environ | {
        "XLA_FLAGS": optimized,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


def train_command(workdir: Path) -> tuple[str, ...]:
    return ("train.py", "--config", "configs/digits.py", "--workdir", str(workdir), *OVERRIDES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    done = run(*train_command(workdir), env=environment)
    assert done.returncode == 0, done.stderr
    assert "done: test top-1 0." in done.stdout
    return workdir


def figures_of(workdir: Path) -> list[tuple[float, ...]]:
    names = ("step", "train/loss", "train/grad_norm", "test/loss", "test/top1")
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [tuple(line.get(name, 0.0) for name in names) for line in lines]


@pytest.mark.parametrize(("batch_size", "weights"), [("77", "raw"), ("500", "ema")])
def test_evaluation_gives_the_figures_of_the_end_of_training(
    trained: Path, environment: dict[str, str], tmp_path: Path, batch_size: str, weights: str
):
    done = run(
        *("evaluate.py", "--workdir", str(trained), "--weights", weights),
        *("--batch_size", batch_size, "--output", str(tmp_path / "out")),
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    final = json.loads((trained / "summary.json").read_text())["final"]
    split = {"raw": "test", "ema": "test_ema"}[weights]
    assert evaluation["top1"] == final[f"{split}/top1"]
    assert evaluation["top5"] == final[f"{split}/top5"]
    assert evaluation["loss"] == pytest.approx(final[f"{split}/loss"], rel=1e-6)
    assert evaluation["step"] == final["step"] and evaluation["examples"] == 359
    assert f"{evaluation['top1']:.2%}" in done.stdout


def test_evaluation_runs_on_other_devices(trained: Path, environment: dict[str, str], tmp_path: Path):
    env = environment | {"JAX_NUM_CPU_DEVICES": "3"}
    done = run("evaluate.py", "--workdir", str(trained), "--output", str(tmp_path), "--step", "best", env=env)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    best = json.loads((trained / "summary.json").read_text())["best"]
    assert evaluation["top1"] == pytest.approx(best["test/top1"], abs=1e-9)
    assert evaluation["device"].startswith("3 x ")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_a_run_that_is_killed_and_started_again_is_the_run_that_was_not(
    trained: Path, environment: dict[str, str], tmp_path: Path, number: signal.Signals, status: int
):
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, *train_command(workdir)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    log = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    # Three lines: well before the first evaluation; a kill then loses everything, a signal nothing.
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") >= 3):
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert len(figures_of(workdir)) < len(figures_of(trained)), "the run was over before the signal came"
    if status == 75:
        assert f"{number.name}: saved step" in errors and "run the same command to go on" in errors
    done = run(*train_command(workdir), env=environment)
    assert done.returncode == 0, done.stderr
    assert ("resuming at" in done.stderr) == (status == 75)
    assert figures_of(workdir) == figures_of(trained)


def test_a_workdir_that_another_run_has_is_refused(trained: Path):
    with WorkdirLock(trained):
        done = run(*train_command(trained))
    assert done.returncode == 2 and f"is in use by process {os.getpid()} on" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_signal_in_a_start_ends_it_at_once(environment: dict[str, str], tmp_path: Path, seconds: float):
    command = [sys.executable, *train_command(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert errors.splitlines()[-1] == "SIGTERM: nothing new to save; run the same command to go on"


def test_another_configuration_in_the_same_workdir_is_refused(trained: Path):
    done = run(*train_command(trained), "--config.run.seed=5")
    assert done.returncode == 2
    assert "belongs to another configuration (run.seed: 0 there, 5 now)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.py",), "the following arguments are required: --config"),
        (("train.py", "--config", "configs/digit.py"), "there is no file configs/digit.py; configs holds "),
        (("train.py", "--config", "configs/digits.py", "--workdr=x"), "unknown flag --workdr"),
        (("train.py", "--config", "configs/digits.py", "--config.run.bach_size=3"), "did you mean 'batch_size'?"),
        (
            ("train.py", "--config", "configs/digits.py", "--config.run.batch_size=many"),
            "config.run.batch_size='many': must be of type int",
        ),
        (("train.py", "--config", "configs/digits.py", "--config.run.batch_size=0"), "config.run.batch_size=0: must"),
        (("train.py", "--config", "configs/digits.py", "stray"), "unexpected argument 'stray'"),
        (("train.py", "--config", "configs/digits.py", "--config.model.name=convnext_big"), "did you mean "),
        (
            ("train.py", "--config", "configs/digits.py", "--config.model.name=resnet18", "--config.model.grn=True"),
            "config.model.grn: resnet18 has no such field; allowed: name, drop_path, ",
        ),
        (("evaluate.py",), "the following arguments are required: --workdir"),
        (("evaluate.py", "--workdir", "configs"), "configs is no workdir of train.py"),
        (("evaluate.py", "--workdir", "configs", "--batch_size", "0"), "--batch_size 0: must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: tuple[str, ...], message: str):
    done = run(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def test_print_config_shows_everything_and_exits(tmp_path: Path):
    done = run("train.py", "--config", "configs/digits.py", "--config.run.seed=7", "--print_config")
    assert done.returncode == 0
    config = json.loads(done.stdout)
    assert config["run"]["seed"] == 7 and config["data"]["name"] == "digits"
    assert set(config) == {"model", "task", "data", "augment", "optim", "run"}
