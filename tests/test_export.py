"""A trained network in the formats of other software, and what is wrong with a request for one."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from jax import export
from networks import FAMILIES, TINY
from photographs import photographs
from PIL import Image
from safetensors.numpy import load_file
from tiny import tiny_dataset, tiny_experiment
from tiny_run import run_model, write_run

import convnext_jax
from convnext_jax import data
from convnext_jax.config import TaskConfig
from convnext_jax.errors import UserError
from convnext_jax.evaluate.opened_classifier import OpenedClassifier, open_classifier
from convnext_jax.export.folder import write_export
from convnext_jax.export.one_platform import for_one_platform
from convnext_jax.export.onnx_model import run_onnx
from convnext_jax.export.pytorch_models import pytorch_model
from convnext_jax.models import create_model, merge_model, split_model
from convnext_jax.models.interface import Architecture
from convnext_jax.models.parameters import flat
from convnext_jax.models.table import MODELS
from convnext_jax.models.torch_import import import_state_dict
from convnext_jax.ops.convolution import plain_convolutions
from convnext_jax.tools.export import main
from convnext_jax.workdir.dataset_record import DatasetRecord

IMAGES = photographs(16, 16)  # the size of the training
SMALL = dataclasses.replace(TINY, kernel_size=7)  # as every library has it


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "tiny", architecture=SMALL)


@pytest.fixture
def network(workdir: Path) -> OpenedClassifier:
    return open_classifier(workdir)


def logits(network: OpenedClassifier, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(network.forward)(network.params, network.batch_stats, images))


def with_architecture(network: OpenedClassifier, name: str, **fields: Any) -> OpenedClassifier:
    """The network as if it were another one, for what needs no weights."""
    architecture = dataclasses.replace(MODELS[name], **fields)
    return dataclasses.replace(network, model=name, architecture=architecture)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convnext_jax.tools.export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


# --- weights


@pytest.mark.parametrize("library", ["timm", "transformers", "facebookresearch", "torchvision"])
def test_weights_for_pytorch_come_back_as_they_were(
    network: OpenedClassifier, tmp_path: Path, library: str, monkeypatch
):
    monkeypatch.setitem(MODELS, "tiny", SMALL)
    write_export(dataclasses.replace(network, model="tiny"), library, tmp_path / "out")
    state = load_file(tmp_path / "out" / "model.safetensors")
    imported = import_state_dict(state, "tiny")
    assert imported.layout == library
    jax.tree.map(
        np.testing.assert_array_equal, flat(imported.params), flat(split_model(run_model(architecture=SMALL))[1])
    )


def test_running_statistics_are_written_with_the_count_that_pytorch_misses(network: OpenedClassifier, tmp_path: Path):
    architecture = dataclasses.replace(MODELS["resnet18"], depths=(1, 1, 1, 1))
    _, params, batch_stats = split_model(create_model(architecture, num_classes=4))
    resnet = dataclasses.replace(
        network, model="resnet18", architecture=architecture, params=params, batch_stats=batch_stats
    )
    write_export(resnet, "torchvision", tmp_path / "out")
    state, statistics = load_file(tmp_path / "out" / "model.safetensors"), flat(batch_stats)
    np.testing.assert_array_equal(state["bn1.running_var"], statistics["stem/norm/variance"])
    assert state["bn1.num_batches_tracked"].dtype == np.int64
    assert sum(name.endswith("num_batches_tracked") for name in state) == len(statistics) // 2


def test_transformers_is_told_what_the_network_is(network: OpenedClassifier, tmp_path: Path):
    write_export(network, "transformers", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "convnext" and config["architectures"] == ["ConvNextForImageClassification"]
    assert config["depths"] == list(SMALL.depths) and config["hidden_sizes"] == list(SMALL.dims)
    assert config["id2label"] == {str(i): name for i, name in enumerate(network.classes)}
    assert config["layer_norm_eps"] == 1e-6  # the default of its last norm is another
    preprocessing = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert preprocessing["size"] == {"shortest_edge": 16} and preprocessing["crop_pct"] == 1.0
    assert preprocessing["resample"] == Image.Resampling.BICUBIC  # as data.decode does
    assert preprocessing["image_mean"] == list(network.preprocess.mean)
    state = load_file(tmp_path / "out" / "model.safetensors")
    outside = [name for name in state if not name.startswith("convnext.")]
    assert sorted(outside) == ["classifier.bias", "classifier.weight"]


def test_a_stem_that_a_library_does_not_have_is_replaced_in_the_code(network: OpenedClassifier):
    fine = pytorch_model(with_architecture(network, "convnext_tiny"), "timm")
    assert fine.code.splitlines()[2] == 'model = timm.create_model("local-dir:.", pretrained=True)'
    assert fine.files["config.json"]["model_args"]["patch_size"] == 4
    assert fine.files["config.json"]["pretrained_cfg"]["interpolation"] == "bicubic"
    for stem, line in {
        "conv3x3_s1": "model.stem[0] = torch.nn.Conv2d(3, 96, 3, stride=1, padding=1)",
        "patch2": "model.stem[0] = torch.nn.Conv2d(3, 96, 2, stride=2)",  # timm would halve the map once more
    }.items():
        other = pytorch_model(with_architecture(network, "convnext_tiny", stem=stem), "timm")
        assert line in other.code.splitlines() and not other.files and "patch_size=4" in other.code
    transformers = pytorch_model(with_architecture(network, "convnext_tiny", stem="patch2"), "transformers")
    assert transformers.files["config.json"]["patch_size"] == 2 and "Conv2d" not in transformers.code
    small = pytorch_model(with_architecture(network, "resnet50_small_stem"), "timm")
    assert "model.maxpool = torch.nn.Identity()" in small.code.splitlines()


def test_a_resnet_is_built_with_its_own_width_and_block(network: OpenedClassifier):
    wide = with_architecture(network, "resnet50", width_per_group=128)
    assert "ResNet(Bottleneck, [3, 4, 6, 3], num_classes=4, groups=1, width_per_group=128)" in (
        pytorch_model(wide, "torchvision").code
    )
    assert pytorch_model(wide, "timm").files["config.json"]["model_args"]["base_width"] == 128
    config = pytorch_model(with_architecture(network, "resnet18", block="bottleneck"), "timm").files["config.json"]
    assert config["architecture"] == "resnet50" and config["model_args"]["layers"] == [2, 2, 2, 2]
    # timm's own network of this name has 32 groups.
    plain = with_architecture(network, "resnext50_32x4d", groups=1, width_per_group=64)
    arguments = pytorch_model(plain, "timm").files["config.json"]["model_args"]
    assert (arguments["cardinality"], arguments["base_width"]) == (1, 64)


@pytest.mark.parametrize(
    ("name", "fields", "library", "message"),
    [
        (
            "convnext_multiscale",
            {},
            "timm",
            "timm has no names for the weights of convnext_multiscale; take one of onnx",
        ),
        ("convnextv2_atto", {}, "torchvision", "torchvision has no names .*; take one of facebookresearch, timm, tran"),
        ("convnext_tiny", {"kernel_size": 5}, "transformers", "model.kernel_size=5, and its models have kernel_size=7"),
        ("convnext_tiny", {"norm": "batch"}, "timm", "model.norm=batch, and its models have norm=layer alone"),
        ("convnext_tiny", {"layer_scale": 0.0}, "torchvision", "layer_scale=0, and its models have a layer scale in"),
        ("convnext_tiny", {"stem": "conv7x7_patch2"}, "timm", "a stem of one convolution; take onnx, stablehlo or"),
        ("convnext_tiny", {"activation": "relu"}, "torchvision", "model.activation=relu"),
        ("resnext29_8x64d", {}, "timm", "^--format timm: resnext29_8x64d with model.width=64, .* four stages"),
        ("vit_tiny_patch4", {}, "timm", "made for 32 px and is given 16x16; timm has one size; take onnx"),
        ("swin_tiny_patch2_window4", {}, "timm", "maps of 1 pixels a side and model.window=4, .* no larger than a map"),
    ],
)
def test_what_a_library_cannot_compute_is_refused(
    network: OpenedClassifier, name: str, fields: dict[str, Any], library: str, message: str
):
    with pytest.raises(UserError, match=message):
        pytorch_model(with_architecture(network, name, **fields), library)


def test_a_folder_of_weights_in_bfloat16_answers_alike_and_says_so(
    network: OpenedClassifier, workdir: Path, tmp_path: Path
):
    lines = write_export(network, "convnext_jax", tmp_path / "weights", stored="bfloat16")
    assert lines == ["parameters rounded to bfloat16; figures are those of float32"]
    assert f"- {lines[0]}" in (tmp_path / "weights" / "README.md").read_text()
    ours, found = (
        convnext_jax.load(folder, image_size=16).predict(IMAGES) for folder in (workdir, tmp_path / "weights")
    )
    assert 0 < np.abs(found - ours).max() < 0.02


def test_a_folder_of_weights_is_a_format_and_can_be_exported(network: OpenedClassifier, workdir: Path, tmp_path: Path):
    write_export(network, "convnext_jax", tmp_path / "weights")
    ours = convnext_jax.load(workdir).predict(IMAGES)
    np.testing.assert_allclose(convnext_jax.load(tmp_path / "weights").predict(IMAGES), ours, rtol=1e-5)
    again = open_classifier(tmp_path / "weights")
    write_export(again, "timm", tmp_path / "timm")
    card = (tmp_path / "timm" / "README.md").read_text()
    assert card.count("Not known to the exporter.") == 2 and "weights of step 10 of tiny" in card


def test_a_folder_of_weights_knows_both_sizes_of_the_images(tmp_path: Path):
    run = write_run(tmp_path / "run", tiny_experiment(SMALL, image_sizes=(16, 32)), architecture=SMALL)
    write_export(open_classifier(run), "convnext_jax", tmp_path / "weights")
    assert 'convnext_jax.load(".")' in (tmp_path / "weights" / "README.md").read_text()
    pictures = [Image.fromarray(image) for image in photographs(60, 90)]
    ours, found = (convnext_jax.load(folder).predict(pictures) for folder in (run, tmp_path / "weights"))
    np.testing.assert_allclose(found, ours, rtol=1e-5)
    assert np.abs(convnext_jax.load(tmp_path / "weights", image_size=16).predict(pictures) - ours).max() > 1e-3
    write_export(open_classifier(run), "timm", tmp_path / "timm")
    card = (tmp_path / "timm" / "README.md").read_text()
    assert "these are then resized to 32x32 (bilinear). The library's own transform goes to 32x32 at once" in card


# --- programs


def test_a_program_runs_where_there_is_only_jax(network: OpenedClassifier, tmp_path: Path):
    lines = write_export(network, "stablehlo", tmp_path / "out")
    assert len(lines) == 1 and lines[0].startswith("largest difference of the logits on 8 random images: ")
    assert float(lines[0].rpartition(" ")[2]) < 1e-5
    np.save(tmp_path / "images.npy", IMAGES)
    code = f"""
