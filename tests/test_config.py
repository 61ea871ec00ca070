"""The typed experiment: what is accepted, what is refused, and in which words."""

import dataclasses
import itertools
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from convnext_jax.config import (
    CHOICES,
    SECTIONS,
    Experiment,
    check_field,
    default_config,
    own_field_kinds,
    parse_experiment,
    parse_sections,
)
from convnext_jax.errors import UserError
from convnext_jax.models.convnext import ConvNeXtArchitecture
from convnext_jax.models.efficientnet import EfficientNetArchitecture
from convnext_jax.models.googlenet import GoogLeNetArchitecture
from convnext_jax.models.interface import Architecture
from convnext_jax.models.mobilenet_v2 import MobileNetV2Architecture
from convnext_jax.models.preact_resnet import PreActResNetArchitecture
from convnext_jax.models.registry import INITIALIZATIONS
from convnext_jax.models.replknet import RepLKNetArchitecture
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.models.road_steps import road
from convnext_jax.models.table import MODELS
from convnext_jax.models.vit import ViTArchitecture
from convnext_jax.tools.command_line import check_names, load_experiment

CONFIG_FOLDER = ROOT / "configs"
CONFIGS = sorted(CONFIG_FOLDER.rglob("*.py"))
# Every field that all configurations have, with its default.
FIELDS = [
    (section, field.name, field.default)
    for section, cls in SECTIONS.items()
    for field in dataclasses.fields(cls)
    if field.name != "architecture"
]


# --- fields and their values


def test_the_defaults_are_those_of_the_dataclasses():
    assert parse_experiment(default_config()) == Experiment()


@pytest.mark.parametrize(("section", "field", "default"), FIELDS, ids=lambda value: str(value))
def test_every_field_has_a_default_that_passes_its_own_checks(section: str, field: str, default: Any):
    assert default is not dataclasses.MISSING
    fields = parse_sections({section: {field: default}})[section]
    assert (fields[field] if section == "model" else getattr(fields, field)) == default


def test_every_field_reaches_the_experiment():
    changed = {"int": 7, "float": 0.75, "bool": False, "str": "word", "tuple": (1, 2)}
    config = default_config()
    fields = [each for each in FIELDS if each[0] != "task"]  # masks cannot follow what the others change
    for section, field, default in fields:
        kind = re.split(r"\W", str(SECTIONS[section].__annotations__[field]).removeprefix("<class '"))[0]
        config[section][field] = CHOICES.get((section, field), (changed[kind],))[-1]
        if kind == "bool":
            config[section][field] = not default
    config.model.name, config.model.initialization = "resnet18", "fan_in"
    config.data.channels = 2
    config.run.batch_size = 14
    config.augment.zoom = 2.0
    config.optim.min_learning_rate, config.optim.schedule = 0.25, "step"
    settings = parse_experiment(config).to_dict()
    defaults = Experiment().to_dict()
    for section, field, _ in fields:
        assert settings[section][field] == config[section][field] != defaults[section][field], f"{section}.{field}"


def test_every_field_of_the_task_reaches_the_experiment():
    changed: dict[str, Any] = {
        name: 0.5 if isinstance(default, float) else False if isinstance(default, bool) else 7
        for section, name, default in FIELDS
        if section == "task"
    }
    changed |= {"name": "multitask", "head": "upernet", "loss": "dice+focal", "dice_over": "batch"}
    defaults = Experiment().to_dict()["task"]
    assert parse_experiment({"task": changed}).to_dict()["task"] == changed
    assert all(value != defaults[name] for name, value in changed.items())


# What some choices need of other fields.
OF_MASKS = {"name": "segmentation"}
NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    ("schedule", "step"): {"decay_epochs": (50, 75)},
    ("head", "upernet"): OF_MASKS,
    ("dice_over", "batch"): OF_MASKS,
}


@pytest.mark.parametrize(
    ("section", "field", "choice"),
    [(section, field, choice) for (section, field), choices in CHOICES.items() for choice in choices],
)
def test_every_choice_is_accepted(section: str, field: str, choice: str):
    experiment = parse_experiment({section: {field: choice, **NEEDED.get((field, choice), {})}})
    assert getattr(getattr(experiment, section), field) == choice


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_every_initialization_is_accepted(initialization: str):
    assert parse_experiment({"model": {"initialization": initialization}}).model.initialization == initialization


