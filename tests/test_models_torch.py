"""PyTorch's weights: the same answers, the three layouts, and what is wrong with a file."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch_reference
from conftest import ROOT
from convnext_jax.models.architectures import ARCHITECTURES
from safetensors.numpy import save_file

from convnext_jax.errors import UserError
from convnext_jax.models import create_model, split_model
from convnext_jax.models.convnext_torch_names import LAYOUTS, from_torch, torch_name
from convnext_jax.models.parameters import flat_params
from convnext_jax.models.torch_import import export_state_dict, import_state_dict
from convnext_jax.models.weights import Pretrained, resize_kernel, start_from

RECORD = json.loads(torch_reference.RECORD.read_text())


def shapes(name: str, num_classes: int = torch_reference.NUM_CLASSES) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(lambda: split_model(create_model(name, num_classes=num_classes))[1])
    return {path: leaf.shape for path, leaf in flat_params(params).items()}


def zeros(name: str, layout: str) -> dict[str, np.ndarray]:
    """A state dict of a layout's names and shapes."""
    params = {path: np.zeros(shape, np.float32) for path, shape in shapes(name).items()}
    return export_state_dict(params, ARCHITECTURES[name], layout)


def weights(name: str) -> dict[str, np.ndarray]:
    """The state dict of the record, in timm's names."""
    return torch_reference.draw_weights({key: array.shape for key, array in zeros(name, "timm").items()})