import sys
import numpy as np
from jax import export
program = export.deserialize(bytearray(open({str(tmp_path / "out" / "model.stablehlo")!r}, "rb").read()))
images = np.load({str(tmp_path / "images.npy")!r})
np.save({str(tmp_path / "one.npy")!r}, program.call(images[:1]))
np.save({str(tmp_path / "all.npy")!r}, program.call(images))
print(sorted({{"flax", "convnext_jax", "optax"}} & sys.modules.keys()), program.platforms)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[] ('cpu', 'cuda', 'tpu')\n"
    expected = logits(network, IMAGES)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), expected[:1], rtol=0, atol=1e-5)


# The families whose last dimensions follow from the batch would fail here, and so would a converter's.
@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_can_be_traced_for_any_batch_and_without_forms_for_one_platform(family: str):
    architecture: Architecture = FAMILIES[family]
    definition, *trees = split_model(create_model(architecture, num_classes=3))
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
    plain = for_one_platform(lambda images: merge_model(definition, *trees)(images))
    with plain_convolutions():
        program = jax.jit(plain).trace(images).jaxpr
    assert program.out_avals[0].shape == (batch, 3)
    used = {equation.primitive.name for equation in program.jaxpr.eqns}
    assert "conv_general_dilated" in used
    assert not used & {"platform_index", "cond", "custom_vjp_call"}


