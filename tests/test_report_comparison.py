"""Comparisons of runs: seeds in groups, figures of the logs, differences with intervals, a page that stands alone."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.config import DataConfig, Experiment, OptimConfig, TaskConfig
from convnext_jax.data.dataset import Dataset
from convnext_jax.evaluate.uncertainty import difference_of_means
from convnext_jax.report.comparison import Comparison
from convnext_jax.report.comparison_tables import COLUMNS, difference_rows, figure_rows, how_to_read
from convnext_jax.report.page import SERIES, light_series
from convnext_jax.report.run_figures import curve
from convnext_jax.report.run_groups import find_runs, group_runs
from convnext_jax.workdir.claim import seed_runs, write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord

DATA = tiny_dataset()
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def experiment(*, rate: float = 1e-3, **run: Any) -> Experiment:
    return dataclasses.replace(tiny_experiment(**run), optim=OptimConfig(learning_rate=rate, warmup_epochs=1))


def evaluation(epoch: int, top1: float, split: str = "test", **more: float) -> dict[str, float]:
    figures = {f"{split}/top1": top1, f"{split}/top5": (1 + top1) / 2, f"{split}/loss": 2 - top1}
    return {"step": 5 * epoch, "epoch": float(epoch), "seconds": 10.0 * epoch, **figures, **more}


def log(*accuracies: float, **options: Any) -> list[dict[str, float]]:
    """The evaluations of the epochs 1, 2, ... with these top-1 accuracies, each after a line of its training."""
    lines = []
    for epoch, top1 in enumerate(accuracies, 1):
        lines.append(
            {"step": 5 * epoch - 1, "epoch": epoch - 0.2, "seconds": 10.0 * epoch - 1, "train/lr": 0.1 / epoch}
        )
        lines.append(evaluation(epoch, top1, **options))
    return lines


def run(
    workdir: Path,
    lines: Sequence[dict[str, float]],
    settings: Experiment | None = None,
    *,
    data: Dataset = DATA,
    finished: bool = True,
) -> Path:
    """A workdir as a run leaves it, without its checkpoints."""
    write_claim(workdir, settings or experiment(epochs=3))
    DatasetRecord.of(data).write(workdir)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (workdir / "summary.json").write_text("{}")
    return workdir


def seeds(workdir: Path, logs: Sequence[Sequence[dict[str, float]]], rate: float = 1e-3, **options: Any) -> Path:
    """A workdir of several seeds, of which some may be missing."""
    settings = experiment(rate=rate, epochs=3, seeds=max(len(logs), 2), **options)
    write_claim(workdir, settings)
    for lines, (folder, one) in zip(logs, seed_runs(workdir, settings), strict=False):
        run(folder, lines, one)
    return workdir


def rows_of(*folders: Path) -> list[dict[str, str]]:
    head, *rows = figure_rows(group_runs(find_runs(folders).runs))
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_figures_are_those_of_the_log(tmp_path: Path):
    lines = log(0.25, 0.75, 0.5)
    (row,) = rows_of(run(tmp_path / "one", lines))
    assert float(row["last top-1 %"]) == 100 * lines[-1]["test/top1"]
    assert (
        float(row["best top-1 %"]) == 100 * max(line.get("test/top1", 0) for line in lines) and row["best epoch"] == "2"
    )
    assert float(row["last top-5 %"]) == 100 * lines[-1]["test/top5"]
    assert float(row["last loss"]) == lines[-1]["test/loss"]
    assert (row["run"], row["seeds"], row["epochs done"], row["evaluations"], row["time"]) == (
        "one",
        "1",
        "3",
        "3",
        "0:00:30",
    )


def test_seeds_have_their_mean_and_sample_deviation(tmp_path: Path):
    lasts = (0.5, 0.625, 0.875)
    (row,) = rows_of(seeds(tmp_path / "three", [log(0.25, 0.875, last) for last in lasts]))
    mean, deviation = 100 * statistics.mean(lasts), 100 * statistics.stdev(lasts)
    assert row["last top-1 %"] == f"{mean:.2f} ± {deviation:.2f}" and row["seeds"] == "3"
    assert row["best top-1 %"] == "87.50 ± 0.00" and row["best epoch"] == "2", "of equals the first"


def test_the_moving_average_has_a_row_of_its_own(tmp_path: Path):
    lines = log(0.25, 0.5, **{"test_ema/top1": 0.75, "test_ema/top5": 1.0, "test_ema/loss": 0.125})
    raw, average = rows_of(run(tmp_path / "one", lines))
    assert (raw["weights"], raw["last top-1 %"], raw["last loss"]) == ("raw", "50.00", "1.5000")
    assert (average["weights"], average["last top-1 %"], average["last loss"]) == ("EMA", "75.00", "0.1250")


def test_runs_that_differ_in_their_seed_alone_are_one_group(tmp_path: Path):
    for seed in (4, 5):
        run(tmp_path / f"c100-seed{seed}", log(0.5), experiment(seed=seed))
    run(tmp_path / "other", log(0.5), experiment(rate=2e-3, seed=4))
    rows = rows_of(*sorted(tmp_path.iterdir()))
    assert [(row["run"], row["seeds"], row["learning_rate"]) for row in rows] == [
        ("c100 (unfinished)", "2", "0.001"),
        ("other (unfinished)", "1", "0.002"),
    ]


def test_the_same_seed_trained_twice_is_no_second_sample(tmp_path: Path):
    rows = rows_of(run(tmp_path / "a" / "x", log(0.5)), run(tmp_path / "b" / "x", log(0.75)))
    assert [(row["run"], row["seeds"]) for row in rows] == [("a/x (unfinished)", "1"), ("b/x (unfinished)", "1")]


def test_a_workdir_and_its_seeds_given_together_are_read_once(tmp_path: Path):
    folder = seeds(tmp_path / "both", [log(0.5, 0.5, 0.5), log(0.75, 0.5, 0.5)])
    (row,) = rows_of(folder, *sorted(folder.glob("seed_*")), folder)
    assert row["seeds"] == "2" and row["run"] == "both"


def test_a_run_that_still_trains_is_shown_as_far_as_it_is_and_marked(tmp_path: Path):
    (row,) = rows_of(run(tmp_path / "live", log(0.25, 0.5), finished=False))
    assert (row["run"], row["epochs done"], row["last top-1 %"]) == ("live (unfinished)", "2 of 3", "50.00")
    folder = run(tmp_path / "longer", log(0.25, 0.5), finished=True)
    assert not find_runs([folder]).finished, "the summary of the shorter run is not the end of the longer one"
    assert find_runs([run(tmp_path / "done", log(0.25, 0.5, 0.75))]).finished


def test_what_has_logged_nothing_or_is_no_workdir_is_named(tmp_path: Path):
    folder = seeds(tmp_path / "begun", [log(0.5, 0.5, 0.5)])
    (tmp_path / "notes.md").write_text("")
    found = find_runs([folder, tmp_path / "notes.md"])
    text = Comparison.of(found).markdown()
    assert f"Nothing is logged yet in {folder / 'seed_1'}." in text
    assert f"Left out: {tmp_path / 'notes.md'} is no workdir of train.py: it has no config.json." in text
    assert len(found.runs) == 1 and not found.finished


def test_a_run_with_masks_is_left_out_with_what_compares_it(tmp_path: Path):
    run(tmp_path / "one", log(0.5))
    settings = dataclasses.replace(experiment(epochs=3), task=TaskConfig("segmentation"))
    run(tmp_path / "masks", log(0.5), settings)
    found = find_runs([tmp_path / "one", tmp_path / "masks"])
    assert [each.workdir for each in found.runs] == [tmp_path / "one"]
    assert found.skipped == [f"{tmp_path}/masks is a run with masks: compare those with evaluate.py --workdir A B"]


def test_an_interval_needs_two_seeds_on_each_side(tmp_path: Path):
    one, two = (0.5, 0.5625, 0.625), (0.75, 0.8125)
    first = seeds(tmp_path / "first", [log(0.25, 0.25, last) for last in one])
    second = seeds(tmp_path / "second", [log(0.25, 0.25, last) for last in two], rate=2e-3)
    single = run(tmp_path / "third", log(0.25, 0.25, 0.75), experiment(rate=4e-3, epochs=3))
    _, other, alone = difference_rows(group_runs(find_runs([first, second, single]).runs))
    # Welch's formulas by hand.
    parts = [statistics.variance(values) / len(values) for values in (one, two)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, two), strict=True))
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    difference = statistics.mean(two) - statistics.mean(one)
    assert other[3] == f"{100 * difference:+.2f} [{100 * (difference - half):+.2f}, {100 * (difference + half):+.2f}]"
    assert alone[2:4] == ["1 to 3", "+18.75"]
    assert "`python evaluate.py --workdir A B`" in Comparison.of(find_runs([first, single])).markdown()


def test_recipes_that_do_not_vary_have_no_interval():
    assert difference_of_means([0.5, 0.5], [0.75, 0.75]) == (0.25, None)
    _, interval = difference_of_means([0.5, 0.5], [0.75, 0.875])
    assert interval is not None and interval[0] < 0.3125 < interval[1]


def test_runs_on_different_examples_are_kept_apart(tmp_path: Path):
    held_out = dataclasses.replace(DATA, validation=tiny_dataset(test=9).test)
    first = run(tmp_path / "tested", log(0.5, 0.5, 0.5))
    second = run(tmp_path / "held_out", log(0.25, 0.25, 0.25, split="validation"), data=held_out)
    third = run(tmp_path / "larger", log(0.75, 0.5, 0.5), data=tiny_dataset(test=20))
    comparison = Comparison.of(find_runs([first, second, third]))
    assert [[group.name for group in groups] for groups in comparison.parts] == [["tested"], ["held_out"], ["larger"]]
    text = comparison.markdown()
    assert "3 different sets of examples (tiny test (13 examples), tiny validation (9 examples), tiny test (20" in text
    assert "difference to" not in text
    assert "the validation split" in " ".join(how_to_read(comparison.parts[1]))
    assert comparison.page().count("<h3>Top-1 accuracy</h3>") == 3


def test_settings_that_differ_have_columns_and_the_rest_is_listed(tmp_path: Path):
    base = experiment(epochs=3)
    changed = dataclasses.replace(
        base,
        data=DataConfig(name="digits", channels=1),
        optim=dataclasses.replace(base.optim, b1=0.5, b2=0.75, eps=1e-3, momentum=0.25),
    )
    folders = [run(tmp_path / "a", log(0.5), base), run(tmp_path / "b", log(0.5), changed)]
    rows = rows_of(*folders)
    assert list(rows[0])[1 : COLUMNS + 2] == ["data.name", "channels", "b1", "b2", "weights"]
    assert [(row["channels"], row["b1"]) for row in rows] == [("none", "0.9"), ("1", "0.5")]
    notes = how_to_read(group_runs(find_runs(folders).runs))
    assert "The configurations also differ in optim.eps, optim.momentum." in notes


def test_the_line_is_the_mean_as_far_as_all_seeds_have_come():
    first, second = log(0.25, 0.5, 0.75), log(0.75, 1.0)
    second = [line | {"seconds": 3 * line["seconds"]} for line in second]
    found = curve([first, second], "test/top1", "seconds")
    assert found.mean == [(20.0, 0.5), (40.0, 0.75)] and found.steps == [5, 10]
    assert (found.low, found.high) == ([0.25, 0.5], [0.75, 1.0])
    assert found.ahead == [[(20.0, 0.5), (30.0, 0.75)]]
    alone = curve([first], "test/top1", "epoch")
    assert alone.mean == [(1.0, 0.25), (2.0, 0.5), (3.0, 0.75)] and not alone.low and not alone.ahead


class Reader(HTMLParser):
    """Collects what a page is made of, and fails where an element is not closed or closes another."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def three_recipes(folder: Path) -> list[Path]:
    average = {"test_ema/top1": 0.75, "test_ema/top5": 1.0, "test_ema/loss": 0.125}
    return [
        seeds(folder / "first & <best>", [log(0.25, 0.5, 0.5, **average), log(0.5, 0.75, 0.875, **average)]),
        seeds(folder / "second", [log(0.25, 0.5), log(0.5, 0.75, 0.875)], rate=2e-3),
        run(folder / "third", log(0.5), experiment(rate=4e-3, epochs=3), finished=False),
    ]


