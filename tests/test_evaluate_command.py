"""evaluate.py on real digits: its files, what it prints, several runs side by side, and mistakes."""

import dataclasses
import html.parser
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix
from tiny import tiny_experiment

from convnext_jax import data
from convnext_jax.config import DataConfig, Experiment
from convnext_jax.errors import UserError
from convnext_jax.evaluate.offline import Selection, evaluate_workdir
from convnext_jax.run.loop import train
from convnext_jax.run.prepare import prepare
from convnext_jax.sharding import make_mesh
from convnext_jax.tools.evaluate import main
from convnext_jax.train.compiler import StepCompiler

DIGITS = DataConfig(name="digits", validation_fraction=0.1)


def experiment(seed: int = 0, ema_decay: float = 0.5) -> Experiment:
    plain = tiny_experiment(epochs=2, batch_size=64, seed=seed, keep_latest=2)
    return dataclasses.replace(plain, data=DIGITS, optim=dataclasses.replace(plain.optim, ema_decay=ema_decay))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one recipe, and another recipe without a moving average."""
    root = tmp_path_factory.mktemp("runs")
    mesh = make_mesh(jax.devices()[:1])
    recipes = {"a0": experiment(), "a1": experiment(1)}, {"b": experiment(0, 0.0)}
    for recipe in recipes:
        with StepCompiler() as compiler:
            for name, settings in recipe.items():
                with prepare(settings, root / name, mesh, compiler=compiler) as run:
                    train(run)
    return root


def test_the_figures_are_those_of_the_logits(runs: Path):
    (evaluation,) = evaluate_workdir(runs / "a0")
    examples = data.load(DIGITS).test
    np.testing.assert_array_equal(evaluation.examples.labels, examples.labels)
    predicted = evaluation.logits.argmax(-1)
    assert evaluation.figures["top1"] == accuracy_score(examples.labels, predicted)
    assert 0.2 < evaluation.figures["top1"] < 1.0, "a network that is always right would not tell much"
    recalls = [each["recall"] for each in evaluation.figures["per_class"].values()]
    confusion = confusion_matrix(examples.labels, predicted)
    np.testing.assert_allclose(recalls, confusion.diagonal() / confusion.sum(1))
    assert evaluation.figures["examples"] == len(examples) == 359


@pytest.mark.parametrize("batch_size", [7, 64])
def test_the_batch_size_changes_no_count(runs: Path, batch_size: int):
    # The training ran on one device, and this runs on all eight.
    wholes, parts = (
        evaluate_workdir(runs / "a0", Selection(batch_size=size))[0].figures for size in (None, batch_size)
    )
    for name in ("top1", "top5", "per_class", "examples"):
        assert parts[name] == wholes[name]
    for name in ("loss", "brier", "ece"):
        assert parts[name] == pytest.approx(wholes[name], rel=1e-5)


def test_the_temperature_is_fitted_on_what_was_held_out_and_lowers_its_loss(runs: Path):
    (evaluation,) = evaluate_workdir(runs / "a0")
    scaled = evaluation.figures["temperature_scaling"]
    validation = data.load(DIGITS).validation
    assert validation is not None and scaled["fitted_on_examples"] == len(validation) == 143
    (held_out,) = evaluate_workdir(runs / "a0", Selection(split="validation"))
    assert "temperature_scaling" not in held_out.figures, "it would be fitted on what it is judged by"
    logits, rows = held_out.logits.astype(np.float64), np.arange(143)

    def loss(temperature: float) -> float:
        z = logits / temperature
        return float((np.log(np.exp(z).sum(-1)) - z[rows, validation.labels]).mean())

    best = scaled["temperature"]
    assert loss(best) < min(loss(1.0), loss(best * 1.05), loss(best / 1.05))


def test_one_run_gives_figures_a_page_and_a_table(runs: Path, tmp_path: Path, evaluate: Callable[..., str]):
    shown = evaluate("--workdir", runs / "a0", "--output", tmp_path, "--weights", "ema", "--cost")
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"top1", "top5", "loss", "ece", "brier", "examples", "parameters", "macs", "per_class"} < evaluation.keys()
    assert (
        evaluation["weights"] == "ema" and evaluation["split"] == "test" and evaluation["cost"]["images_per_second"] > 0
    )
    assert re.search(rf"top-1 +{evaluation['top1']:.2%}", shown)
    page = (tmp_path / "report.html").read_text()
    assert f"{evaluation['top1']:.2%} top-1" in page
    quick = ("--workdir", runs / "a0", "--output", tmp_path, "--no_report", "--format")
    assert evaluate(*quick, "markdown").startswith("| figure ")
    assert json.loads(evaluate(*quick, "json"))["weights"] == "raw"


def test_several_checkpoints_and_weights_side_by_side(runs: Path, tmp_path: Path, evaluate: Callable[..., str]):
    several = ("--step", "20,latest", "--weights", "raw,ema")
    evaluate("--workdir", runs / "a0", *several, "--no_report", "--output", tmp_path)
    evaluations = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"]
    assert [(each["step"], each["weights"]) for each in evaluations.values()] == [
        (20, "raw"),
        (20, "ema"),
        (40, "raw"),
        (40, "ema"),
    ]
    assert len({each["loss"] for each in evaluations.values()}) == 4


def test_runs_that_differ_in_their_seed_are_averaged(runs: Path, tmp_path: Path, evaluate: Callable[..., str]):
    shown = evaluate("--workdir", runs / "a0", runs / "a1", "--output", tmp_path)
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    accuracies = [summary["seeds"][seed]["top1"] for seed in ("0", "1")]
    assert summary["mean"]["top1"] == pytest.approx(np.mean(accuracies))
    assert summary["std"]["top1"] == pytest.approx(np.std(accuracies, ddof=1))
    assert "mean ± std" in shown
    pages = [(tmp_path / f"report_{number}.html").read_text() for number in (1, 2)]
    for seed, page in zip(("0", "1"), pages, strict=True):
        assert f"{summary['seeds'][seed]['top1']:.2%} top-1" in page


def test_different_models_are_compared_on_the_same_examples(runs: Path, tmp_path: Path, evaluate: Callable[..., str]):
    shown = evaluate("--workdir", runs / "a0", runs / "b", "--no_report", "--output", tmp_path)
    (compared,) = json.loads((tmp_path / "evaluation.json").read_text())["comparisons"]
    first, second = (evaluate_workdir(runs / name)[0].correct for name in ("a0", "b"))
    assert compared["difference"] == pytest.approx(second.mean() - first.mean())
    assert compared["only_second"] - compared["only_first"] == second.sum() - first.sum()
    assert compared["conclusion"] in shown and "on these 359 examples" in shown
    assert "give --output" not in shown
    evaluate("--workdir", runs / "a0", runs / "b")
    assert not (runs / "a0" / "report.html").exists(), "which of the two would it belong to?"


def test_groups_that_cannot_be_compared_are_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--workdir", *(str(runs / name) for name in ("a0", "a1", "b"))])
    main()
    reason = "one has several seeds and the other one seed"
    assert f"{runs / 'b'} is not compared with {runs / 'a0'} (2 seeds): {reason}\n" in capsys.readouterr().err


def test_views_of_an_image_are_named_with_every_figure(runs: Path, tmp_path: Path, evaluate: Callable[..., str]):
    shown = evaluate("--workdir", runs / "a0", "--tta", "shifts", "--output", tmp_path, "--no_report")
    assert re.search(r"test-time augmentation +shifts", shown)
    assert json.loads((tmp_path / "evaluation.json").read_text())["tta"] == "shifts"
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--step", "17"), r"no checkpoint '17'; there are 20, 40; or say best or latest"),
        (("--step", "20,17"), r"no checkpoint '17'"),
        (("--split", "validation", "--data_dir", "nowhere"), None),
    ],
)
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(
    runs: Path, evaluate: Callable[..., str], arguments: tuple[str, ...], message: str | None, tmp_path: Path
):
    if message is None:  # the digits need no folder
        evaluate("--workdir", runs / "a0", "--output", tmp_path, *arguments)
        return
    with pytest.raises(UserError, match=message):
        evaluate("--workdir", runs / "a0", "--output", tmp_path, *arguments)


def test_weights_that_were_not_kept_are_refused(runs: Path, evaluate: Callable[..., str]):
    with pytest.raises(
        UserError, match=r"--weights ema: the run in .*b keeps no average \(config\.optim\.ema_decay=0\)"
    ):
        evaluate("--workdir", runs / "b", "--weights", "raw,ema")


class _Checker(html.parser.HTMLParser):
    """Holds what a page opens against what it closes."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "path", "use", "rect", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"])
        self.addresses += [given[name] for name in ("src", "href", "xlink:href") if given.get(name)]
        if (tag == "img" and not given.get("alt")) or (given.get("role") == "img" and not given.get("aria-label")):
            self.unnamed.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_needs_no_network_and_every_picture_has_a_text(
    runs: Path, tmp_path: Path, evaluate: Callable[..., str]
):
    evaluate("--workdir", runs / "a0", "--output", tmp_path)
    page = (tmp_path / "report.html").read_text()
    checker = _Checker()
    checker.feed(page)
    assert not checker.open and not checker.unnamed
    assert all(address.startswith(("#", "data:")) for address in checker.addresses)
    targets = {address[1:] for address in checker.addresses if address.startswith("#")}
    assert targets <= set(checker.ids)
    html_ids = [name for name in checker.ids if name.startswith("confusion")]
    assert len(html_ids) == len(set(html_ids))
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    counts = json.loads(re.search(r"const confusion = (.*);\n", page)[1])
    labels = data.load(DIGITS).test.labels
    assert sum(map(sum, counts["counts"])) == 359
    assert {name: sum(row) for name, row in zip(counts["names"], counts["counts"], strict=True)} == {
        str(label): int((labels == label).sum()) for label in range(10)
    }
