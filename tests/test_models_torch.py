"""PyTorch's weights: the same answers, the layouts of each family, and what is wrong with a file."""

import functools
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
from safetensors.numpy import save_file
from torch_networks import NETWORKS, NUM_CLASSES

from convnext_jax.errors import UserError
from convnext_jax.models import abstract_model, create_model, load_model, split_model
from convnext_jax.models.parameters import flat
from convnext_jax.models.table import MODELS
from convnext_jax.models.torch_import import export_state_dict, from_torch, import_state_dict

RECORDED = {name: reference for name, reference in NETWORKS.items() if reference.recorded}


@functools.cache
def shapes(name: str) -> tuple[dict, dict]:
    model = abstract_model(lambda: create_model(name, num_classes=NUM_CLASSES))
    return flat(model.params), flat(model.batch_stats)


def draw(leaves: dict) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {path: random.standard_normal(leaf.shape).astype(np.float32) for path, leaf in leaves.items()}


def zeros(name: str, layout: str) -> dict[str, np.ndarray]:
    """A state dict of a layout's names and shapes."""
    trees = [{path: np.zeros(leaf.shape, np.float32) for path, leaf in leaves.items()} for leaves in shapes(name)]
    return export_state_dict(MODELS[name], layout, *trees)


def weights(name: str) -> dict[str, np.ndarray]:
    """The state dict of the record, in the names of its layout."""
    layout = NETWORKS[name].layout
    return torch_reference.draw_weights({key: array.shape for key, array in zeros(name, layout).items()})


# The script that makes the records compares every network, at more sizes, with the gradient of each.
@pytest.mark.parametrize("name", RECORDED)
def test_answers_are_those_of_pytorch(name: str) -> None:
    reference = RECORDED[name]
    images, gradient = torch_reference.draw_images(reference.shapes[-1]), reference.records_gradient
    found = torch_reference.jax_answers(name, weights(name), images, gradient=gradient, compiled=True).sample()
    for what, recorded in json.loads(torch_reference.record_path(name).read_text()).items():
        if what == "gradient" and not gradient:
            continue
        wanted = np.asarray(recorded["values"])
        assert wanted.std() > 0.01 * recorded["scale"]
        np.testing.assert_allclose(found[what]["values"], wanted, rtol=0, atol=2e-5 * recorded["scale"], err_msg=what)
        np.testing.assert_allclose(found[what]["scale"], recorded["scale"], rtol=2e-5)


@pytest.mark.parametrize(
    "name",
    [
        "convnext_atto",
        "convnextv2_atto",
        "convnext_isotropic_small",
        "resnet18",
        "resnet50",
        "vit_tiny_patch4",
        "alexnet_small_stem",
        "vgg16_bn_small",
        "swin_tiny",
        "vit_lite_6",
        "cct_7_3x2",
        "cvt_13_small_stem",
        "wavemix_lite_192_16",
    ],
)
def test_to_pytorch_and_back_is_the_identity(name: str) -> None:
    params, batch_stats = map(draw, shapes(name))
    assert MODELS[name].torch_layouts
    for layout in MODELS[name].torch_layouts:
        state = export_state_dict(MODELS[name], layout, params, batch_stats)
        assert len(state) == len(params) + len(batch_stats)
        counted = {"bn1.num_batches_tracked": np.zeros((), np.int64)}  # PyTorch counts, and nobody needs it
        imported = import_state_dict({f"module.{key}": array for key, array in (state | counted).items()}, name)
        assert imported.layout == layout
        assert (imported.num_classes, imported.in_channels) == (NUM_CLASSES, 3)
        jax.tree.map(np.testing.assert_array_equal, flat(imported.params), params)
        jax.tree.map(np.testing.assert_array_equal, flat(imported.batch_stats), batch_stats)


