"""A workdir belongs to one configuration, whatever version began it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from convnext_jax.config import DataConfig, Experiment, OptimConfig, RunConfig, parse_experiment
from convnext_jax.errors import UserError
from convnext_jax.workdir.claim import check_claim, default_workdir, read_experiment, seed_runs, write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord

ONE = Experiment(run=RunConfig(epochs=10))
RECORD = DatasetRecord("x", ("a", "b"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def begin(workdir: Path, experiment: Experiment) -> None:
    write_claim(workdir, experiment)
    RECORD.write(workdir)


def test_the_name_follows_the_configuration_and_not_where_the_data_are(tmp_path: Path):
    moved = dataclasses.replace(ONE, data=DataConfig(data_dir="/elsewhere", manual_dir="/archives"))
    longer = dataclasses.replace(ONE, run=RunConfig(epochs=11))
    name = default_workdir("configs/x.py", ONE, tmp_path)
    assert name.parent == tmp_path and name.name.startswith("x-")
    assert default_workdir("configs/x.py:argument", moved, tmp_path) == name
    assert default_workdir("configs/x.py", longer, tmp_path) != name


def test_a_workdir_is_claimed_again_by_the_same_configuration(tmp_path: Path):
    begin(tmp_path / "a" / "b", ONE)
    assert read_experiment(tmp_path / "a" / "b") == ONE
    moved = dataclasses.replace(ONE, data=DataConfig(data_dir="/elsewhere"))
    check_claim(tmp_path / "a" / "b", moved)


OTHERWISE_CARRIED_OUT = {
    "best_metric": "loss",
    "checkpoint_minutes": 1.0,
    "checkpoint_steps": 7,
    "eval_batch_size": 3,
    "eval_every_epochs": 2,
    "keep_best": 3,
    "keep_latest": 5,
    "steps_per_dispatch": 3,
    "tracker": "wandb",
}


@pytest.mark.parametrize("field", OTHERWISE_CARRIED_OUT)
def test_what_changes_no_figure_refuses_no_start(tmp_path: Path, field: str):
    begin(tmp_path / "run", ONE)
    changed = dataclasses.replace(ONE, run=dataclasses.replace(ONE.run, **{field: OTHERWISE_CARRIED_OUT[field]}))
    check_claim(tmp_path / "run", changed)
    assert default_workdir("x.py", changed, tmp_path) == default_workdir("x.py", ONE, tmp_path)


def test_less_memory_refuses_no_start(tmp_path: Path):
    begin(tmp_path, ONE)
    check_claim(tmp_path, dataclasses.replace(ONE, model=dataclasses.replace(ONE.model, remat=True)))


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path):
    begin(tmp_path, ONE)
    other = dataclasses.replace(ONE, run=RunConfig(epochs=11, seed=3))
    with pytest.raises(UserError, match=r"run\.seed: 0 there, 3 now; run\.epochs: 10 there, 11 now.*another --workdir"):
        check_claim(tmp_path, other)


def test_a_model_of_another_family_is_refused_with_all_fields(tmp_path: Path):
    begin(tmp_path, ONE)
    resnet = parse_experiment({"model": {"name": "resnet18"}, "run": {"epochs": 10}})
    with pytest.raises(UserError, match=r"model\.block: 'convnext' there, 'basic' now.*'no such field' now"):
        check_claim(tmp_path, resnet)


def test_several_seeds_have_a_folder_each(tmp_path: Path):
    assert seed_runs(tmp_path, ONE) == [(tmp_path, ONE)]
    three = dataclasses.replace(ONE, run=RunConfig(epochs=10, seed=5, seeds=3))
    assert seed_runs(tmp_path, three) == [
        (tmp_path / f"seed_{seed}", dataclasses.replace(ONE, run=RunConfig(epochs=10, seed=seed))) for seed in (5, 6, 7)
    ]


def test_a_start_that_was_refused_binds_nobody(tmp_path: Path):
    write_claim(tmp_path, ONE)
    corrected = dataclasses.replace(ONE, data=DataConfig(image_size=32))
    check_claim(tmp_path, corrected)


def test_the_folder_of_a_sweep_is_refused(tmp_path: Path):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"is the folder of a sweep; choose another --workdir$"):
        check_claim(tmp_path, ONE)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be written .*choose another --workdir"):
        write_claim(tmp_path / "file" / "run", ONE)


def test_what_is_no_workdir_is_said_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"is no workdir of train\.py"):
        read_experiment(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json cannot be read"):
            read_experiment(tmp_path)
    with pytest.raises(UserError, match=r"has no dataset\.json; the run has not started yet"):
        DatasetRecord.read(tmp_path)


def test_the_record_of_the_data_comes_back(tmp_path: Path):
    RECORD.write(tmp_path)
    assert DatasetRecord.read(tmp_path) == RECORD
    assert DatasetRecord.read(tmp_path).normalization.std == RECORD.std


# --- runs of other versions


def version_1(**sections: dict[str, Any]) -> dict[str, Any]:
    """A ``config.json`` as version 0.1 wrote it: no format, None for what the model's name decides."""
    fields = ("stem", "block", "swin_mlp_stages", "bilstm2d", "depths", "dims", "layer_scale", "grn", "kernel_size")
    fields += ("expansion", "activation", "convolution", "norm", "init_from")
    model = {"name": "convnext_atto", "drop_path": 0.05, "dropout": 0.0, "remat": False, "dtype": "auto"}
    model |= {"initialization": "normal", **dict.fromkeys(fields)}
    content: dict[str, dict[str, Any]] = {
        "model": model,
        "data": {"name": "digits", "data_dir": None, "manual_dir": None, "image_size": None},
        "optim": {"name": "adamw", "layer_decay": 1.0, "decay_epochs": []},
        "run": {"epochs": 10, "image_sizes": [24, 32]},
    }
    return content | {name: content[name] | values for name, values in sections.items()}