def test_the_plain_form_of_a_network_computes_the_same(network: OpenedClassifier):
    plain = for_one_platform(network.forward)
    found = jax.jit(plain)(network.params, network.batch_stats, IMAGES)
    np.testing.assert_allclose(found, logits(network, IMAGES), rtol=0, atol=1e-5)


def test_the_form_of_a_platform_is_chosen_and_operations_are_replaced():
    def function(x: jax.Array) -> jax.Array:
        chosen = jax.lax.platform_dependent(x, cpu=lambda x: x + 1, tpu=lambda x: x + 2, default=lambda x: x + 3)
        return jax.lax.sin(jax.jit(lambda y: 10 * y)(chosen))

    replacements = {"sin": lambda x, **_: x}
    for platform, expected in (("cpu", 10.0), ("tpu", 20.0), ("cuda", 30.0), (None, 30.0)):
        assert for_one_platform(function, platform, replacements)(jnp.float32(0)) == expected


def test_onnx_runtime_gives_the_same_answers(network: OpenedClassifier, workdir: Path, tmp_path: Path):
    done = run("--workdir", workdir, "--format", "onnx", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = logits(network, IMAGES)
    for count in (1, len(IMAGES)):
        (found,) = session.run(None, {"images": IMAGES[:count]})
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(network.classes)
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["classes"] == list(network.classes)


def test_a_network_that_enlarges_its_images_does_so_in_onnx_for_any_batch(tmp_path: Path):
    run = write_run(tmp_path / "run", tiny_experiment(SMALL, image_sizes=(16, 32)), architecture=SMALL)
    network = open_classifier(run)
    write_export(network, "onnx", tmp_path / "out")
    assert jnp.cumsum(jnp.ones((2, 3)), 1)[0].tolist() == [1, 2, 3], "jax.numpy is as it was"
    found = run_onnx(tmp_path / "out" / "model.onnx")
    np.testing.assert_allclose(found(IMAGES), logits(network, IMAGES), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found(IMAGES[:1]), found(IMAGES)[:1], rtol=0, atol=1e-5)


def test_eight_bits_are_measured_on_the_test_split(tmp_path: Path):
    train = [sys.executable, "train.py", "--config", "configs/digits.py", "--workdir", str(tmp_path / "run")]
    small = ("depths=(1,1,1,1)", "dims=(8,8,8,8)")
    fields = [
        *(f"--config.model.{field}" for field in small),
        "--config.run.epochs=1",
        "--config.optim.warmup_epochs=0",
    ]
    subprocess.run([*train, *fields], cwd=ROOT, check=True, capture_output=True)
    done = run("--workdir", tmp_path / "run", "--format", "onnx_int8", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "quantization.json").read_text())
    assert figures["test_images"] == 359 and figures["calibration_images"] == 512
    final = json.loads((tmp_path / "run" / "summary.json").read_text())["final"]
    assert figures["top1_float32"] == pytest.approx(final["test/top1"])
    assert abs(figures["top1_int8"] - figures["top1_float32"]) < 0.1
    assert figures["bytes_int8"] == (tmp_path / "out" / "model.onnx").stat().st_size


