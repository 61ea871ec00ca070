"""Accuracy against time, from records of runs."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.frontier import frontier_chart, runs_of
from convnext_jax.errors import UserError


def write(path: Path, record: object) -> Path:
    path.write_text(json.dumps(record))
    return path


def test_runs_with_one_seed_and_with_several_are_drawn(tmp_path: Path) -> None:
    curve = [
        {"epoch": 1, "seconds": 60.0, "train/loss": 2.0},  # not evaluated
        {"epoch": 2, "seconds": 120.0, "test/top1": 0.25},
        {"epoch": 3, "seconds": 180.0, "test/top1": 0.5},
    ]
    alone = runs_of(write(tmp_path / "alone.json", {"curve": curve}))
    both = runs_of(write(tmp_path / "both.json", {"curves": {"0": curve, "1": curve[1:2]}}))
    assert alone == [("alone", [2.0, 3.0], [0.25, 0.5])]
    assert both == [("both, seed 0", [2.0, 3.0], [0.25, 0.5]), ("both, seed 1", [2.0], [0.25])]
    (axes,) = frontier_chart(alone + both).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "alone: 50.0%",
        "both, seed 0: 50.0%",
        "both, seed 1: 25.0%",
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"points": []}, "is no record of a run: .*; make one with record_run.py"),
        ([1], "is no record of a run"),
        ({"curve": [{"seconds": 1.0, "validation/top1": 0.5}]}, "has no test/top1: .* leave it out"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, record: object, message: str) -> None:
    path = write(tmp_path / "other.json", record)
    with pytest.raises(UserError, match=f"{re.escape(str(path))} {message}"):
        runs_of(path)