@pytest.mark.parametrize("value", [None, "None", "none", ""])
def test_what_may_be_left_out_can_be_taken_back(value: str | None):
    fields = parse_sections({"data": {"channels": value, "data_dir": value}, "optim": {"clip_norm": value}})
    assert fields["data"].channels is fields["data"].data_dir is fields["optim"].clip_norm is None


def test_a_tuple_comes_from_json_too():
    experiment = parse_experiment({"model": {"depths": [1, 1, 2, 1]}, "run": {"image_sizes": [24, 32]}})
    assert experiment.model.architecture.depths == (1, 1, 2, 1) and experiment.run.image_sizes == (24, 32)


def test_seeds_stay_within_32_bits():
    parse_experiment({"run": {"seed": 2**32 - 3, "seeds": 3}})
    with pytest.raises(UserError, match=r"run\.seeds=4 from config\.run\.seed=4294967293 on goes beyond 4294967295"):
        parse_experiment({"run": {"seed": 2**32 - 3, "seeds": 4}})


def test_the_experiment_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().run.seed = 1  # type: ignore[misc]


def test_a_whole_number_is_a_float():
    value = parse_experiment({"optim": {"weight_decay": 1}}).optim.weight_decay
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("run", "batch_size", 0, r"config\.run\.batch_size=0: must be in \[1, "),
        ("run", "epochs", -3, r"config\.run\.epochs=-3: must be in \[1, "),
        ("run", "seed", 2**32, r"config\.run\.seed=4294967296: must be in \[0, 4294967296\)"),
        ("run", "batch_size", 1.5, r"config\.run\.batch_size=1\.5: must be of type int"),
        ("run", "batch_size", True, r"config\.run\.batch_size=True: must be of type int"),
        ("augment", "flip", True, r"config\.augment\.flip=True: must be of type str"),
        ("augment", "flip", "alternate", r"config\.augment\.flip='alternate': unknown; did you mean 'alternating'\?"),
        ("augment", "policy", "randaug", r"config\.augment\.policy='randaug': unknown; did you mean 'randaugment'\?"),
        ("augment", "resized_crop_area", 0.0, r"resized_crop_area=0\.0: must be greater than 0"),
        ("augment", "erasing_probability", 1.1, r"erasing_probability=1\.1: must be in \[0, 1\]"),
        ("augment", "mix_probability", -0.1, r"mix_probability=-0\.1: must be in \[0, 1\]"),
        ("optim", "ema_decay", 1.0, r"config\.optim\.ema_decay=1\.0: must be in \[0, 1\)"),
        ("optim", "accumulation", 3, r"accumulation=3 does not divide config\.run\.batch_size=128"),
        ("run", "image_sizes", (0, 32), r"image_sizes=\(0, 32\): must be in \[1, 4096\], at most one for each"),
        ("augment", "crop_padding", -1, r"config\.augment\.crop_padding=-1: must be in \[0, "),
        ("data", "image_size", 0, r"config\.data\.image_size=0: must be in \[1, "),
        ("data", "channels", 5, r"config\.data\.channels=5: must be in \[1, 4\]"),
        ("data", "channels", 0, r"config\.data\.channels=0: must be in \[1, 4\]"),
        ("data", "data_dir", 3, r"config\.data\.data_dir=3: must be of type str or none"),
        ("model", "drop_path", 1.0, r"config\.model\.drop_path=1\.0: must be in \[0, 1\)"),
        (
            "model",
            "dtype",
            "float16",
            r"config\.model\.dtype='float16': unknown; .*allowed: auto, float32, bfloat16",
        ),
        ("model", "depths", (1, 2.5, 1, 1), r"config\.model\.depths\[1\]=2\.5: must be of type int"),
        ("model", "dims", 40, r"config\.model\.dims=40: must be of type tuple$"),
        ("model", "kernel_size", 4, r"config\.model\.kernel_size=4: must be odd and positive"),
        ("model", "depths", (1, 1), r"config\.model\.depths=\(1, 1\): must be four positive numbers"),
        (
            "model",
            "stem",
            "patch3",
            r"config\.model\.stem='patch3': unknown; did you mean '.*'\? allowed: patch4, ",
        ),
        ("model", "initialization", "fanin", r"initialization='fanin': unknown; did you mean 'fan_in'\?"),
        ("optim", "layer_decay_levels", "group", r"layer_decay_levels='group': unknown; did you mean 'grouped'\?"),
        ("optim", "layer_decay", 1.5, r"config\.optim\.layer_decay=1\.5: must be in \[0, 1\]"),
        ("optim", "layer_decay", 0.0, r"config\.optim\.layer_decay=0\.0: must be greater than 0"),
        ("optim", "name", "adam", r"config\.optim\.name='adam': unknown; did you mean 'adamw'\?"),
        (
            "optim",
            "learning_rate",
            float("nan"),
            r"config\.optim\.learning_rate=nan: must be a finite number",
        ),
        ("optim", "learning_rate", 0.0, r"config\.optim\.learning_rate=0\.0: must be greater than 0"),
        ("optim", "label_smoothing", 1.0, r"config\.optim\.label_smoothing=1\.0: must be in \[0, 1\)"),
        (
            "optim",
            "warmup_epochs",
            101.0,
            r"warmup_epochs=101 is longer than the run of config\.run\.epochs=100",
        ),
        (
            "optim",
            "min_learning_rate",
            0.1,
            r"min_learning_rate=0\.1 is above its peak config\.optim\.learning_rate",
        ),
        ("data", "validation_fraction", 1.0, r"config\.data\.validation_fraction=1\.0: must be in \[0, 1\)"),
        ("run", "seeds", 0, r"config\.run\.seeds=0: must be in \[1, "),
        ("optim", "clip_norm", 0.0, r"config\.optim\.clip_norm=0\.0: must be greater than 0"),
        (
            "run",
            "bath_size",
            8,
            r"config\.run\.bath_size: there is no such field; did you mean 'batch_size'\?",
        ),
        (
            "runs",
            "batch_size",
            8,
            r"^config\.runs: there is no section 'runs'; did you mean 'run'\?",
        ),
    ],
)
def test_what_is_wrong_is_named(section: str, field: str, value: Any, message: str):
    with pytest.raises(UserError, match=message):
        parse_experiment({section: {field: value}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"augment": {"cutmix_alpha": 1.0}, "run": {"batch_size": 7}},
            r"config\.augment\.cutmix_alpha=1 mixes images in pairs and config\.run\.batch_size=7 is odd",
        ),
        (
            {"optim": {"schedule": "step"}},
            r"config\.optim\.schedule=step: config\.optim\.decay_epochs must be given",
        ),
        (
            {"optim": {"decay_epochs": (50,)}},
            r"config\.optim\.decay_epochs=\(50,\) is for config\.optim\.schedule=step, not cosine",
        ),
        (
            {"optim": {"schedule": "step", "decay_epochs": (50, 100)}},
            r"config\.optim\.decay_epochs=\(50, 100\): must be .* before the end of the run at config\.run\.epochs=100",
        ),
        (
            {"optim": {"schedule": "one_cycle", "warmup_epochs": 0}},
            r"config\.optim\.schedule=one_cycle peaks at config\.optim\.warmup_epochs=0, .* config\.run\.epochs=100",
        ),
        (
            {"optim": {"schedule": "warmup_stable_decay", "warmup_epochs": 90, "decay_fraction": 0.2}},
            r"config\.optim\.warmup_epochs=90 reaches into the last config\.optim\.decay_fraction=0\.2",
        ),
        (
            {"run": {"image_sizes": (16, 24, 32), "epochs": 2}},
            r"config\.run\.image_sizes=\(16, 24, 32\): must be .* at most one for each of config\.run\.epochs=2",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_two_that_contradict_each_other_are_both_named(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        parse_experiment(settings)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("model", r"unknown model 'convnext_tinny': did you mean 'convnext_tiny'\?"),
        ("data", "unknown data set 'convnext_tinny'"),
    ],
)
def test_names_are_checked_before_anything_loads(section: str, message: str):
    with pytest.raises(UserError, match=message):
        check_names(parse_experiment({section: {"name": "convnext_tinny"}}))


