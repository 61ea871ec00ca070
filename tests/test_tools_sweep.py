"""Sweeps: all points checked first, one folder each, judged on validation, and a table of how they ended."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from convnext_jax.config import OptimConfig
from convnext_jax.errors import UserError
from convnext_jax.report import curves
from convnext_jax.run.signals import StopSignals
from convnext_jax.tools.sweep import __main__ as command
from convnext_jax.tools.sweep import runner
from convnext_jax.tools.sweep.points import Point, read_points
from convnext_jax.tools.sweep.results import FIGURES, results_table, short_labels, write_results
from convnext_jax.tools.sweep.runner import run_sweep
from convnext_jax.workdir.claim import write_claim

SWEEPS = sorted((ROOT / "sweeps").glob("*.py"))
HELD_OUT = "--config.data.validation_fraction=0.2"


def points_of(folder: Path, points: str, *overrides: str, base: str = "configs/digits.py") -> list[Point]:
    file = folder / "sweep.py"
    file.write_text(f"BASE = {str(ROOT / base)!r}\nPOINTS = {points}\n")
    return read_points(file, [HELD_OUT, *overrides], folder / "runs")


RATES = '[{"optim.learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)]'


def test_a_point_is_its_settings_and_a_folder_that_says_which(tmp_path: Path):
    points = points_of(tmp_path, RATES, "--config.run.epochs=5")
    assert [point.experiment.optim.learning_rate for point in points] == [1e-3, 2e-3, 4e-3]
    assert {(point.experiment.run.epochs, point.experiment.data.validation_fraction) for point in points} == {(5, 0.2)}
    assert all(re.fullmatch(r"learning_rate=0\.00[124]-[0-9a-f]{8}", point.workdir.name) for point in points)
    assert points[1].arguments[2:] == ("--config.optim.learning_rate=0.002", HELD_OUT, "--config.run.epochs=5")
    longer = points_of(tmp_path, RATES, "--config.run.epochs=6")
    assert not {point.workdir for point in points} & {point.workdir for point in longer}


def test_values_that_differ_are_listed_for_every_point(tmp_path: Path):
    first, second = points_of(tmp_path, '[{"model.depths": (1, 1, 2, 1), "augment.flip": "none"}, {"optim.b2": 0.99}]')
    assert first.values == {"model.depths": (1, 1, 2, 1), "optim.b2": 0.999}
    assert second.values == {"model.depths": (2, 2, 6, 2), "optim.b2": 0.99}
    assert first.workdir.name.startswith("depths=_1_1_2_1_-b2=0.999-")
    assert first.experiment.to_dict()["model"]["depths"] == (1, 1, 2, 1) and second.experiment.augment.flip == "none"


@pytest.mark.parametrize(
    ("points", "overrides", "message"),
    [
        ('[{}, {"optim.lr": 1e-3}]', (), r"sweep\.py, point 2: config\.optim\.lr: there is no such field"),
        ('[{"model.name": "convnext_big"}]', (), r"point 1: config\.model\.name: unknown model 'convnext_big'"),
        ('[{"run.batch_size": 0}]', (), r"point 1: config\.run\.batch_size=0: must be in"),
        ("[{}]", ("--config.data.validation_fraction=0",), r"judged on a validation split, never .*fraction=0\.1"),
        ('[{"run.seed": 1}, {}, {"run.seed": 1}]', (), r"points 1 and 3 are the same configuration"),
        (RATES, ("--config.optim.learning_rate=1e-4",), r"points 1 and 2 are the same configuration"),
        ('[{}, {"data.name": "cifar10"}]', (), r"the points differ in config\.data\.name or .* one of each for all"),
        ("[]", (), r"is no sweep: it needs BASE = .* and POINTS = "),
        ("[3]", (), r"point 1: 3 is no dictionary"),
        ("1 / 0", (), r"sweep\.py, line 2: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_any_point_is_said_before_the_first_starts(
    tmp_path: Path, points: str, overrides: tuple[str, ...], message: str
):
    with pytest.raises(UserError, match=message):
        points_of(tmp_path, points, *overrides)


def test_a_folder_of_pictures_needs_a_test_split_of_its_own(tmp_path: Path):
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    point = f'[{{"data.name": "image_folder", "data.data_dir": "{tmp_path}/pictures"}}]'
    with pytest.raises(UserError, match=r"has no folder val/, .*so config\.data\.validation_fraction makes the test"):
        points_of(tmp_path, point)
    (tmp_path / "pictures" / "val").mkdir()
    assert len(points_of(tmp_path, point)) == 1


def test_a_data_set_needs_a_test_split_of_its_own(tmp_path: Path):
    # What TFDS writes of a data set, as far as a sweep asks.
    version = tmp_path / "eurosat" / "1.0.0"
    version.mkdir(parents=True)

    def write_info(*splits: str) -> None:
        info = {"fileFormat": "array_record", "splits": [{"name": name, "shardLengths": ["10"]} for name in splits]}
        (version / "dataset_info.json").write_text(json.dumps(info))
        for name in splits:
            (version / f"eurosat-{name}.array_record-00000-of-00001").touch()

    write_info("train")
    point = f'[{{"data.name": "eurosat", "data.data_dir": "{tmp_path}"}}]'
    with pytest.raises(UserError, match=r"eurosat has no split to test on, so config\.data\.validation_fraction makes"):
        points_of(tmp_path, point)
    write_info("train", "validation")
    assert len(points_of(tmp_path, point)) == 1


def test_a_point_that_turns_out_to_be_judged_on_test_has_failed(tmp_path: Path):
    (point,) = points_of(tmp_path, "[{}]")
    point.workdir.mkdir(parents=True)
    final = {"step": 5, "test/loss": 0.5, "test/top1": 0.75, "test/top5": 1.0}
    point.summary.write_text(json.dumps({"split": "test", "seconds": 2.0, "final": final}))
    (outcome,), _ = run_sweep([point], training({}, []))
    assert outcome.figures is None and "no test split" in str(outcome.reason)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_sound_and_labelled(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert len(read_points(path, [], tmp_path)) > 1
    assert f"python -m convnext_jax.tools.sweep sweeps/{path.name}" in path.read_text()


def training(ends: dict[float, Any], trained: list[float]) -> Callable[[Point, StopSignals], int]:
    """A training by what it comes to: top-1 (or mean and deviation of it), a message, or an exit status."""

    def train(point: Point, signals: StopSignals) -> int:
        rate = point.experiment.optim.learning_rate
        trained.append(rate)
        point.workdir.mkdir(parents=True, exist_ok=True)
        match ends[rate]:
            case str(message):
                point.log.write_text(f"compiling\nerror: {message}\n")
                return 1
            case int(status):
                return status
            case (mean, std):
                summary = {"mean": figures(mean), "std": figures(std)}
            case top1:
                summary = {"final": {"step": 5, **figures(top1)}}
        point.summary.write_text(json.dumps({"split": "validation", "seconds": 2.0, **summary}))
        return 0

    return train


def figures(top1: float) -> dict[str, float]:
    return {"validation/loss": 1.0 - top1, "validation/top1": top1, "validation/top5": 1.0}


def test_points_are_ranked_and_a_failed_one_is_recorded(tmp_path: Path):
    trained: list[float] = []
    points = points_of(tmp_path, RATES)
    ends = {1e-3: 0.5, 2e-3: "the loss is nan at step 7", 4e-3: 0.75}
    outcomes, stopped_by = run_sweep(points, training(ends, trained))
    assert trained == [1e-3, 2e-3, 4e-3] and stopped_by is None
    write_results(outcomes, "a sweep", tmp_path)
    folders = [points[index].workdir.name for index in (2, 0, 1)]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in results_table(outcomes).splitlines()]
    assert cells[0] == ["optim.learning_rate", *FIGURES, "seconds", "folder"]
    assert cells[2:] == [
        ["0.004", "0.7500", "1.0000", "0.2500", "", "2", folders[0]],
        ["0.001", "0.5000", "1.0000", "0.5000", "", "2", folders[1]],
        ["0.002", "failed", "", "", "", "", folders[2]],
    ]
    text = (tmp_path / "sweep.md").read_text()
    assert results_table(outcomes) in text and f"`{folders[2]}`: exit status 1: the loss is nan at step 7" in text
    written = json.loads((tmp_path / "sweep.json").read_text())["points"]
    assert [point["folder"] for point in written] == folders
    assert written[0]["figures"] == figures(0.75) and written[0]["values"] == {"optim.learning_rate": 0.004}
    assert written[2]["figures"] is None and written[2]["reason"] == "exit status 1: the loss is nan at step 7"


def test_the_curves_are_of_what_each_point_is_judged_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    points = points_of(tmp_path, RATES, "--config.run.seeds=2")
    outcomes, _ = run_sweep(points, training({1e-3: (0.5, 0.1), 2e-3: "full", 4e-3: (0.75, 0.1)}, []))
    of_average = dataclasses.replace(outcomes[1].point.experiment, optim=OptimConfig(ema_decay=0.9))
    outcomes[1] = dataclasses.replace(outcomes[1], point=dataclasses.replace(outcomes[1].point, experiment=of_average))
    for seed in (0, 1):
        (points[0].workdir / f"seed_{seed}").mkdir()
        line = json.dumps({"step": 5, "epoch": 1.0, "seconds": 1.0, **figures(0.25 + seed / 4)})
        (points[0].workdir / f"seed_{seed}" / "metrics.jsonl").write_text(line + "\n")
    write_results(outcomes, "a sweep", tmp_path)
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    drawn: list[Any] = []
    monkeypatch.setattr(curves, "plot_comparison", lambda runs, path, title: drawn.extend(runs))
    write_results(outcomes, "a sweep", tmp_path)
    assert [(label, name) for label, name, _ in drawn] == [
        ("learning_rate=0.004", "validation/top1"),
        ("learning_rate=0.001", "validation_ema/top1"),
    ]
    assert [line["validation/top1"] for line in drawn[1][2]] == [0.25, 0.5] and drawn[0][2] == []


def test_points_are_ranked_by_the_metric_that_chooses_their_best_checkpoint(tmp_path: Path):
    points = points_of(tmp_path, RATES, "--config.optim.ema_decay=0.9")
    averages = dict(zip((1e-3, 2e-3, 4e-3), (0.25, 0.875, 0.5), strict=True))

    def train(point: Point, signals: StopSignals) -> int:
        rate = point.experiment.optim.learning_rate
        final = figures(1.0 - averages[rate]) | {"validation_ema/top1": averages[rate]}
        point.workdir.mkdir(parents=True)
        point.summary.write_text(json.dumps({"final": final, "seconds": 2.0}))
        return 0

    outcomes, _ = run_sweep(points, train)
    assert [outcome.point.experiment.optim.learning_rate for outcome in outcomes] == [2e-3, 4e-3, 1e-3]
    write_results(outcomes, "a sweep", tmp_path)
    assert "Ranked by the final `validation_ema/top1`." in (tmp_path / "sweep.md").read_text()


def test_points_of_several_families_are_compared(tmp_path: Path):
    points = points_of(tmp_path, '[{"model.name": "resnet18_small_stem"}, {"model.name": "convnext_atto"}]')
    assert [point.values for point in points] == [
        {"model.name": "resnet18_small_stem"},
        {"model.name": "convnext_atto"},
    ]


def test_of_many_fields_a_label_says_what_is_not_as_in_most(tmp_path: Path):
    values = ({}, {"model.stem": "patch2"}, {"optim.ema_decay": 0.5, "run.epochs": 3}, {"model.dropout": 0.5})
    base = {"model.stem": "patch4", "optim.ema_decay": 0.0, "run.epochs": 2, "model.dropout": 0.0}
    points = points_of(tmp_path, repr([base | change for change in values]))
    assert short_labels(points) == ["what most have in common", "stem=patch2", "ema_decay=0.5, epochs=3", "dropout=0.5"]


def test_the_mean_over_seeds_ranks_with_its_deviation(tmp_path: Path):
    ends = {1e-3: (0.5, 0.125), 2e-3: (0.75, 0.25), 4e-3: -9}
    outcomes, _ = run_sweep(points_of(tmp_path, RATES, "--config.run.seeds=2"), training(ends, []))
    assert [outcome.texts(FIGURES)[0] for outcome in outcomes] == ["0.7500 ± 0.2500", "0.5000 ± 0.1250", "failed"]
    assert outcomes[2].reason == "killed by SIGKILL"


def test_what_has_finished_is_not_trained_again_and_what_failed_is(tmp_path: Path):
    points, trained = points_of(tmp_path, RATES), []
    run_sweep(points, training({1e-3: 0.5, 2e-3: "no space left", 4e-3: 0.75}, trained))
    trained.clear()
    outcomes, _ = run_sweep(points, training({2e-3: 0.625}, trained))
    assert trained == [2e-3]
    assert [outcome.texts(FIGURES)[0] for outcome in outcomes] == ["0.7500", "0.6250", "0.5000"]


def test_a_signal_ends_the_sweep_and_the_same_command_goes_on(tmp_path: Path):
    points, trained = points_of(tmp_path, RATES), []
    train = training({1e-3: 0.5, 2e-3: 75, 4e-3: 0.75}, trained)

    def signalled(point: Point, signals: StopSignals) -> int:
        status = train(point, signals)
        if point is points[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return status

    outcomes, stopped_by = run_sweep(points, signalled)
    assert stopped_by == "SIGTERM" and trained == [1e-3] and len(outcomes) == 1, "the point that ran came to its end"
    outcomes, stopped_by = run_sweep(points, train)
    assert stopped_by and trained == [1e-3, 2e-3], "a point that was stopped is no failed one"
    outcomes, stopped_by = run_sweep(points, training({2e-3: 0.25, 4e-3: 0.75}, trained))
    assert stopped_by is None and trained[2:] == [2e-3, 4e-3] and len(outcomes) == 3


# Stands for train.py: the first time it has a signal sent to the sweep and saves when it gets one itself.
STAND_IN = """
import json, os, pathlib, signal, sys, time
workdir = pathlib.Path(sys.argv[-1])
print(*sys.argv[1:], flush=True)
def save(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
if not (workdir / "begun").exists():
    (workdir / "begun").touch()
    os.kill(os.getppid(), signal.{number})
    time.sleep(60)
figures = {{"validation/loss": 1.0, "validation/top1": 0.5, "validation/top5": 1.0}}
(workdir / "summary.json").write_text(json.dumps({{"final": figures, "seconds": 3.0}}))
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_is_passed_on_and_the_point_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: str
):
    (tmp_path / "train.py").write_text(STAND_IN.format(number=number))
    monkeypatch.setattr(runner, "TRAIN", (str(tmp_path / "train.py"),))
    (point,) = points_of(tmp_path, "[{}]")
    monkeypatch.setattr(
        sys, "argv", ["sweep", str(tmp_path / "sweep.py"), "--workdir", str(tmp_path / "runs"), HELD_OUT]
    )
    with pytest.raises(SystemExit, match="75"):
        command.main()
    assert f"{number}: 0 of 1 points are done in {tmp_path}/runs; run the same command" in capsys.readouterr().err
    arguments = f"--config {ROOT}/configs/digits.py {HELD_OUT} --workdir {point.workdir}"
    assert point.log.read_text().splitlines() == [arguments, "saved"]
    command.main()
    assert point.log.read_text().splitlines() == [arguments, "saved", arguments]
    assert "| 0.5000          | 1.0000          |" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs" / "sweep.json").read_text())["points"][0]["seconds"] == 3.0