def test_eight_bits_are_calibrated_at_the_size_of_the_training(workdir: Path, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(data, "load", lambda config: tiny_dataset())
    with pytest.raises(UserError, match="on the images of the training, of 16x16 pixels; leave --image_size out"):
        write_export(open_classifier(workdir, image_size=32), "onnx_int8", tmp_path / "out")


def test_eight_bits_of_other_data_are_refused_without_an_option_that_only_evaluation_has(
    network: OpenedClassifier, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setattr(data, "load", lambda config: tiny_dataset(train=44))
    with pytest.raises(UserError, match="give the right --data_dir$"):
        write_export(network, "onnx_int8", tmp_path / "out")


def test_a_network_that_predicts_masks_cannot_be_exported(tmp_path: Path, monkeypatch: Any):
    experiment = dataclasses.replace(tiny_experiment(), task=TaskConfig(name="segmentation"))
    record = dataclasses.replace(DatasetRecord.of(tiny_dataset()), mask_names=("dark", "bright"))
    write_run(tmp_path / "run", experiment, record=record)
    arguments = ["--workdir", tmp_path / "run", "--format", "onnx", "--output", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    with pytest.raises(UserError, match=r"predicts masks \(config\.task\.name=segmentation\): .*cannot be exported"):
        main()


def test_eight_bits_need_the_data_of_a_run(network: OpenedClassifier, tmp_path: Path):
    write_export(network, "convnext_jax", tmp_path / "weights")
    folder = open_classifier(tmp_path / "weights", image_size=16)
    with pytest.raises(UserError, match="^--format onnx_int8 needs the data of a run: give the workdir of train.py"):
        write_export(folder, "onnx_int8", tmp_path / "out")


# --- the model card


def test_the_card_of_images_that_are_not_square_crops_nothing(tmp_path: Path):
    record = DatasetRecord.of(tiny_dataset())
    train = dataclasses.replace(record.splits["train"], shape=(16, 24, 3))
    record = dataclasses.replace(record, splits={"train": train})
    run = write_run(tmp_path / "run", architecture=SMALL, record=record)
    write_export(open_classifier(run), "timm", tmp_path / "timm")
    card = (tmp_path / "timm" / "README.md").read_text()
    assert "16x24 pixels, RGB. The values are scaled" in card and "crop" not in card


def test_the_card_has_the_figures_of_these_weights_alone(network: OpenedClassifier, workdir: Path, tmp_path: Path):
    figures = {
        "top1": 0.8125,
        "intervals": {"top1": [0.75, 0.875]},
        "step": 10,
        "weights": "raw",
        "examples": 16,
        "split": "test",
        "dataset": "tiny",
        "dtype": "float32",
        "device": "1 x cpu",
    }
    path = workdir / "evaluation.json"
    path.write_text(json.dumps(figures))
    try:
        write_export(network, "timm", tmp_path / "same")
        write_export(open_classifier(workdir, step=5), "timm", tmp_path / "earlier")
        write_export(open_classifier(workdir, weights="ema"), "timm", tmp_path / "average")
        write_export(open_classifier(workdir, image_size=32), "timm", tmp_path / "larger")
        path.write_text(json.dumps(figures | {"tta": "flip"}))
        write_export(network, "timm", tmp_path / "views")
    finally:
        path.unlink()
    card = (tmp_path / "same" / "README.md").read_text()
    assert "| top-1  | 0.8125 | 0.7500 to 0.8750 |" in card and '"value": 0.8125' in card.split("---")[1]
    assert "On all 16 images of the test split of tiny, from evaluation.json of tiny" in card
    for folder, text in (
        ("earlier", "the weights of step 5"),
        ("average", "moving average of the weights of step 10"),
        ("larger", "trained on pictures of 16x16 pixels"),
        ("views", "the weights of step 10"),
    ):
        card = (tmp_path / folder / "README.md").read_text()
        assert "0.8125" not in card and "Not measured: there is no evaluation.json of these weights" in card
        assert text in card


# --- what is wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "tim"), "--format tim: unknown; did you mean 'timm'?"),
        (("--format", "timm", "--dtype", "bfloat16"), "--dtype bfloat16 is for --format stablehlo and convnext_jax"),
        (("--format", "convnext_jax", "--dtype", "auto"), "--dtype auto is for --format stablehlo; take --dtype"),
        (("--format", "timm", "--step", "7"), "no checkpoint '7'; there are 5, 10"),
        (("--format", "convnext_jax", "--image_size", "0"), "image_size=0"),
    ],
)
def test_a_wrong_request_is_one_line(workdir: Path, tmp_path: Path, arguments: tuple[str, ...], message: str):
    done = run("--workdir", workdir, "--output", tmp_path / "out", *arguments)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_folder_that_exists_is_not_written_over(workdir: Path, tmp_path: Path):
    done = run("--workdir", workdir, "--format", "timm", "--output", tmp_path)
    assert done.returncode == 2 and f"{tmp_path} exists already; choose another --output" in done.stderr


def test_a_missing_package_is_named(network: OpenedClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"^--format onnx needs jax2onnx: pip install jax2onnx onnx onnxruntime"):
        write_export(network, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