def test_image_sizes_too_small_for_the_model_are_refused_before_anything_loads():
    with pytest.raises(UserError, match="16x16 pixels are too small .* 32x32; enlarge them or choose a stem of less"):
        check_names(parse_experiment({"run": {"image_sizes": (32, 16)}}))


def test_everything_but_the_networks_own_fields_is_checked_without_jax():
    code = (
        "import sys\n"
        "from convnext_jax.config import default_config, parse_sections\n"
        "from convnext_jax.errors import UserError\n"
        "parse_sections(default_config())\n"
        "parse_sections({'model': {'name': 'resnet18', 'stem': 'conv3x3_s1'}, 'run': {'epochs': 8}})\n"
        "try: parse_sections({'run': {'epochs': 0}})\n"
        "except UserError as error: print(error)\n"
        "print(sorted({'jax', 'flax', 'optax', 'numpy.linalg'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["config.run.epochs=0: must be in [1, 1000000]", "[]"]


# --- the fields of the network's family

FAMILIES: dict[str, Architecture] = {
    "convnext_atto": ConvNeXtArchitecture((1, 1, 1, 1), (8, 8, 16, 16), stem="patch2", kernel_size=3, norm="batch"),
    "resnet18": ResNetArchitecture((1, 2), "basic", width=16, stem="conv3x3_s1"),
    "resnext29_8x64d": ResNetArchitecture((1, 2), width=16, shortcut="pad", groups=4, width_per_group=8),
    "preact_resnet164": PreActResNetArchitecture((1, 2), width=8),
    "mobilenet_v2": MobileNetV2Architecture(0.5, strides=(1, 2, 2)),
    "efficientnet_b0": EfficientNetArchitecture(0.5, 2.0, (1, 2), momentum=0.2, epsilon=1e-4),
    "replknet31b": RepLKNetArchitecture((5,), (2,), (8,), stem="stride1", small_kernel=0, merged=True),
    "vit_tiny_patch4": ViTArchitecture(32, 4, 2, patch_size=4, image_size=32, expansion=2),
    "googlenet": GoogLeNetArchitecture((1, 2, 1), auxiliary_heads=False, auxiliary_dropout=0.5),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_takes_the_fields_of_its_family(name: str):
    fields = dataclasses.asdict(FAMILIES[name])
    assert own_field_kinds(name).keys() == fields.keys()
    experiment = parse_experiment({"model": {"name": name, "drop_path": 0.1} | fields})
    assert experiment.model.architecture == FAMILIES[name] != MODELS[name]
    # As a workdir keeps it.
    assert parse_experiment(experiment.to_dict()) == experiment


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_not_given_stays_as_the_name_says(name: str):
    assert parse_experiment({"model": {"name": name}}).model.architecture == MODELS[name]


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("convnext_tiny", "foo", 1), ("resnet18", "kernel_size", 5), ("vit_tiny_patch4", "stem", "patch2")],
)
def test_a_field_of_another_family_is_refused_with_a_list(name: str, field: str, value: Any):
    with pytest.raises(UserError, match=rf"^config\.model\.{field}: {name} has no such field; ") as refused:
        parse_experiment({"model": {"name": name, field: value}})
    listed = str(refused.value).partition("allowed: ")[2].split(", ")
    shared = [field for section, field, _ in FIELDS if section == "model"]
    assert listed == [*shared, *own_field_kinds(name)]