def write_config(workdir: Path, content: dict[str, Any]) -> None:
    RECORD.write(workdir)
    (workdir / "config.json").write_text(json.dumps(content))


def test_a_run_of_version_1_goes_on_under_the_same_settings(tmp_path: Path):
    write_config(tmp_path, version_1(model={"stem": "patch2", "depths": [1, 1, 2, 1]}))
    experiment = read_experiment(tmp_path)
    assert experiment.model.initialization == "reference" and experiment.run.image_sizes == (24, 32)
    architecture: Any = experiment.model.architecture
    assert (architecture.stem, architecture.depths, architecture.kernel_size) == ("patch2", (1, 1, 2, 1), 7)
    same = parse_experiment(
        {
            "model": {"name": "convnext_atto", "drop_path": 0.05, "stem": "patch2", "depths": (1, 1, 2, 1)},
            "data": {"name": "digits"},
            "run": {"epochs": 10, "image_sizes": (24, 32)},
        }
    )
    check_claim(tmp_path, same)


def test_a_run_of_version_1_is_found_under_its_own_hash(tmp_path: Path):
    old = tmp_path / "x-0a1b2c3d"
    old.mkdir()
    write_config(old, version_1())
    (tmp_path / "x-deadbeef").mkdir()
    assert default_workdir("configs/x.py", read_experiment(old), tmp_path) == old
    other = dataclasses.replace(read_experiment(old), optim=OptimConfig(learning_rate=1.0))
    assert default_workdir("configs/x.py", other, tmp_path) not in (old, tmp_path / "x-deadbeef")


def test_images_of_version_1_were_rgb(tmp_path: Path):
    write_config(tmp_path, version_1(data={"name": "mnist"}))
    assert read_experiment(tmp_path).data.channels == 3


def test_a_layer_decay_of_version_1_is_evaluated_but_not_trained_on(tmp_path: Path):
    write_config(tmp_path, version_1(optim={"layer_decay": 0.8}))
    experiment = read_experiment(tmp_path)
    with pytest.raises(UserError, match=r"begun by version 0\.1 with config\.optim\.layer_decay=0\.8.*begin a new run"):
        check_claim(tmp_path, experiment)


def test_a_run_of_a_later_version_is_refused(tmp_path: Path):
    write_config(tmp_path, version_1() | {"format": 3})
    with pytest.raises(UserError, match=r"config\.json cannot be read \(it has format 3, .* reads up to 2; update it"):
        read_experiment(tmp_path)