@pytest.mark.parametrize("name", torch_reference.RECORDED_NAMES)
def test_answers_are_those_of_pytorch(name: str) -> None:
    images = torch_reference.draw_images(torch_reference.RECORDED_SHAPE)
    # The slope of one; the script that makes the record compares those of every size.
    gradient = name == "convnextv2_atto"
    found = torch_reference.jax_answers(name, weights(name), images, gradient=gradient, compiled=True).sample()
    for what, recorded in RECORD[name].items():
        if what == "gradient" and not gradient:
            continue
        wanted = np.asarray(recorded["values"])
        assert wanted.std() > 0.01 * recorded["scale"]
        np.testing.assert_allclose(found[what]["values"], wanted, rtol=0, atol=2e-5 * recorded["scale"], err_msg=what)
        np.testing.assert_allclose(found[what]["scale"], recorded["scale"], rtol=2e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto", "convnext_isotropic_small"])
def test_to_pytorch_and_back_is_the_identity(name: str, layout: str) -> None:
    random = np.random.default_rng(0)
    params = {path: random.standard_normal(shape).astype(np.float32) for path, shape in shapes(name).items()}
    if ARCHITECTURES[name].isotropic and layout != "facebookresearch":
        pytest.skip("only the reference has isotropic networks")
    state = export_state_dict(params, ARCHITECTURES[name], layout)
    assert len(state) == len(params)
    imported = import_state_dict({f"module.{key}": array for key, array in state.items()}, name)
    assert imported.layout == layout and imported.num_classes == torch_reference.NUM_CLASSES
    jax.tree.map(np.testing.assert_array_equal, flat_params(imported.params), params)


# From `models/convnext.py`, `convnextv2.py`, `convnext_isotropic.py` of the reference, and from transformers.
@pytest.mark.parametrize(
    ("name", "layout", "key", "shape"),
    [
        ("convnext_tiny", "facebookresearch", "downsample_layers.0.0.weight", (96, 3, 4, 4)),
        ("convnext_tiny", "facebookresearch", "downsample_layers.2.0.bias", (192,)),
        ("convnext_tiny", "facebookresearch", "downsample_layers.3.1.weight", (768, 384, 2, 2)),
        ("convnext_tiny", "facebookresearch", "stages.2.8.gamma", (384,)),
        ("convnext_tiny", "facebookresearch", "stages.0.2.dwconv.weight", (96, 1, 7, 7)),
        ("convnext_tiny", "facebookresearch", "stages.3.0.pwconv1.weight", (3072, 768)),
        ("convnext_tiny", "facebookresearch", "norm.weight", (768,)),
        ("convnext_tiny", "facebookresearch", "head.weight", (13, 768)),
        ("convnextv2_atto", "facebookresearch", "stages.0.1.grn.gamma", (1, 1, 1, 160)),
        ("convnext_isotropic_small", "facebookresearch", "stem.weight", (384, 3, 16, 16)),
        ("convnext_isotropic_small", "facebookresearch", "blocks.17.pwconv2.bias", (384,)),
        ("convnext_isotropic_large", "facebookresearch", "blocks.35.gamma", (1024,)),
        ("convnextv2_atto", "transformers", "encoder.stages.3.layers.1.grn.weight", (1, 1, 1, 1280)),
        ("convnext_atto", "transformers", "encoder.stages.1.downsampling_layer.1.weight", (80, 40, 2, 2)),
        ("convnext_atto", "transformers", "encoder.stages.0.layers.0.layer_scale_parameter", (40,)),
        ("convnext_atto", "transformers", "embeddings.patch_embeddings.weight", (40, 3, 4, 4)),
        ("convnext_atto", "transformers", "classifier.bias", (13,)),
        ("convnextv2_atto", "timm", "stages.2.blocks.5.mlp.grn.bias", (640,)),
        ("convnext_tiny", "timm", "head.norm.weight", (768,)),
    ],
)
def test_names_and_shapes_of_the_layouts(name: str, layout: str, key: str, shape: tuple[int, ...]) -> None:
    assert zeros(name, layout)[key].shape == shape


def test_linear_layers_written_as_convolutions_are_taken() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    np.testing.assert_array_equal(from_torch("expand/kernel", array, (3, 2)), [[0, 3], [1, 4], [2, 5]])
    assert from_torch("expand/kernel", array, (2, 3)) is None


# --- what is wrong with a state dict


def test_every_missing_unexpected_and_wrong_name_is_listed() -> None:
    state = zeros("convnext_atto", "timm")
    del state["stem.1.bias"], state["stages.1.blocks.0.norm.weight"]
    state |= {"extra.weight": np.zeros(3), "head.fc.weight": np.zeros((13, 5), np.float32)}
    with pytest.raises(UserError) as error:
        import_state_dict(state, "convnext_atto")
    assert str(error.value) == (
        "these weights, in timm's names, are not convnext_atto: missing: stages.1.blocks.0.norm.weight, stem.1.bias;"
        " unexpected: extra.weight; of another shape: head.fc.weight is 13x5, not 13x320"
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("there", "asked"),
    [("convnext_atto", "convnext_femto"), ("convnextv2_atto", "convnext_atto"), ("convnext_small", "convnext_tiny")],
)
def test_weights_of_another_variant_are_recognised(there: str, asked: str, layout: str) -> None:
    message = f"these weights are not {asked}: by their shapes they look like {there}, in {layout}'s names"
    with pytest.raises(UserError, match=f"^{message}$"):
        import_state_dict(zeros(there, layout), asked)


def test_values_that_are_not_finite_are_named() -> None:
    state = zeros("convnext_atto", "facebookresearch")
    state["stages.0.1.pwconv1.bias"][3] = np.nan
    with pytest.raises(UserError, match=r"not finite: stages/0/blocks/1/expand/bias$"):
        import_state_dict(state, "convnext_atto")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv1.weight": np.zeros(3)}, "no weights of a ConvNeXt in a known layout; they hold conv1.weight"),
        ({"stem.0.weight": np.zeros((40, 3, 4, 4))}, "there is no classifier, head.fc.bias"),
    ],
)
def test_what_is_no_convnext_is_said_to_be_none(state: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        import_state_dict(state, "convnext_atto")


def test_variants_that_pytorch_does_not_have_are_refused() -> None:
    with pytest.raises(
        UserError, match="there are no PyTorch checkpoints of convnext_multiscale; those of convnext_at"
    ):
        import_state_dict(zeros("convnext_atto", "timm"), "convnext_multiscale")


def test_a_parameter_that_a_layout_has_no_name_for_is_an_error() -> None:
    with pytest.raises(ValueError, match="timm has no name for stages/0/blocks/0/lstm/kernel"):
        torch_name("stages/0/blocks/0/lstm/kernel", "timm", (1, 1, 1, 1))


# --- weights to start from


def pretrained(name: str = "convnext_atto", num_classes: int = 13) -> Pretrained:
    random = np.random.default_rng(0)
    params = split_model(create_model(name, num_classes=num_classes))[1]
    params = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), params)
    return Pretrained(params, name, "patch4", num_classes, "a test")