def test_whether_a_field_exists_is_known_without_its_family():
    check_field("model.whatever")
    check_field("run.epochs")
    with pytest.raises(UserError, match=r"config\.run\.epoch: there is no such field; did you mean 'epochs'\?"):
        check_field("run.epoch")


# --- a config file and the command line


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / "experiment.py"
    path.write_text(
        "from convnext_jax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.model.name = 'convnext_atto'\n"
        "    config.model.stem = 'patch2'\n"
        "    config.model.kernel_size = 5\n"
        "    config.model.drop_path = 0.25\n"
        "    return config\n"
    )
    return str(path)


def test_the_command_line_sets_any_field(config_file: str):
    overrides = ["--config.model.kernel_size=3", "--config.model.grn", "--config.run.epochs", "7"]
    overrides += ["--config.model.depths=(1,1,2,1)", "--noconfig.optim.nesterov", "--config.data.channels=1"]
    experiment = load_experiment(config_file, overrides)
    expected = dataclasses.replace(MODELS["convnext_atto"], stem="patch2", kernel_size=3, grn=True, depths=(1, 1, 2, 1))
    assert experiment.model.architecture == expected
    assert experiment.run.epochs == 7 and not experiment.optim.nesterov and experiment.data.channels == 1


@pytest.mark.parametrize("value", ["None", "none", ""])
def test_the_command_line_takes_back_what_may_be_left_out(tmp_path: Path, value: str):
    path = tmp_path / "config.py"
    text = "from convnext_jax.config import default_config\ndef get_config():\n  config = default_config()\n"
    path.write_text(f"{text}  config.data.image_size, config.optim.clip_norm = 32, 1.0\n  return config\n")

    def fields(*overrides: str) -> tuple[int | None, float | None, int]:
        experiment = load_experiment(str(path), overrides)
        return experiment.data.image_size, experiment.optim.clip_norm, experiment.run.seed

    size, clip = "--config.data.image_size", "--config.optim.clip_norm"
    assert fields() == (32, 1.0, 0)
    assert fields(f"{size}={value}", f"{clip}={value}", "--config.run.seed=3") == (None, None, 3)
    assert fields(size, value, "--config.run.seed", "3", clip, value) == (None, None, 3)
    # As with any other flag, the last one counts.
    assert fields(f"{clip}={value}", f"{size}={value}", f"{clip}=0.5", size, "8") == (8, 0.5, 0)
    assert fields(clip, "0.5", f"{size}=8", f"{clip}={value}", f"{size}={value}") == (None, None, 0)