def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path: Path):
    page = Comparison.of(find_runs(three_recipes(tmp_path))).page()
    read = Reader(page)
    assert read.open == []
    loaded = [
        value
        for _, attributes in read.tags
        for name, value in attributes.items()
        if value and name in ("src", "href", "xlink:href", "action", "data", "srcset", "style", "content")
    ]
    assert loaded and not any("//" in value or "@import" in value for value in loaded)
    assert "http" not in page.replace("http://www.w3.org/", ""), "but for the names of SVG"
    identities = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    repeated = {name for name in identities if identities.count(name) > 1}
    assert not repeated, "each id is there once"


def test_each_chart_is_described_by_the_figures_at_its_end(tmp_path: Path):
    page = Comparison.of(find_runs(three_recipes(tmp_path))).page()
    charts = [attributes for tag, attributes in Reader(page).tags if tag == "svg" and attributes.get("role") == "img"]
    described = [str(attributes["aria-label"]) for attributes in charts]
    assert len(described) == 8 and len(set(described)) == 8
    accuracy = next(text for text in described if text.startswith("top-1 accuracy by epoch, tiny test (13 examples)"))
    assert "first & <best> raw 68.75 ± 26.52; first & <best> EMA 75.00 ± 0.00; second (unfinished) raw" in accuracy


