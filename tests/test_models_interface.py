"""What a network of every family can do: learn, return maps, run in parts, compute in other number formats."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import FAMILIES, RESNET, TINY
from numpy_layers import images, randomize

from convnext_jax.models import Architecture, abstract_model, create_model, merge_model, split_model
from convnext_jax.models.convnext import ConvNeXtArchitecture
from convnext_jax.models.multiscale import DESIGNS
from convnext_jax.models.parameters import flat
from convnext_jax.precision import Precision


def learner(**changes) -> ConvNeXtArchitecture:
    """A ConvNeXt for images of 16 pixels, with maps of 1x1 at the end and kernels that compile soon."""
    small = ConvNeXtArchitecture((1, 1, 1, 1), (8, 16, 16, 16), stem="patch2", layer_scale=1e-2, kernel_size=3)
    return dataclasses.replace(small, **changes)


ISOTROPIC = {"isotropic": True, "dims": (16,) * 4, "stem": "patch4"}
LEARNERS: dict[str, Architecture] = {
    **FAMILIES,
    "v2": learner(grn=True, layer_scale=0.0),
    "isotropic": learner(**ISOTROPIC, layer_scale=0.0),
    "multiscale": learner(**ISOTROPIC, block=next(iter(DESIGNS))),
    "bilstm2d": learner(bilstm2d=True),
    "swin_mlp": learner(swin_mlp_stages=(2, 3)),
    "dense": learner(convolution="dense"),
    "batch norm": learner(norm="batch"),
    "resnet of bottlenecks": dataclasses.replace(RESNET, block="bottleneck"),
}


def samples(count: int, architecture: Architecture, channels: int = 3) -> np.ndarray:
    """Images of 16 pixels, or of the smallest size that the network takes."""
    side = max(16, architecture.smallest_image)
    return images(count, side, side, channels)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_loss_falls_over_ten_steps_on_one_batch(name: str) -> None:
    model = create_model(LEARNERS[name], num_classes=5, drop_path=0.1, dropout=0.1)
    definition, params, batch_stats = split_model(model)
    x, labels = samples(10, LEARNERS[name]), jnp.arange(10) % 5

    def loss(params, key):
        logits = merge_model(definition, params, batch_stats)(x, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, key):
        value, grads = jax.value_and_grad(loss)(params, key)
        # A step of Adam's size, whatever the gradient's.
        return jax.tree.map(lambda param, grad: param - 3e-3 * jnp.sign(grad), params, grads), value

    losses = []
    for key in jax.random.split(jax.random.key(0), 10):
        params, value = step(params, key)
        losses.append(float(value))
    assert np.isfinite(losses).all() and losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_make_up_the_model_and_own_its_parameters(family: str) -> None:
    definition, params, batch_stats = split_model(create_model(FAMILIES[family], num_classes=3))
    model = merge_model(definition, randomize(params), batch_stats)

    @jax.jit
    def run(x):
        expected = model(x)
        for part in model.parts().values():
            x = part(x)
        return x, expected

    np.testing.assert_allclose(*run(samples(2, FAMILIES[family])), rtol=1e-5, atol=1e-5)
    assert {model.part_of(path) for path in flat(params)} == set(model.parts())
    assert {path.split("/")[0] for path in flat(params) if model.part_of(path) == "stem"} == {"stem"}


@pytest.mark.parametrize("family", FAMILIES)
def test_number_formats(family: str) -> None:
    def formats(dtype: str | Precision) -> set[str]:
        model = abstract_model(lambda: create_model(FAMILIES[family], num_classes=3, dtype=dtype))
        assert {leaf.dtype.name for leaf in jax.tree.leaves((model.params, model.batch_stats))} == {"float32"}

        def run(params, batch_stats):
            merged, x = merge_model(model.definition, params, batch_stats), samples(1, FAMILIES[family])
            return merged.features(x), merged(x)

        maps, logits = jax.eval_shape(run, model.params, model.batch_stats)
        assert logits.dtype == jnp.float32
        return {m.dtype.name for m in maps}

    assert formats("float32") == formats("auto") == {"float32"}
    assert formats("bfloat16") == {"bfloat16"}
    assert formats(Precision(compute="bfloat16", residual="float32")) == {"float32"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", Precision("bfloat16", "float32")])
def test_bfloat16_logits_are_close_and_not_equal(family: str, dtype: str | Precision) -> None:
    def logits(dtype: str | Precision) -> np.ndarray:
        definition, params, batch_stats = split_model(create_model(FAMILIES[family], num_classes=3, dtype=dtype))
        return jax.jit(merge_model(definition, randomize(params), batch_stats))(samples(4, FAMILIES[family]))

    full, half = logits("float32"), logits(dtype)
    assert 1e-5 < np.abs(half - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_another_number_of_channels(family: str) -> None:
    x = samples(1, FAMILIES[family], channels=1)
    assert jax.eval_shape(lambda: create_model(FAMILIES[family], num_classes=3, in_channels=1)(x)).shape == (1, 3)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("convnext", [0.0, 0.1, 0.2, 0.3]),
        ("resnet", [0.0, 0.3]),
        ("vit", [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]),
        # Without residual branches.
        ("lenet", []),
        ("alexnet", []),
        ("vgg", []),
        ("googlenet", []),
        ("densenet", []),
    ],
)
def test_the_branches_of_a_block_share_its_drop_rate(family: str, expected: list[float]) -> None:
    assert create_model(FAMILIES[family], num_classes=3, drop_path=0.3).drop_rates() == pytest.approx(expected)


def test_a_pyramid_on_the_features_of_a_backbone() -> None:
    """The use that `features` is for: maps of all strides brought to one, added up and classified pixel by pixel."""
    model = create_model(dataclasses.replace(TINY, dims=(8, 16, 24, 32)), num_classes=2)
    laterals = [images(dim, 4, seed=dim) for dim in (8, 16, 24, 32)]

    def segment(x):
        maps = [feature @ lateral for feature, lateral in zip(model.features(x), laterals, strict=True)]
        return sum(jax.image.resize(m, maps[0].shape, "bilinear") for m in maps)

    scores = jax.jit(segment)(images(2, 32, 32, 3))
    assert scores.shape == (2, 16, 16, 4) and np.isfinite(scores).all() and np.std(scores) > 0.1
