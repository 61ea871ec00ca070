"""A run made ready: what is refused before anything is compiled, and what a run starts from."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import TINY
from PIL import Image
from test_run_loop import last_params, run
from tiny import tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.batches.preprocess import normalize
from convnext_jax.config import AugmentConfig, Experiment, OptimConfig
from convnext_jax.errors import UserError
from convnext_jax.layers.whitening import whitening_kernel
from convnext_jax.models import split_model
from convnext_jax.models.airbench import AirbenchArchitecture
from convnext_jax.models.convnext import ConvNeXtArchitecture
from convnext_jax.models.interface import Architecture, BuildOptions, Model
from convnext_jax.models.weights import ModelFolder
from convnext_jax.run.peers import Peers
from convnext_jax.run.prepare import (
    check_against_data,
    check_without_data,
    initial_state,
    make_plan,
    prepare,
    put_data,
    training_statistics,
)
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.train.compiler import StepCompiler

DATASET = tiny_dataset()


def changed(experiment: Experiment, **sections: dict[str, Any]) -> Experiment:
    parts = {name: dataclasses.replace(getattr(experiment, name), **fields) for name, fields in sections.items()}
    return dataclasses.replace(experiment, **parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"batch_size": 41}}, "batch_size=41 is larger than tiny's 40 training images"),
        ({"run": {"batch_size": 12}}, "batch_size=12 is not a multiple of the 8 devices; take 8 or 16"),
        (
            {"run": {"batch_size": 16}, "optim": {"accumulation": 4}},
            r"batch_size / config\.optim\.accumulation=4 is not a multiple of the 8 devices",
        ),
        ({"augment": {"crop_padding": 16}}, "crop_padding=16: reflection needs less than"),
    ],
)
def test_what_only_the_data_and_the_devices_can_tell_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        check_against_data(changed(tiny_experiment(), **change), DATASET, Sharding(make_mesh()))


def test_images_too_small_for_the_network_are_refused():
    experiment = dataclasses.replace(tiny_experiment(), augment=AugmentConfig(crop_padding=0))
    with pytest.raises(UserError, match="images of 8x8 pixels are too small .* the smallest that works is 16x16"):
        check_against_data(experiment, tiny_dataset(size=8), Sharding(make_mesh()))


@dataclasses.dataclass(frozen=True)
class HeadAlone(Architecture):
    """A network without a hidden matrix."""

    def build(self, options: BuildOptions) -> Model:
        model = TINY.build(options)
        del model.stages, model.stem
        return model

    @property
    def smallest_image(self) -> int:
        return 1


def test_muon_without_hidden_matrices_is_refused_without_data():
    experiment = dataclasses.replace(tiny_experiment(), optim=OptimConfig(name="muon"))
    check_without_data(experiment)
    with pytest.raises(UserError, match=r"config\.optim\.name=muon .* config\.model\.name has none"):
        check_without_data(changed(experiment, model={"architecture": HeadAlone()}))


def test_a_metric_that_does_not_exist_is_refused_without_data():
    with pytest.raises(UserError, match="best_metric='top3': unknown"):
        check_without_data(tiny_experiment(best_metric="top3"))


def test_a_plan_has_the_shapes_and_shardings_of_what_is_put_on_the_devices():
    plan = make_plan(tiny_experiment(), DATASET, Sharding(make_mesh(jax.devices()[:2])))
    state, (source, evaluated) = initial_state(plan), put_data(plan, DATASET)
    planned = (plan.state, plan.spec.source.abstract_feed(), plan.evaluated)
    for ours, theirs in zip(
        *map(jax.tree.leaves, (planned, (state, source.feed(5, 3), evaluated))),
        strict=True,
    ):
        assert (ours.shape, ours.dtype, ours.sharding) == (theirs.shape, theirs.dtype, theirs.sharding)


def test_image_sizes_take_equal_parts_of_the_epochs():
    def plan(**run: Any) -> Any:
        experiment = tiny_experiment(epochs=5, batch_size=20, **run)  # two steps an epoch
        return make_plan(experiment, DATASET, Sharding(make_mesh(jax.devices()[:1])))

    sized = plan(image_sizes=(16, 24, 16))
    assert [sized.image_size_at(step) for step in range(10)] == [16, 16, 16, 16, 24, 24, 24, 24, 16, 16]
    assert sized.image_sizes_from(0) == sized.image_sizes_from(3) == [16, 24]
    assert sized.image_sizes_from(8) == [16]
    assert plan().image_size_at(7) is None and plan().image_sizes_from(0) == [None]


@pytest.mark.parametrize("channels", [1, 4])
def test_images_need_not_have_three_channels(channels: int):
    dataset = tiny_dataset(channels=channels)
    plan = make_plan(tiny_experiment(), dataset, Sharding(make_mesh(jax.devices()[:1])))
    assert plan.model.params["stem"]["conv"]["kernel"].shape == (2, 2, channels, 8)
    batch = plan.spec.source
    feed = put_data(plan, dataset)[0].feed(0, 1)
    images = jax.jit(lambda feed: batch.batch(feed, np.int32(0)).images)(feed)
    assert images.shape == (8, 16, 16, channels)


# --- what a start says


class Waiting(StepCompiler):
    """Compiles nothing, and notes what had been said when it was asked to."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__()
        self._capsys = capsys
        self.said: list[str] = []

    def begin(self, *asked: Any) -> None:
        self.said = self._capsys.readouterr().err.splitlines()