def test_of_a_tuple_that_is_given_twice_the_last_one_counts(config_file: str):
    decay, depths = "--config.optim.decay_epochs", "--config.model.depths"
    overrides = ["--config.optim.schedule=step", f"{decay}=10", depths, "(2,2,6,2)"]
    experiment = load_experiment(config_file, [*overrides, f"{decay}=20,25", depths, "(1,1,2,1)"])
    assert experiment.optim.decay_epochs == (20, 25)
    assert experiment.model.architecture.depths == (1, 1, 2, 1)  # type: ignore[attr-defined]


def test_a_model_of_the_same_family_keeps_what_the_file_says_of_it(config_file: str):
    model = load_experiment(config_file, ["--config.model.name=convnextv2_nano"]).model
    assert model.architecture == dataclasses.replace(MODELS["convnextv2_nano"], stem="patch2", kernel_size=5)


@pytest.mark.parametrize("name", [["--config.model.name=resnet18"], ["--config.model.name", "resnet18"]])
def test_a_model_of_another_family_drops_what_the_file_says_of_its_own(config_file: str, name: list[str]):
    model = load_experiment(config_file, name).model
    # What all families share stays.
    assert model.name == "resnet18" and model.drop_path == 0.25
    assert model.architecture == MODELS["resnet18"]
    model = load_experiment(config_file, [*name, "--config.model.stem=conv3x3_s1", "--config.model.width=32"]).model
    assert model.architecture == dataclasses.replace(MODELS["resnet18"], stem="conv3x3_s1", width=32)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.model.width=8"], r"config\.model\.width: convnext_atto has no such field; .*allowed: name, .*stem"),
        (
            ["--config.model.name=resnet18", "--config.model.kernel_size=5"],
            r"config\.model\.kernel_size: resnet18 has no such field; .*allowed: name, .*width, stem, .*groups, \w+$",
        ),
        (["--config.model.name=resnet19"], r"unknown model 'resnet19': did you mean 'resnet\d+'\?"),
        (["--config.model.kernel_size=4"], r"config\.model\.kernel_size=4: must be odd and positive"),
        (["--config.run.epoch=4"], r"config\.run\.epoch: there is no such field; did you mean 'epochs'\?"),
        (["--epochs=4"], "unknown flag --epochs; see --help"),
        (["--config.run.epochs=1e2"], r"^config\.run\.epochs='1e2': must be of type int$"),
        (["--config.run.seed=None"], r"^config\.run\.seed='None': must be of type int$"),
        (["--config.data.channels", "two"], r"^config\.data\.channels='two': must be of type int or none$"),
        (["--config.optim.learning_rate=1,5"], r"^config\.optim\.learning_rate='1,5': must be of type float$"),
        (["--config.optim.nesterov=yes"], r"^config\.optim\.nesterov='yes': must be of type bool$"),
        (["--config.model.depths=(1,2"], r"^config\.model\.depths.*must be of type"),
        (["--config.model.kernel_size.x=3"], r"^config\.model\.kernel_size\.x: no field can have this name; .*\.NAME$"),
        (["--config.model.=3"], r"^config\.model\.: no field can have this name"),
        (["--config.model.items=3"], r"^config\.model\.items: no field can have this name"),
        (["--config.model.dims[0]=3"], r"^config\.model\.dims\[0\]: no field can have this name"),
        (["--config.optim.clip_norm"], r"Missing value for flag --config\.optim\.clip_norm"),
        (["digits"], "unexpected argument 'digits'"),
    ],
)
def test_a_wrong_override_is_refused(config_file: str, overrides: list[str], message: str):
    with pytest.raises(UserError, match=message):
        load_experiment(config_file, overrides)


