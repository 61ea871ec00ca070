"""Segmentation models: every family as a backbone, the heads against PyTorch, weights to start from."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_segmentation_heads
from networks import FAMILIES, RESNET, SWIN, TINY

from convnext_jax.errors import UserError
from convnext_jax.models import abstract_model, count_parameters, create_model, merge_model, split_model
from convnext_jax.models.convnext import ConvNeXtArchitecture
from convnext_jax.models.costs import count_macs
from convnext_jax.models.interface import Architecture
from convnext_jax.models.parameters import flat
from convnext_jax.models.segmentation import ImageAndPixelLogits
from convnext_jax.models.weights import ModelFolder, start_from
from convnext_jax.optim.layer_decay import decay_levels

CLASSES, SIDE = 5, 16
ISOTROPIC = ConvNeXtArchitecture((1, 1, 1, 1), (8, 8, 8, 8), stem="patch2", isotropic=True, layer_scale=0.1)
MULTISCALE = ConvNeXtArchitecture((1, 1, 1, 1), (8, 8, 16, 16), stem="patch2", block="multiscale", layer_scale=0.1)


def segmenter(architecture: Architecture | str = TINY, **options: Any) -> Any:
    return create_model(
        architecture, **({"task": "segmentation", "num_classes": CLASSES, "head_channels": 8} | options)
    )


def test_the_heads_answer_as_those_of_pytorch():
    found = torch_segmentation_heads.our_answers(torch_segmentation_heads.our_heads())
    record = json.loads(torch_segmentation_heads.RECORD.read_text())
    assert record.keys() == found.keys()
    for name, recorded in record.items():
        values = torch_segmentation_heads.pick(found[name])
        np.testing.assert_allclose(values, recorded["values"], rtol=0, atol=2e-5 * recorded["scale"], err_msg=name)
        assert np.abs(found[name]).max() == pytest.approx(recorded["scale"], rel=2e-5)


# A ConvNeXt-T without its classifier 27,818,592, norms of its stages 2,880; mmsegmentation's UPerHead 31,497,366 and
# FCNHead 923,798 with 150 classes. The ConvNeXt paper says 60 M.
def test_upernet_has_the_published_number_of_parameters():
    model = abstract_model(lambda: create_model("convnext_tiny", task="segmentation", num_classes=150, head="upernet"))
    assert count_parameters(model.params) == 60_242_636


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_a_backbone_that_leaves_out_its_classifier(family: str):
    architecture = FAMILIES[family]
    model = abstract_model(lambda: segmenter(architecture))
    whole = abstract_model(lambda: create_model(architecture, num_classes=CLASSES))
    side = max(SIDE, architecture.smallest_image)
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)

    def outputs(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        model_ = merge_model(model.definition, params, batch_stats)
        return model_(images), model_.training_outputs(images, key=jax.random.key(0))

    logits, (in_training, auxiliary) = jax.eval_shape(outputs, model.params, model.batch_stats, image)
    assert logits.shape == in_training.shape == (2, side, side, CLASSES)
    assert logits.dtype == jnp.float32 and auxiliary == ()
    own, merged = flat(model.params["backbone"]), whole.merged()
    assert own.keys() == {path for path in flat(whole.params) if merged.part_of(path) != "head"}


@pytest.mark.parametrize(
    ("architecture", "head"),
    [(TINY, "upernet"), (ISOTROPIC, "fpn"), (MULTISCALE, "fpn"), (RESNET, "upernet"), (SWIN, "fpn")],
    ids=["convnext", "isotropic", "multiscale", "resnet", "swin"],
)
def test_every_parameter_is_learned(architecture: Architecture, head: str):
    definition, params, batch_stats = split_model(segmenter(architecture, head=head))
    images = jax.random.normal(jax.random.key(1), (2, SIDE, SIDE, 3))

    @jax.jit
    @jax.grad
    def slopes(params: Any) -> jax.Array:
        model = merge_model(definition, params, batch_stats)
        logits, auxiliary = model.training_outputs(images, key=jax.random.key(0))
        weights = jax.random.normal(jax.random.key(2), logits.shape)
        return sum((jnp.tanh(each) * weights).sum() for each in (logits, *auxiliary))

    # What a norm right after it takes away: the mean of each channel.
    still = ("lateral", "pooled") if head == "upernet" else ()
    for path, slope in flat(slopes(params)).items():
        assert np.isfinite(slope).all(), path
        assert np.any(slope) or (path.endswith("bias") and any(name in path for name in still)), path


def test_logits_follow_the_image():
    # A backbone that is shifted by its own stride shifts the logits: they belong to the places that they are at.
    definition, params, batch_stats = split_model(segmenter(RESNET))
    model = merge_model(definition, params, batch_stats)
    images = jnp.zeros((1, 16, 48, 3)).at[:, 4:12, 12:20].set(3.0)
    one, other = model(images)[0, :, 4:24], model(jnp.roll(images, 16, 2))[0, :, 20:40]
    assert float(jnp.std(one)) > 1e-4
    np.testing.assert_allclose(one, other, atol=0.05 * float(jnp.abs(one - one.mean()).max()))


def test_both_tasks_share_a_backbone():
    model = create_model(TINY, task="multitask", num_classes=3, pixel_classes=CLASSES, head_channels=8)
    images = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE, 3))
    outputs = model(images)
    assert isinstance(outputs, ImageAndPixelLogits)
    assert outputs.image.shape == (2, 3) and outputs.pixels.shape == (2, SIDE, SIDE, CLASSES)
    np.testing.assert_allclose(outputs.image, model.backbone(images), rtol=1e-6)


@pytest.mark.parametrize("architecture", [TINY, SWIN], ids=["convnext", "swin"])
def test_the_parts_make_up_the_model_and_own_its_parameters(architecture: Architecture):
    model = segmenter(architecture)
    images = jax.random.normal(jax.random.key(0), (1, SIDE, SIDE, 3))
    x: Any = images
    for part in model.parts().values():
        x = part(x)
    np.testing.assert_allclose(x, model(images), rtol=1e-6)
    _, params, _ = split_model(model)
    assert {model.part_of(path) for path in flat(params)} == set(model.parts())


def test_the_head_learns_fastest_with_layer_decay():
    levels = decay_levels(abstract_model(segmenter), 0.5, "single")
    assert levels[-1].factor == 1.0
    assert all(path.startswith(("norms/", "decoder/")) for path in levels[-1].paths)
    assert any(path.startswith("backbone/stem/") for path in levels[0].paths)
    assert sum(len(level.paths) for level in levels[:-1]) == len(flat(abstract_model(segmenter).params["backbone"]))


def folder_of(model: Any, classes: int) -> ModelFolder:
    _, params, batch_stats = split_model(model)
    names = tuple(map(str, range(classes)))
    return ModelFolder(params, batch_stats, "tiny", {}, names, (0.5,) * 3, (0.25,) * 3, "a test")


@pytest.mark.parametrize("architecture", [TINY, RESNET], ids=["convnext", "resnet"])
def test_a_backbone_starts_from_the_weights_of_a_classifier(architecture: Architecture):
    given = folder_of(create_model(architecture, num_classes=7, seed=1), 7)
    _, params, batch_stats = split_model(segmenter(architecture))
    taken, stats, notes = start_from(given, architecture, params, batch_stats)
    for path, array in flat(taken["backbone"]).items():
        np.testing.assert_array_equal(array, flat(given.params)[path], err_msg=path)
    assert flat(stats).keys() == flat(batch_stats).keys()
    assert taken["decoder"] is params["decoder"]
    assert notes == ["the norms and the head for pixels are fresh"]


def test_of_both_tasks_the_classifier_starts_from_the_weights_too():
    given = folder_of(create_model(TINY, num_classes=7, seed=1), 7)
    for classes, fresh in ((7, False), (3, True)):
        model = create_model(TINY, task="multitask", num_classes=classes, pixel_classes=CLASSES, head_channels=8)
        _, params, batch_stats = split_model(model)
        taken, _, notes = start_from(given, TINY, params, batch_stats)
        assert any("a fresh head of 3 classes" in note for note in notes) == fresh
        same = np.array_equal(taken["backbone"]["head"]["kernel"], given.params["head"]["kernel"])
        assert same != fresh


def test_weights_of_another_backbone_are_refused():
    given = folder_of(create_model(TINY, num_classes=7), 7)
    _, *trees = split_model(segmenter(RESNET))
    with pytest.raises(UserError, match="do not fit this model"):
        start_from(given, RESNET, *trees)


def test_multiply_adds_of_the_heads():
    # At 16x16 pixels the maps are 8x8, 4x4, 2x2 and 1x1; laterals, 3x3 convolutions of 8 channels, the last two layers.
    model = abstract_model(segmenter)
    pixels, channels = (64, 16, 4, 1), (8, 8, 16, 16)
    expected = sum(count * width * 8 for count, width in zip(pixels, channels, strict=True))
    expected += (sum(pixels) + pixels[0]) * 9 * 8 * 8 + pixels[0] * 8 * CLASSES

    def head(params: Any, batch_stats: Any, maps: list[jax.Array]) -> jax.Array:
        return merge_model(model.definition, params, batch_stats).decoder(maps)

    maps = [
        jax.ShapeDtypeStruct((1, round(count**0.5), round(count**0.5), width), jnp.float32)
        for count, width in zip(pixels, channels, strict=True)
    ]
    counted = count_macs(head, model.params, model.batch_stats, maps)
    assert expected <= counted < 1.2 * expected, "beside it only the resizing of maps"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "segment"}, "task='segment': must be one of classification, segmentation, multitask"),
        ({"task": "segmentation", "head": "unet"}, "head='unet': must be one of fpn, upernet"),
        ({"task": "multitask"}, "pixel_classes=None: must be 1 or more"),
        ({"task": "segmentation", "head_channels": 0}, "head_channels=0: must be 1 or more"),
    ],
)
def test_what_makes_no_model_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        create_model(TINY, num_classes=2, **options)