def test_the_workdir_of_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (point,) = points_of(tmp_path, "[{}]")
    write_claim(tmp_path / "runs", point.experiment)
    monkeypatch.setattr(
        sys, "argv", ["sweep", str(tmp_path / "sweep.py"), "--workdir", str(tmp_path / "runs"), HELD_OUT]
    )
    monkeypatch.setattr(command, "run_sweep", lambda *arguments: ([], "nothing"))
    with pytest.raises(UserError, match=r"runs is the workdir of a run of train\.py; choose another --workdir"):
        command.main()


def test_the_command_with_a_point_that_train_refuses(tmp_path: Path):
    (point,) = points_of(tmp_path, "[{'run.batch_size': 1200}]")
    command = (sys.executable, "-m", "convnext_jax.tools.sweep", tmp_path / "sweep.py")
    done = subprocess.run(
        [*map(str, command), "--workdir", str(tmp_path / "runs"), HELD_OUT], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: none of the 1 points came to its end"
    (outcome,) = json.loads((tmp_path / "runs" / "sweep.json").read_text())["points"]
    assert outcome["folder"] == point.workdir.name and outcome["figures"] is None
    assert outcome["reason"] == (
        "exit status 2: config.run.batch_size=1200 is larger than digits's 1151 training images"
    )
