"""The command that compares plans on more and more chips."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from PIL import Image

from convnext_jax.errors import UserError
from convnext_jax.tools import compare_plans

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a plan of 1,000 images on v5e chips that takes 10 ms, 2 ms of them for collectives, with changes."""

    def write(name: str, settings: dict[str, Any] | None = None, **changes: Any) -> Path:
        plan = {
            "settings": {
                "model": {"name": "convnext_tiny"},
                "optim": {"b1": 0.9},
                "run": {"batch_size": 1000, "fsdp": 1, "epochs": 200, "seed": 0},
            }
            | (settings or {}),
            "topology": f"v5e:1x{changes.get('chips', 4)}",
            "chip": {"name": "v5e"},
            "chips": 4,
            "batch_size": 1000,
            "refusal": "",
            "modeled_step_seconds": 0.01,
            "roofline_seconds": {"arithmetic": 1.0, "memory": 1.0, "interconnect": 0.002},
            "cycles_by_kind": {"products": 3000, "optimizer": 1000},
        }
        (tmp_path / name).write_text(json.dumps(plan | changes))
        return tmp_path / name

    return write


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_plans", *map(str, arguments)])
    compare_plans.main()


def test_a_row_for_each_plan_from_the_fewest_chips_to_the_most(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many = write("many.json", chips=8, modeled_step_seconds=0.008)
    other = {"model": {"name": "convnext_tiny"}, "optim": {"b1": 0.9}, "run": {"batch_size": 9, "fsdp": 4, "seed": 0}}
    call(monkeypatch, many, write("few.json", settings=other))
    _, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    # 8 of 10 ms are cycles, a quarter of them the optimizer's.
    assert cells == [
        ["v5e:1x4", "4", "1,000", "250", "10.00", "100,000", "25,000", "20%", "20%"],
        ["v5e:1x8", "8", "1,000", "125", "8.00", "125,000", "15,625", "25%", "19%"],
    ]


def test_lines_join_plans_with_one_batch_or_as_many_images_a_chip(write: Write) -> None:
    files = [
        write("4.json"),
        write("8.json", chips=8),
        write("8w.json", chips=8, batch_size=2000),
        write("p.json", topology="v5p:2x2x1", chip={"name": "v5p"}),
    ]
    lines = compare_plans.series([compare_plans.read_plan(file) for file in files])
    assert {label: [plan.file.name for plan in line] for label, line in lines.items()} == {
        "v5e, batch 1,000": ["4.json", "8.json"],
        "v5e, 250 images a chip": ["4.json", "8w.json"],
        "v5p:2x2x1, batch 1,000": ["p.json"],
    }


def test_the_picture_is_drawn(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, write("4.json"), write("8.json", chips=8), "--picture", tmp_path / "scaling.png")
    with Image.open(tmp_path / "scaling.png") as picture:
        colors = picture.convert("RGB").getcolors(1 << 24)
    assert colors is not None and len(colors) > 50  # lines and text, not an empty page


def test_what_cannot_be_compared_is_refused(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write("first.json")
    model = {"model": {"name": "convnext_base"}}
    for second, message in (
        (write("other.json", model, chips=8), r"other.json and .*first.json plan different runs.*config\.model;"),
        (write("again.json"), "plan the same batch on v5e:1x4; leave one out"),
        (write("cpu.json", modeled_step_seconds=None, topology="cpu:8"), "cpu:8 is no TPU"),
        (write("large.json", refusal="Used 19.8G of 15.75G hbm"), "does not fit on v5e:1x4; leave it out"),
        (tmp_path / "missing.json", "missing.json is no plan"),
        (write("list.json", settings={"model": None}), "list.json is no plan"),
    ):
        with pytest.raises(UserError, match=message):
            call(monkeypatch, first, second)


def test_the_records_are_plans(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # What the fixture makes up must be what tools.plan writes.
    call(monkeypatch, *(ROOT / "benchmarks" / "results").glob("plan_cifar100_v5p_*.json"))
    assert capsys.readouterr().out.count("| v5p:") == 4