# --- the config files of this project


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_is_sound_and_labeled(path: Path):
    module = runpy.run_path(str(path))
    check_names(parse_experiment(module["get_config"]()))
    assert f"python train.py --config configs/{path.relative_to(CONFIG_FOLDER)}" in module["__doc__"]


def paper_arguments() -> list[tuple[str, str]]:
    """Every config of a paper with every argument that it takes."""
    papers = CONFIG_FOLDER / "papers"
    multiscale = runpy.run_path(str(papers / "multiscale.py"))
    both = itertools.product(multiscale["RECIPES"], multiscale["MODELS"])
    arguments = [("multiscale", f"{recipe}/{model}") for recipe, model in both]
    arguments += [("openmixup", name) for name in ("deit", "vanilla")]
    arguments += [("road", f"{size}/{step}") for size in ("tiny", "base") for step in road(size)]
    arguments += [("survey", name) for name in ("lenet5", "resnet20", "cct_7_3x1", "swin_tiny_patch2_window4")]
    course_report = runpy.run_path(str(papers / "course_report.py"))
    return arguments + [("course_report", name) for name in course_report["MODELS"]]


def test_the_fast_config_is_sound_with_each_argument_and_refuses_others():
    module = runpy.run_path(str(CONFIG_FOLDER / "fast.py"))
    experiments = [parse_experiment(module["get_config"](name)) for name in module["RUNS"]]
    names = ["cifar100", "cifar100", "cifar100", "cifar10", "cifar10"]
    assert [experiment.data.name for experiment in experiments] == names
    assert len(set(map(str, experiments))) == len(experiments)
    for experiment in experiments:
        check_names(experiment)
    with pytest.raises(UserError, match="--config ...:cifar1000 is not one of these runs; did you mean 'cifar100'"):
        module["get_config"]("cifar1000")


@pytest.mark.parametrize("file", sorted({file for file, _ in paper_arguments()}))
def test_the_papers_configs_are_sound_with_each_argument_and_refuse_others(file: str):
    get_config = runpy.run_path(str(CONFIG_FOLDER / "papers" / f"{file}.py"))["get_config"]
    experiments = [parse_experiment(get_config(argument)) for name, argument in paper_arguments() if name == file]
    for experiment in experiments:
        check_names(experiment)
    assert len(set(map(str, experiments))) == len(experiments)
    with pytest.raises(UserError, match="--config ...:nonsense is"):
        get_config("nonsense")