# From `models/convnext.py`, `convnextv2.py`, `convnext_isotropic.py` of the reference, transformers, torchvision, timm,
# microsoft/Swin-Transformer, SHI-Labs/Compact-Transformers, and the package wavemix.
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
        ("convnext_tiny", "torchvision", "features.0.0.weight", (96, 3, 4, 4)),
        ("convnext_tiny", "torchvision", "features.4.0.bias", (192,)),
        ("convnext_tiny", "torchvision", "features.6.1.weight", (768, 384, 2, 2)),
        ("convnext_tiny", "torchvision", "features.5.8.layer_scale", (384, 1, 1)),
        ("convnext_tiny", "torchvision", "features.1.2.block.0.weight", (96, 1, 7, 7)),
        ("convnext_tiny", "torchvision", "features.7.0.block.3.weight", (3072, 768)),
        ("convnext_tiny", "torchvision", "features.7.0.block.5.bias", (768,)),
        ("convnext_tiny", "torchvision", "features.7.0.block.2.bias", (768,)),
        ("convnext_tiny", "torchvision", "classifier.0.weight", (768,)),
        ("convnext_tiny", "torchvision", "classifier.2.weight", (13, 768)),
        ("resnet50", "torchvision", "conv1.weight", (64, 3, 7, 7)),
        ("resnet50", "torchvision", "layer2.0.downsample.0.weight", (512, 256, 1, 1)),
        ("resnet50", "torchvision", "layer4.2.bn3.running_var", (2048,)),
        ("resnet18", "torchvision", "fc.weight", (13, 512)),
        ("vit_tiny_patch16", "timm", "cls_token", (1, 1, 192)),
        ("vit_tiny_patch16", "timm", "pos_embed", (1, 197, 192)),
        ("vit_tiny_patch16", "timm", "blocks.11.attn.qkv.weight", (576, 192)),
        ("vit_tiny_patch16", "timm", "blocks.3.mlp.fc2.bias", (192,)),
        ("swin_tiny", "torchvision", "features.0.2.weight", (96,)),
        ("swin_tiny", "torchvision", "features.5.5.attn.relative_position_bias_table", (169, 12)),
        ("swin_tiny", "torchvision", "features.7.1.mlp.3.weight", (768, 3072)),
        ("swin_tiny", "torchvision", "features.6.reduction.weight", (768, 1536)),
        ("swin_tiny", "timm", "layers.3.downsample.norm.weight", (1536,)),
        ("swin_tiny", "timm", "layers.2.blocks.5.attn.qkv.weight", (1152, 384)),
        ("swin_tiny", "timm", "head.fc.weight", (13, 768)),
        ("swin_tiny", "microsoft", "layers.2.downsample.reduction.weight", (768, 1536)),
        ("swin_tiny", "microsoft", "patch_embed.proj.weight", (96, 3, 4, 4)),
        ("swin_tiny", "microsoft", "head.weight", (13, 768)),
        ("vit_lite_7", "SHI-Labs", "classifier.class_emb", (1, 1, 256)),
        ("vit_lite_7", "SHI-Labs", "classifier.positional_emb", (1, 65, 256)),
        ("cct_7_3x2", "SHI-Labs", "tokenizer.conv_layers.1.0.weight", (256, 64, 3, 3)),
        ("cct_7_3x2", "SHI-Labs", "classifier.blocks.6.self_attn.proj.weight", (256, 256)),
        ("cct_7_3x2", "SHI-Labs", "classifier.attention_pool.weight", (1, 256)),
        ("cvt_13", "transformers", "cvt.encoder.stages.2.cls_token", (1, 1, 384)),
        ("cvt_13", "transformers", "cvt.encoder.stages.2.layers.9.output.dense.weight", (384, 1536)),
        ("wavemix_lite_192_16", "wavemix", "conv.4.running_mean", (192,)),
        ("wavemix_lite_192_16", "wavemix", "layers.15.feedforward.4.weight", (192, 192, 4, 4)),
        ("wavemix_lite_192_16", "wavemix", "layers.15.reduction.weight", (48, 192, 1, 1)),
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