def test_the_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    written = pretrained()
    written.write(tmp_path / "weights")
    read = Pretrained.read(tmp_path / "weights")
    jax.tree.map(np.testing.assert_array_equal, written.params, read.params)
    assert dataclasses.replace(written, params={}) == dataclasses.replace(read, params={})
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
    with pytest.raises(UserError, match="exists already"):
        written.write(tmp_path / "weights")
    (tmp_path / "weights" / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="holds no weights to start from"):
        Pretrained.read(tmp_path / "weights")


def start(given: Pretrained, name: str = "convnext_atto", num_classes: int = 13, **options):
    fresh = split_model(create_model(name, num_classes=num_classes, seed=5, **options))[1]
    params, notes = start_from(given, fresh)
    return flat_params(params), flat_params(fresh), flat_params(given.params), notes


def test_all_weights_are_taken_over_where_all_fit() -> None:
    params, fresh, given, notes = start(pretrained())
    jax.tree.map(np.testing.assert_array_equal, params, given)
    assert not notes and params.keys() == fresh.keys()


def test_another_number_of_classes_gets_a_fresh_head_and_says_so() -> None:
    params, fresh, given, notes = start(pretrained(), num_classes=4)
    assert notes == ["a fresh head of 4 classes stands for the one of 13"]
    head = {"head/kernel", "head/bias"}
    for path, array in params.items():
        np.testing.assert_array_equal(array, fresh[path] if path in head else given[path])


@pytest.mark.parametrize(("stem", "size"), [("patch2", 2), ("conv3x3_s1", 3)])
def test_another_stem_gets_the_resized_kernel_and_says_so(stem: str, size: int) -> None:
    params, _, given, notes = start(pretrained(), stem=stem)
    assert notes == [f"the stem's kernel is resized from 4x4 to {size}x{size}"]
    kernel = params["stem/conv/kernel"]
    assert kernel.shape == (size, size, 3, 40)
    np.testing.assert_allclose(kernel.sum((0, 1)), given["stem/conv/kernel"].sum((0, 1)), rtol=1e-4, atol=1e-4)


def test_a_resized_kernel_answers_to_a_flat_image_as_before() -> None:
    kernel = np.random.default_rng(0).standard_normal((4, 4, 3, 5)).astype(np.float32)
    for size in (2, 3, 7):
        resized = resize_kernel(kernel, size)
        np.testing.assert_allclose(resized.sum((0, 1)), kernel.sum((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(resize_kernel(kernel, 4), kernel, rtol=1e-6)
    # Halved, four weights become one.
    np.testing.assert_allclose(resize_kernel(kernel, 2)[0, 1], kernel[:2, 2:].sum((0, 1)), rtol=1e-5, atol=1e-6)


def test_weights_of_another_network_are_refused_with_all_differences() -> None:
    with pytest.raises(UserError, match="of convnext_atto, do not fit this model: .*grn/gamma is missing.*left over"):
        start(pretrained(), "convnextv2_atto")
    with pytest.raises(UserError, match=re.escape("norm/scale is [320], not [384]")):
        start(pretrained(), "convnext_femto")


# --- the command


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convnext_jax.tools.import_torch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_command_makes_the_folder(tmp_path: Path) -> None:
    state = weights("convnextv2_atto")
    save_file(state, tmp_path / "a.safetensors")
    done = run(tmp_path / "a.safetensors", "--model", "convnextv2_atto", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "convnextv2_atto of 13 classes, in timm's names" in done.stdout
    read = Pretrained.read(tmp_path / "out")
    expected = import_state_dict(state, "convnextv2_atto").params
    jax.tree.map(np.testing.assert_array_equal, read.params, expected)


@pytest.mark.parametrize(
    ("file", "content", "model", "message"),
    [
        ("a.safetensors", b"\xff" * 40, "convnext_atto", "is no safetensors file, or cut short"),
        ("a.txt", b"", "convnext_atto", "is no .safetensors, .pth, .pt or .bin file"),
        (None, None, "convnext_atto", "there is no file"),
        ("a.safetensors", b"", "convnext_ato", "unknown model 'convnext_ato': did you mean 'convnext_atto'?"),
    ],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(
    tmp_path: Path, file: str | None, content: bytes | None, model: str, message: str
) -> None:
    if file and content is not None:
        (tmp_path / file).write_bytes(content)
    done = run(tmp_path / (file or "absent.pth"), "--model", model, "--output", tmp_path / "out")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
