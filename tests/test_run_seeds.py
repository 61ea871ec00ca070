"""Several seeds in one command: each the run that it would be alone, and their mean and deviation."""

import dataclasses
import json
import os
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from test_run_loop import Watched, last_params, without_clocks
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.evaluate.offline import Selection, evaluate_workdir, summary_of
from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.report.tables import seed_table
from convnext_jax.run.loop import Stopped, train
from convnext_jax.run.prepare import prepare
from convnext_jax.run.seeds import train_seeds
from convnext_jax.sharding import make_mesh
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.claim import write_claim

DATASET = tiny_dataset()
# Four epochs of five steps, as in other tests, so that what they compiled serves here too.
EXPERIMENT = tiny_experiment(seed=3, seeds=2, eval_every_epochs=4)
FIGURES = [f"{split}/{name}" for split in ("test", "test_ema") for name in ("loss", "top1", "top5")]


class Both(NamedTuple):
    """Two trained seeds: their folder, their summary, and the compiler that they shared."""

    workdir: Path
    summary: dict[str, Any]
    compiler: StepCompiler


class Counting(StepCompiler):
    """Counts the sizes that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int | None] = []
        self.programs: set[int] = set()

    def begin(self, sizes: Any, *others: Any) -> None:
        self.sizes += sizes
        super().begin(sizes, *others)

    def wait_for(self, size: int | None) -> Any:
        compiled = super().wait_for(size)
        self.programs.add(id(compiled))
        return compiled


def run(workdir: Path, experiment: Experiment = EXPERIMENT, compiler: StepCompiler | None = None) -> dict[str, Any]:
    """What train.py does."""
    mesh, compiler = make_mesh(jax.devices()[:1]), compiler or StepCompiler()
    if experiment.run.seeds > 1:
        return train_seeds(experiment, workdir, mesh, compiler)
    with prepare(experiment, workdir, mesh, compiler=compiler, dataset=DATASET) as prepared:
        return train(prepared)


def of_one_seed(seed: int) -> Experiment:
    return dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, seed=seed, seeds=1))


@pytest.fixture(autouse=True, scope="module")
def tiny_data() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convnext_jax.data.load", lambda config: DATASET)
        patch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)  # a second a run
        yield


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_data: None) -> Both:
    """Seeds 3 and 4."""
    workdir, compiler = tmp_path_factory.mktemp("both"), Counting()
    summary = run(workdir, compiler=compiler)
    assert compiler.sizes == [None, None] and len(compiler.programs) == 1, "the seeds share one compiled step"
    return Both(workdir, summary, compiler)


def test_each_seed_is_the_run_that_it_would_be_alone(both: Both, tmp_path: Path):
    run(tmp_path, of_one_seed(4))
    assert without_clocks(both.workdir / "seed_4") == without_clocks(tmp_path)
    assert without_clocks(both.workdir / "seed_4") != without_clocks(both.workdir / "seed_3")
    trees = [last_params(EXPERIMENT, workdir) for workdir in (both.workdir / "seed_4", tmp_path)]
    for ours, theirs in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    log = both.workdir / "seed_4" / "metrics.jsonl"
    before = log.read_bytes()
    run(both.workdir / "seed_4", of_one_seed(4))
    assert log.read_bytes() == before, "a seed's folder is a workdir like any other"


def test_the_summary_has_the_mean_the_deviation_and_each_seed(both: Both):
    workdir, summary = both.workdir, both.summary
    assert json.loads((workdir / "summary.json").read_text()) == summary
    each = [json.loads((workdir / f"seed_{seed}" / "summary.json").read_text()) for seed in (3, 4)]
    assert summary["seeds"] == {"3": each[0], "4": each[1]}
    assert summary["split"] == "test" and summary["mean"].keys() == summary["std"].keys() == set(FIGURES)
    a, b = (one["final"]["test/loss"] for one in each)
    assert summary["mean"]["test/loss"] == pytest.approx((a + b) / 2)
    assert summary["std"]["test/loss"] == pytest.approx(abs(a - b) / 2**0.5) and a != b


def test_finished_seeds_are_not_trained_again(both: Both):
    logs = [both.workdir / f"seed_{seed}" / "metrics.jsonl" for seed in (3, 4)]
    before, compiler = [log.read_bytes() for log in logs], Counting()
    assert run(both.workdir, compiler=compiler) == both.summary
    assert [log.read_bytes() for log in logs] == before and not compiler.sizes


def test_another_configuration_is_refused_for_the_whole_and_for_a_seed(both: Both, tmp_path: Path):
    more = dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, seeds=3))
    with pytest.raises(UserError, match=r"belongs to another configuration \(run\.seeds: 2 there, 3 now\)"):
        run(both.workdir, more)
    (tmp_path / "seed_4").symlink_to(both.workdir / "seed_4")
    longer = dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, epochs=5))
    with pytest.raises(UserError, match=r"seed_4 belongs to another configuration \(run\.epochs: 4 there, 5 now\)"):
        run(tmp_path, longer)
    assert not (tmp_path / "seed_3").exists(), "every seed's folder is looked at before the first is trained"


@pytest.mark.parametrize(
    ("at_call", "message"),
    [
        (5, r"SIGTERM: saved step 5 of 20 in .*seed_4; run the same command to go on"),
        # In the last epoch of the first seed, which is evaluated at the next start.
        (4, r"SIGTERM: saved step 20 of 20 in .*seed_3; run the same command to go on"),
    ],
)
def test_a_signal_stops_and_the_same_command_goes_on(both: Both, tmp_path: Path, at_call: int, message: str):
    calls = []

    def preempt(step: int) -> None:
        calls.append(step)
        if len(calls) == at_call:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=message):
        run(tmp_path, compiler=Watched(preempt, compiler=both.compiler))
    assert not (tmp_path / "summary.json").exists()
    run(tmp_path, compiler=both.compiler)
    for seed in ("seed_3", "seed_4"):
        assert without_clocks(tmp_path / seed) == without_clocks(both.workdir / seed)


def test_evaluation_covers_every_seed(both: Both):
    workdir, summary = both.workdir, both.summary
    evaluation = summary_of(evaluate_workdir(workdir, Selection(batch_size=13)))
    assert evaluation["split"] == "test" and list(evaluation["seeds"]) == ["3", "4"]
    for name in ("loss", "top1", "top5"):
        assert evaluation["mean"][name] == pytest.approx(summary["mean"][f"test/{name}"], rel=1e-6)
        assert evaluation["std"][name] == pytest.approx(summary["std"][f"test/{name}"], rel=1e-4, abs=1e-9)
    alone = evaluate_workdir(workdir / "seed_4", Selection(batch_size=13))[0].figures
    assert evaluation["seeds"]["4"] == alone and alone["step"] == 20


def test_evaluation_refuses_seeds_that_are_not_there_or_not_as_far(both: Both, tmp_path: Path):
    write_claim(tmp_path, EXPERIMENT)
    with pytest.raises(UserError, match=r"of its 2 seeds seed_3, seed_4 have not started; run the training again$"):
        evaluate_workdir(tmp_path)
    (tmp_path / "seed_3").symlink_to(both.workdir / "seed_3")
    remedy = r"run the training again, or evaluate the seeds that there are: --workdir \S+/seed_3$"
    with pytest.raises(UserError, match=rf"of its 2 seeds seed_4 has not started; {remedy}"):
        evaluate_workdir(tmp_path)

    def preempt(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="saved step 10"):
        run(tmp_path / "seed_4", of_one_seed(4), Watched(preempt, compiler=both.compiler))
    with pytest.raises(UserError, match=r"different steps \(20, 10\); train them to the end, or .* --workdir .*seed_3"):
        evaluate_workdir(tmp_path)


def test_the_deviation_is_that_of_a_sample():
    figures = {"0": {"top1": 0.5, "loss": 1.0}, "1": {"top1": 0.75, "loss": 1.0}, "2": {"top1": 0.625, "loss": 1.0}}
    found = over_seeds(figures.values())
    assert found["mean"] == {"top1": 0.625, "loss": 1.0}
    assert found["std"]["top1"] == pytest.approx(statistics.stdev((0.5, 0.75, 0.625))) and found["std"]["loss"] == 0.0
    assert seed_table(figures, ["top1"]).splitlines() == [
        "| seed | top1   |",
        "|------|--------|",
        "| 0    | 0.5000 |",
        "| 1    | 0.7500 |",
        "| 2    | 0.6250 |",
        "| mean | 0.6250 |",
        "| std  | 0.1250 |",
    ]