@pytest.mark.parametrize(
    ("there", "asked", "layout"),
    [
        (there, asked, layout)
        for there, asked in (
            ("convnext_atto", "convnext_femto"),
            ("convnextv2_atto", "convnext_atto"),
            ("convnext_small", "convnext_tiny"),
        )
        for layout in MODELS[there].torch_layouts
    ],
)
def test_weights_of_another_variant_are_recognized(there: str, asked: str, layout: str) -> None:
    message = f"these weights are not {asked}: by their shapes they look like {there}, in {layout}'s names"
    with pytest.raises(UserError, match=f"^{message}$"):
        import_state_dict(zeros(there, layout), asked)


def test_weights_of_another_family_are_recognized() -> None:
    resnet = zeros("resnet34", "torchvision")
    with pytest.raises(UserError, match="^these weights are not resnet18: by their shapes they look like resnet34"):
        import_state_dict(resnet, "resnet18")
    with pytest.raises(UserError, match="these are no weights of vit_tiny_patch16 .*; they hold .*layer1"):
        import_state_dict(resnet, "vit_tiny_patch16")


def test_values_that_are_not_finite_are_named() -> None:
    state = zeros("convnext_atto", "facebookresearch")
    state["stages.0.1.pwconv1.bias"][3] = np.nan
    with pytest.raises(UserError, match=r"not finite: stages/0/blocks/1/expand/bias$"):
        import_state_dict(state, "convnext_atto")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv1.weight": np.zeros(3)}, "no weights of convnext_atto in a known layout; they hold conv1.weight"),
        ({"head.fc.bias": np.zeros((40, 3))}, "head.fc.bias, of the classifier, is 40x3, not one number a class"),
        ({"stem.0.weight": np.zeros((40, 3, 4, 4))}, "these weights, in timm's names, are not convnext_atto: missing"),
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


# --- a backbone alone


@pytest.mark.parametrize("layout", ["facebookresearch", "timm", "transformers", "torchvision"])
def test_a_backbone_without_a_classifier_is_something_to_start_from(tmp_path: Path, layout: str) -> None:
    params = draw(shapes("convnext_atto")[0])
    state = export_state_dict(MODELS["convnext_atto"], layout, params)
    ends = {"timm": "head.", "transformers": ("classifier.", "layernorm."), "torchvision": "classifier."}
    end = ends.get(layout, ("head.", "norm."))
    save_file({name: array for name, array in state.items() if not name.startswith(end)}, tmp_path / "a.safetensors")
    done = run(tmp_path / "a.safetensors", "--model", "convnext_atto", "--output", tmp_path / "out")
    assert f"convnext_atto without a classifier, in {layout}'s names" in done.stdout, done.stderr
    with pytest.raises(UserError, match="holds a backbone without a classifier; train one from it with"):
        load_model(tmp_path / "out")
    model = create_model("convnext_atto", num_classes=3, init_from=str(tmp_path / "out"))
    started = flat(split_model(model)[1])
    assert started["head/kernel"].shape[1] == 3
    for path in ("stem/conv/kernel", "stages/3/blocks/1/project/bias"):
        np.testing.assert_array_equal(started[path], params[path])


# --- the command


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convnext_jax.tools.import_torch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_command_makes_the_folder(tmp_path: Path) -> None:
    state = weights("convnextv2_atto")
    save_file(state, tmp_path / "a.safetensors")
    done = run(tmp_path / "a.safetensors", "--model", "convnextv2_atto", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{tmp_path / 'a.safetensors'}: unverified, since no checksum was recorded with it\n"
    assert "convnextv2_atto of 13 classes, in timm's names" in done.stdout
    model, folder = load_model(tmp_path / "out")
    expected = import_state_dict(state, "convnextv2_atto").params
    jax.tree.map(np.testing.assert_array_equal, split_model(model)[1], expected)
    assert folder.mean == (0.485, 0.456, 0.406) and len(folder.class_names) == 13


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
