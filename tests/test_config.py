"""The typed experiment: what is accepted, what is refused, and in which words."""

import dataclasses
import itertools
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from convnext_jax.config import CHOICES, SECTIONS, Experiment, default_config, parse_experiment
from convnext_jax.errors import UserError
from convnext_jax.tools.command_line import check_names

CONFIG_FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(CONFIG_FOLDER.rglob("*.py"))


def test_the_defaults_are_those_of_the_dataclasses():
    assert parse_experiment(default_config()) == Experiment()


def test_every_field_reaches_the_experiment():
    changed = {"int": 7, "float": 0.5, "bool": False, "str": "word", "tuple": (1, 2)}
    config = default_config()
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            if (section, field.name) in CHOICES:
                config[section][field.name] = CHOICES[section, field.name][-1]
            else:
                kind = re.split(r"\W", str(getattr(field.type, "__name__", field.type)))[0]
                config[section][field.name] = changed[kind]
    config.run.batch_size = 14
    config.optim.min_learning_rate, config.optim.schedule = 0.25, "step"
    experiment = parse_experiment(config)
    for section, fields in experiment.to_dict().items():
        for name, value in fields.items():
            assert value == config[section][name], f"{section}.{name}"


def test_a_tuple_comes_from_json_too():
    assert parse_experiment({"model": {"depths": [1, 1, 2, 1]}}).model.depths == (1, 1, 2, 1)


def test_seeds_stay_within_32_bits():
    parse_experiment({"run": {"seed": 2**32 - 3, "seeds": 3}})
    with pytest.raises(UserError, match=r"run\.seeds=4 from config\.run\.seed=4294967293 on go beyond 4294967295"):
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
        ("data", "data_dir", 3, r"config\.data\.data_dir=3: must be of type str or none"),
        ("model", "drop_path", 1.0, r"config\.model\.drop_path=1\.0: must be in \[0, 1\)"),
        (
            "model",
            "dtype",
            "float16",
            r"config\.model\.dtype='float16': unknown; .*allowed: auto, float32, bfloat16",
        ),
        ("model", "depths", (1, 2.5, 1, 1), r"config\.model\.depths\[1\]=2\.5: must be of type int"),
        ("model", "dims", 40, r"config\.model\.dims=40: must be of type tuple or none"),
        ("model", "initialization", "fanin", r"initialization='fanin': unknown; did you mean 'fan_in'\?"),
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
            r"config\.runs\.batch_size: there is no section 'runs'; did you mean 'run'\?",
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
            {"model": {"norm": "batch"}, "optim": {"accumulation": 2}},
            r"config\.optim\.accumulation=2 would change .*config\.model\.norm='batch'",
        ),
        (
            {"model": {"norm": "batch"}, "optim": {"ema_decay": 0.99}},
            r"config\.optim\.ema_decay=0\.99 averages parameters, .*config\.model\.norm='batch'",
        ),
        ({"model": {"norm": "batch", "remat": True}}, r"config\.model\.remat=True would lose .*norm='batch'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_two_that_contradict_each_other_are_both_named(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        parse_experiment(settings)


@pytest.mark.parametrize(
    ("section", "field", "message"),
    [
        ("model", "name", "unknown model 'convnext_tinny': did you mean 'convnext_tiny'\\?"),
        ("model", "stem", "unknown stem 'convnext_tinny': .*allowed: .*patch4"),
        ("data", "name", r"unknown data set 'convnext_tinny'"),
    ],
)
def test_names_of_other_tables_are_checked_before_anything_loads(section: str, field: str, message: str):
    with pytest.raises(UserError, match=message):
        check_names(parse_experiment({section: {field: "convnext_tinny"}}))


def test_image_sizes_too_small_for_the_stem_are_refused_before_anything_loads():
    with pytest.raises(UserError, match="16x16 pixels are too small for the stem 'patch4': the smallest .* 32x32"):
        check_names(parse_experiment({"run": {"image_sizes": (32, 16)}}))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_is_sound_and_labelled(path: Path):
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
    return arguments + [("course_report", name) for name in ("convnext", "improved")]


@pytest.mark.parametrize("file", sorted({file for file, _ in paper_arguments()}))
def test_the_papers_configs_are_sound_with_each_argument_and_refuse_others(file: str):
    get_config = runpy.run_path(str(CONFIG_FOLDER / "papers" / f"{file}.py"))["get_config"]
    experiments = [parse_experiment(get_config(argument)) for name, argument in paper_arguments() if name == file]
    for experiment in experiments:
        check_names(experiment)
    assert len(set(map(str, experiments))) == len(experiments)
    with pytest.raises(UserError, match="--config ...:nonsense is"):
        get_config("nonsense")