def test_the_page_hides_the_lines_of_a_group_by_its_class(tmp_path: Path):
    read = Reader(Comparison.of(find_runs(three_recipes(tmp_path))).page())
    boxes = [attributes["value"] for tag, attributes in read.tags if tag == "input"]
    assert boxes == ["group-0", "group-1", "group-2"]
    for name in boxes:
        assert sum(tag == "g" and attributes.get("class") == name for tag, attributes in read.tags) >= 8


def test_a_page_that_is_watched_loads_itself_again_and_the_last_one_does_not(tmp_path: Path):
    comparison = Comparison.of(find_runs(three_recipes(tmp_path / "runs")))
    comparison.write_live(tmp_path, 7.0)
    live = Reader((tmp_path / "comparison.html").read_text())
    assert ("meta", {"http-equiv": "refresh", "content": "7"}) in live.tags
    comparison.write(tmp_path)
    assert "http-equiv" not in (tmp_path / "comparison.html").read_text()
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "comparison.md").read_text() == comparison.markdown() + "\n"


def test_twenty_groups_are_told_apart_by_color_and_marker(tmp_path: Path):
    average = {"test_ema/top1": 0.75, "test_ema/top5": 1.0, "test_ema/loss": 0.125}
    rates = np.linspace(0.001, 0.02, 20)
    folders = [
        run(tmp_path / f"run{index:02}", log(0.5, 0.5, 0.5, **average), experiment(rate=float(rate), epochs=3))
        for index, rate in enumerate(rates)
    ]
    page = Comparison.of(find_runs(folders)).page()
    swatches = [part.partition("</svg>")[0] for part in page.split('<svg viewBox="0 0 36 12"')[1:]]
    assert len(swatches) == 20 == len(set(swatches))
    assert page.count("<h3>") == 7, "the moving averages of so many have charts of their own"


def test_the_picture_has_the_colors_of_the_page_s_light_theme():
    assert len(light_series()) == len(SERIES) and set(map(len, light_series())) == {7}
    css = (Path(__file__).parents[1] / "convnext_jax" / "report" / "page.css").read_text()
    assert [css.index(f"--series-{number}: {color};") for number, color in enumerate(light_series())]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\n[1, 2]\n"])
def test_a_log_without_a_line_waits(tmp_path: Path, content: bytes):
    folder = run(tmp_path / "empty", [])
    (folder / "metrics.jsonl").write_bytes(content)
    assert find_runs([folder]).waiting == [folder]
