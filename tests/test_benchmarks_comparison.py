"""The comparison with other systems: same network, the conversation with workers, the figures, the table."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from tiny import tiny_model

from benchmarks import compare
from benchmarks.comparison.case import Case
from benchmarks.comparison.figures import paired_ratio, part_figures
from benchmarks.comparison.machine import Usage
from benchmarks.comparison.plain_jax_model import predict
from benchmarks.comparison.protocol import Job
from benchmarks.comparison.record import make_record
from benchmarks.comparison.rounds import Disagreement, Times, WarmUp, check_agreement, measure_rounds, warm_up
from benchmarks.comparison.systems import CPU_SYSTEMS, GPU_SYSTEMS, SYSTEMS
from benchmarks.comparison.table import BEGIN, END, insert_table, page_table, result_table
from benchmarks.comparison.worker import Worker, WorkerFailed
from convnext_jax.errors import UserError
from convnext_jax.models.parameters import flat, merge_model, nested, split_model

CASE = Case("convnext_atto", (1, 1, 1, 1), (8, 8, 16, 16), "patch2", (2, 2, 0), 16, 2, 3, 1)


# --- the plain network


def test_plain_jax_is_the_same_network() -> None:
    definition, params, _ = split_model(tiny_model(drop_path=0.0))
    rng = np.random.default_rng(0)
    weights = {
        path: jnp.asarray(rng.standard_normal(leaf.shape).astype(np.float32) / 3) for path, leaf in flat(params).items()
    }
    images = rng.standard_normal((2, 16, 16, 3)).astype(np.float32)
    found = predict(weights, jnp.asarray(images), (1, 1, 1, 1), (2, 2, 0))
    wanted = merge_model(definition, nested(weights))(images)
    assert np.std(wanted) > 0.1
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


# --- the conversation


def start(folder: Path, name: str = "fake", **options: Any) -> Worker:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "fake_worker"]
    return Worker(name, command, environment, Job(CASE, options, folder).to_json(), folder / f"{name}.log")


def test_a_worker_answers_whatever_its_libraries_print(tmp_path: Path) -> None:
    with start(tmp_path, seconds=0.02, shift=1.5) as worker:
        assert worker.description["parameters"] == 5
        warm = warm_up(worker, 4, tmp_path)
        seconds, _ = worker.measure("forward", 5)
    np.testing.assert_array_equal(warm.logits, np.full((2, 3), 2.5, np.float32))
    assert warm.parameters == 5 and warm.loss == 0.5
    assert 0.02 <= seconds < 0.1  # of one
    assert "a library prints" in (tmp_path / "fake.log").read_text()


def test_a_worker_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="^fake ended: RuntimeError: no such device; all of it in .*fake.log$"):
        start(tmp_path, broken=True)
    with start(tmp_path, fail_at=3) as worker:
        worker.call("step", 2)
        with pytest.raises(WorkerFailed, match="fake ended: out of memory"):
            worker.call("step", 1)


def test_systems_take_turns_and_each_round_begins_with_another(tmp_path: Path) -> None:
    calls = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def measure(self, part: str, count: int) -> tuple[float, float]:
            calls.append((self.name, part, count))
            return float(len(calls)), 0.01 * len(calls)

    workers: Any = {name: Recorder(name) for name in ("a", "b")}
    times = measure_rounds(workers, rounds=2, count=3, report=lambda line: None)
    assert [(name, part) for name, part, _ in calls] == [
        (name, part) for name in ("a", "b", "b", "a") for part in ("forward", "step", "product")
    ]
    assert {count for _, _, count in calls} == {3}
    assert times["a"]["step"].seconds == [2.0, 11.0] and times["b"]["step"].seconds == [5.0, 8.0]
    assert times["a"]["step"].disturbed == pytest.approx(0.11)


def test_another_network_is_refused(tmp_path: Path) -> None:
    def warmed(**options: Any) -> WarmUp:
        with start(tmp_path, **options) as worker:
            return warm_up(worker, 2, tmp_path)

    reference = warmed()
    assert check_agreement("same", warmed(), reference, exact=True) == {"logits": 0.0, "loss": 0.0}
    near = warmed(shift=0.01)
    assert check_agreement("near", near, reference, exact=False)["logits"] == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(Disagreement, match="near computes another network: its logits differ .* by 1.0e-02"):
        check_agreement("near", near, reference, exact=True)
    with pytest.raises(Disagreement, match="its logits differ .* by nan"):
        check_agreement("broken", dataclasses.replace(near, logits=near.logits * np.nan), reference, exact=False)
    with pytest.raises(Disagreement, match="its loss differ"):
        check_agreement("other", dataclasses.replace(reference, loss=1.1), reference, exact=False)
    with pytest.raises(Disagreement, match="other has 6 parameters, the reference 5"):
        check_agreement("other", warmed(parameters=6), reference, exact=True)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux alone tells")
def test_the_time_of_others_is_seen() -> None:
    usage = Usage(os.getpid())
    # Of another process; its own time would not count.
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    assert usage.taken_by_others(wall=0.5) > 0.5 / (os.cpu_count() or 1) * 0.8


# --- the figures


def test_ratios_are_paired_by_round() -> None:
    # Slow and fast minutes of a machine: the medians' ratio would be 1.
    ours, theirs = [1.0, 1.0, 4.0, 8.0, 8.0], [2.0, 2.0, 8.0, 4.0, 4.0]
    assert dataclasses.astuple(paired_ratio(theirs, ours)) == (2.0, 0.5, 2.0, 0.5, 2.0)
    with pytest.raises(ValueError, match="longer"):
        paired_ratio([1.0], [1.0, 2.0])


def test_the_share_of_the_ceiling_counts_two_operations_forward_and_six_a_step() -> None:
    for part, operations in (("forward", 2), ("step", 6)):
        found = part_figures(part, [0.5, 0.5], [0.25, 0.5], images=10, macs=100, ceiling=1e4)
        assert found["share_of_ceiling"] == pytest.approx(operations * 100 * 10 / 0.5 / 1e4)
        assert found["images_per_second"] == 20 and found["milliseconds"]["median"] == 500
        assert found["ratio"]["median"] == 1.5


def made_record() -> dict[str, Any]:
    """Two rounds of three systems, the middle one the fastest forward."""

    def times(*seconds: float) -> dict[str, Times]:
        return {
            part: Times([factor * each for each in seconds])
            for part, factor in (("forward", 1.0), ("step", 3.0), ("product", 0.1))
        }

    measured = {"convnext_jax": times(0.1, 0.2), "torch_eager": times(0.3, 0.6), "torch_compiled": times(0.2, 0.5)}
    said = {"versions": {}, "device": "cpu", "parameters": 5, "product_flops": 100, "environment": {"processor": "a"}}
    descriptions = dict.fromkeys(measured, said)
    return make_record(CASE, 1, descriptions, dict.fromkeys(measured, {}), measured, {"rounds": 2})


def test_the_figures_of_a_record_are_in_its_tables() -> None:
    record = json.loads(json.dumps(made_record()))
    assert record["ceiling_flops_per_second"] == {"float32": pytest.approx(100 / 0.015)}
    assert record["systems"]["torch_eager"]["forward"]["ratio"]["median"] == pytest.approx(3.0)
    assert re.search(r"training step torch_compiled +1050\.0 \(825\.0-1275\.0\)", result_table(record))
    row = page_table({"a.json": record}).splitlines()[-1]
    assert row == (
        "| [training step, `convnext_atto`, `patch2`, 16 px, batch 2](a.json) | 450 ms, 4 images/s"
        " | 0% | 1050 ms (`torch_compiled`) | **2.25** | |"
    )


def test_a_table_takes_the_place_of_the_one_before() -> None:
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert insert_table(text, "| new |") == f"above\n{BEGIN}\n| new |\n{END}\nbelow\n"
    with pytest.raises(UserError, match="needs"):
        insert_table("no marks", "| new |")


# --- the command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "convnext_jax,torch_eagre"], r"unknown system 'torch_eagre': did you mean 'torch_eager'\?"),
        (["--systems", "torch_eager"], "the first is torch_eager; it must be convnext_jax or convnext_jax_bfloat16"),
        (["--systems", "convnext_jax,convnext_jax"], "names a system twice"),
        (["--model", "convnextv2_tiny"], r"'convnextv2_tiny' is not compared: did you mean 'convnext_tiny'\?"),
        (["--stem", "conv7x7_patch2"], "--stem: 'conv7x7_patch2' is not compared"),
        (["--image_size", "16"], "images of 16x16 pixels are too small"),
        (["--env", "MALLOC"], "--env MALLOC: it must read NAME=VALUE"),
        (["--torch_python", "absent/python"], "there is no program absent/python"),
        (["--output", "absent/a.json"], "there is no folder absent"),
    ],
)
def test_mistakes_are_refused(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    with pytest.raises(UserError, match=message):
        compare.main()


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/compare.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_mistake_is_told_in_one_line() -> None:
    done = run_command("--batch_size", "0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "'0' is not a positive whole number" in done.stderr


def test_plain_jax_takes_the_same_steps(tmp_path: Path) -> None:
    case = ("--model", "convnext_atto", "--stem", "patch2", "--image_size", "16", "--batch_size", "2")
    systems = ("--systems", "convnext_jax,plain_jax", "--rounds", "1", "--steps", "1")
    done = run_command(*case, *systems, "--output", str(tmp_path / "record.json"))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    ours, plain = record["systems"]["convnext_jax"], record["systems"]["plain_jax"]
    assert ours["parameters"] == plain["parameters"] > 3_000_000 and ours["difference"] == {"logits": 0.0, "loss": 0.0}
    # Two programs round differently, unless one of them is the other.
    assert 0 < plain["difference"]["logits"] < 1e-4 and plain["difference"]["loss"] < 1e-3
    assert ours["step"]["ratio"]["median"] == 1 and plain["step"]["ratio"]["median"] > 0
    assert done.stdout.endswith(result_table(record) + "\n")


def test_the_table_of_systems_is_whole() -> None:
    for name, kind in SYSTEMS.items():
        assert (ROOT / "benchmarks" / "comparison" / f"{kind.worker}.py").is_file(), name
        assert not kind.requirements or (ROOT / "benchmarks" / kind.requirements).is_file(), name
    assert {*CPU_SYSTEMS, *GPU_SYSTEMS} <= SYSTEMS.keys()