def pictures_in(root: Path) -> Path:
    for split, count in (("train", 8), ("val", 3)):
        for label in range(4):
            for index in range(count):
                path = root / split / f"class {label}" / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (60 * label, index, 0)).save(path)
    (root / "val" / "class 2" / "notes.txt").touch()
    (root / "val" / "class 2" / ".hidden").touch()
    return root


def test_a_start_says_what_it_found_in_two_lines_before_it_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = {"name": "image_folder", "data_dir": str(pictures_in(tmp_path / "photos")), "validation_fraction": 0.25}
    experiment = changed(tiny_experiment(epochs=5), data=data)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(split_model(tiny_model())[1]))
    for workdir in (tmp_path / "decoded", tmp_path / "cached"):
        with prepare(experiment, workdir, make_mesh(jax.devices()[:2]), compiler=(compiler := Waiting(capsys))):
            assert compiler.said == [
                f"data: image_folder in {tmp_path}/photos: train 24 pictures, validation 8, test 12, 4 classes, 16x16x3"
                "; left out 2 files (1 .txt, 1 hidden)",
                f"run: convnext_atto, {parameters:,} parameters, float32, on 2 x cpu; starting at step 0 of 15"
                f" (5 epochs x 3 steps); figures in {workdir}/metrics.jsonl; compiling",
            ]


def test_so_does_a_start_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    experiment, mesh = tiny_experiment(), make_mesh(jax.devices()[:1])
    plan = make_plan(experiment, DATASET, Sharding(mesh))
    assert "; resuming at step 7 of 20 (4 epochs x 5 steps); figures in" in plan.describe(7, tmp_path)
    run(experiment, tmp_path)
    assert "data: " not in capsys.readouterr().err, "who hands in the data has told of them"
    monkeypatch.setattr("convnext_jax.data.load", lambda config: DATASET)
    with prepare(experiment, tmp_path, mesh, compiler=Waiting(capsys)):
        about_data, about_run = capsys.readouterr().err.splitlines()
    assert about_data == "data: tiny: train 40 pictures, test 13, 4 classes, 16x16x3"
    assert about_run.endswith(f"; ended at step 20 of 20 (4 epochs x 5 steps); figures in {tmp_path}/metrics.jsonl")


# --- weights to start from


def write_weights(directory: Path, num_classes: int = 4, seed: int = 9) -> Any:
    params = split_model(tiny_model(seed=seed))[1]
    params["head"] = {"kernel": np.ones((16, num_classes), np.float32), "bias": np.ones(num_classes, np.float32)}
    params = jax.tree.map(np.asarray, params)
    names = tuple(map(str, range(num_classes)))
    folder = ModelFolder(params, {}, "convnext_atto", dataclasses.asdict(TINY), names, (0.5,) * 3, (0.25,) * 3, "x")
    folder.write(directory)
    return params


def starting_from(directory: Path) -> Experiment:
    # A learning rate at which nothing moves.
    optim = {"learning_rate": 1e-12, "min_learning_rate": 0.0}
    return changed(tiny_experiment(epochs=1), model={"init_from": str(directory)}, optim=optim)


@pytest.mark.parametrize("num_classes", [4, 7])
def test_a_run_starts_from_weights_and_needs_them_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], num_classes: int
):
    params = write_weights(tmp_path / "weights", num_classes)
    experiment = starting_from(tmp_path / "weights")
    run(experiment, tmp_path / "run")
    said = capsys.readouterr().err
    assert f"starting from the weights in {tmp_path / 'weights'}" in said
    assert ("a fresh head of 4 classes replaces the one of 7" in said) == (num_classes == 7)
    (tmp_path / "weights").rename(tmp_path / "moved")
    run(experiment, tmp_path / "run")

    trained = last_params(experiment, tmp_path / "run")
    if num_classes == 7:
        params["head"] = split_model(tiny_model())[1]["head"]
    for ours, theirs in zip(*map(jax.tree.leaves, (trained, params)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


class OneOfTwo(Peers):
    """One of two processes, the second of which hears what the first has said."""

    count = 2

    def __init__(self, index: int, said: list[Any]) -> None:
        self.index, self._said = index, said

    def gather(self, value: Any) -> list[Any]:
        if self.index == 0:
            self._said.append(value)
            return [value, value]
        return [self._said.pop(0), value]


@pytest.mark.parametrize("same", [True, False])
def test_weights_that_differ_between_hosts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], same: bool
):
    said: list[Any] = []
    message = r"differ: the weights in config\.model\.init_from=weights: '\w{64}' in process 0, '\w{64}' in process 1$"
    for index, seed in enumerate((9, 9 if same else 8)):
        host = tmp_path / str(index)
        host.mkdir()
        monkeypatch.chdir(host)
        write_weights(Path("weights"), seed=seed)
        refused = pytest.raises(UserError, match=message) if index == 1 and not same else contextlib.nullcontext()
        mesh, peers = make_mesh(jax.devices()[:1]), OneOfTwo(index, said)
        with (
            refused,
            prepare(
                starting_from(Path("weights")),
                Path("run"),
                mesh,
                compiler=Waiting(capsys),
                peers=peers,
                dataset=DATASET,
            ),
        ):
            assert index == 0 or not said, "both said the same things in the same order"


def test_weights_that_do_not_fit_are_refused_and_nothing_has_begun(tmp_path: Path):
    write_weights(tmp_path / "weights")
    experiment = changed(
        starting_from(tmp_path / "weights"),
        model={"architecture": ConvNeXtArchitecture((1, 1, 1, 1), (8, 8, 16, 16), stem="patch2", grn=True)},
    )
    with pytest.raises(UserError, match=r"the weights, of convnext_atto, do not fit this model: .*grn/beta is missing"):
        run(experiment, tmp_path / "run")
    with pytest.raises(UserError, match="absent holds no weights to start from"):
        run(starting_from(tmp_path / "absent"), tmp_path / "run")
    assert not (tmp_path / "run" / "dataset.json").exists()


def test_a_network_takes_statistics_of_its_training_images_before_the_first_step() -> None:
    experiment = tiny_experiment(AirbenchArchitecture((8, 8)))
    plan = make_plan(experiment, DATASET, Sharding(make_mesh(jax.devices()[:2])))
    drawn, state = initial_state(plan), initial_state(plan, statistics=training_statistics(plan, DATASET))
    images = np.asarray(normalize(jnp.asarray(DATASET.train.images), plan.record.normalization))
    kernel = state.batch_stats["stem"]["whitening"]["kernel"]
    np.testing.assert_allclose(kernel, whitening_kernel(images, 2), rtol=1e-4, atol=1e-5)
    assert np.abs(kernel - drawn.batch_stats["stem"]["whitening"]["kernel"]).max() > 0.1
    assert kernel.sharding == drawn.batch_stats["stem"]["whitening"]["kernel"].sharding
    jax.tree.map(np.testing.assert_array_equal, state.params, drawn.params)
