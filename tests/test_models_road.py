"""The road from ResNet to ConvNeXt: its ends are the two networks, and each step costs what the paper says."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from numpy_layers import images

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model, merge_model, split_model
from convnext_jax.models.costs import parameters_and_macs
from convnext_jax.models.parameters import flat, nested
from convnext_jax.models.road_steps import STEPS, road, step_of

# ConvNeXt's names for the three layers of a block.
CONVNEXT = {
    "conv1/": "depthwise/",
    "norm1/": "norm/",
    "conv2/": "expand/",
    "conv3/": "project/",
}


def answers(model, x):
    return jax.jit(lambda x: (model(x), model.features(x)))(x)


def with_weights_of(model, source, rename):
    """A network with the weights of another, under the names that it has there."""
    definition, *trees = split_model(model)
    theirs = {path: array for tree in split_model(source)[1:] for path, array in flat(tree).items()}
    ours = [
        {path: theirs.pop(rename(path)).reshape(array.shape) for path, array in flat(tree).items()} for tree in trees
    ]
    assert not theirs, f"not carried over: {theirs.keys()}"
    return merge_model(definition, *map(nested, ours))


def randomized(model):
    """A network whose norms, running statistics and layer scales are not the identity."""
    definition, *trees = split_model(model)
    random = np.random.default_rng(0)

    def draw(path, array):
        noise = random.standard_normal(array.shape).astype(np.float32)
        return 1.0 + 0.3 * np.abs(noise) if array.ndim == 1 else array + 0.02 * noise

    return merge_model(definition, *(nested({p: draw(p, a) for p, a in flat(tree).items()}) for tree in trees))


def small(name, changes):
    """A narrow network of the same kind: two blocks in the third stage, one in the others."""
    return dataclasses.replace(MODELS[name], depths=(1, 1, 2, 1), **changes)


def test_the_first_step_is_resnet() -> None:
    source = randomized(create_model(small("resnet50", {"width": 4}), num_classes=3))
    first = dataclasses.replace(road()["resnet"], depths=(1, 1, 2, 1), width=4)
    model = with_weights_of(create_model(first, num_classes=3), source, lambda path: path)
    x = images(2, 64, 96, 3)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), answers(model, x), answers(source, x)
    )


def test_the_last_step_is_convnext() -> None:
    source = randomized(create_model(small("convnext_tiny", {"dims": (4, 8, 16, 32)}), num_classes=3))
    last = dataclasses.replace(road()["separate_downsampling"], depths=(1, 1, 2, 1), width=4)

    def rename(path):
        if "/blocks/" in path:
            for ours, theirs in CONVNEXT.items():
                path = path.replace(ours, theirs)
        return path

    model = with_weights_of(create_model(last, num_classes=3), source, rename)
    x = images(2, 64, 96, 3)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5),
        answers(model, x),
        answers(source, x),
    )


@pytest.mark.parametrize(
    ("size", "ends"), [("tiny", ("resnet50", "convnext_tiny")), ("base", ("resnet200", "convnext_base"))]
)
def test_the_ends_have_the_parameters_of_the_two_networks(size: str, ends: tuple[str, str]) -> None:
    def count(architecture) -> int:
        return parameters_and_macs(architecture, 64, 64, 1000)[0]

    steps = list(road(size).values())
    assert [count(steps[0]), count(steps[-1])] == [count(MODELS[name]) for name in ends]


def test_each_step_costs_what_the_paper_says() -> None:
    networks = road()
    for step in STEPS:
        if step.gmacs is not None:
            _, macs = parameters_and_macs(networks[step.name], 224, 224, 1000)
            assert macs / 1e9 == pytest.approx(step.gmacs, abs=0.051), step.name


def test_a_step_changes_what_it_says_and_nothing_else() -> None:
    networks = {name: dataclasses.asdict(network) for name, network in road().items()}
    before = {step.name: step.after or previous.name for previous, step in zip(STEPS, STEPS[1:], strict=False)}
    changed = {
        name: {field for field, value in networks[name].items() if value != networks[after][field]}
        for name, after in before.items()
    }
    assert changed == {
        "stage_ratio": {"depths"},
        "patchify": {"stem"},
        "depthwise": {"convolution"},
        "width": {"width"},
        "inverted": {"design"},
        "moved_up": {"design"},
        **{f"kernel{size}": {"kernel_size"} for size in (5, 7, 9, 11)},
        "gelu": {"activation"},
        "one_activation": {"one_activation"},
        "one_norm": {"one_norm"},
        "layer_norm": {"norm"},
        "separate_downsampling": {"separate_downsampling", "layer_scale"},
    }
    # Every size of the kernel is tried after the same step, and the road goes on from 7.
    assert [networks[f"kernel{size}"]["kernel_size"] for size in (5, 7, 9, 11)] == [5, 7, 9, 11]
    assert networks["gelu"]["kernel_size"] == 7


@pytest.mark.parametrize("size", ["tiny", "base", "quarter"])
def test_a_network_knows_which_step_it_is(size: str) -> None:
    for small_images in (False, True):
        networks = road(size, small_images=small_images)
        assert [step_of(network) for network in networks.values()] == list(networks)
    assert step_of(dataclasses.replace(road(size)["gelu"], width=7)) is None
    assert step_of(MODELS["convnext_tiny"]) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "patch3"}, "stem='patch3': unknown; did you mean 'patch4'?"),
        ({"design": "invert"}, "design='invert': unknown; did you mean 'inverted'?"),
        ({"one_norm": True}, "one_norm=True: must be False with design=bottleneck"),
        ({"kernel_size": 4}, "kernel_size=4: must be odd and positive"),
        ({"depths": ()}, "depths=(): must be positive numbers, one for each stage"),
    ],
)
def test_impossible_networks_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["road_tiny"], **changes)


def test_an_unknown_road_is_refused() -> None:
    with pytest.raises(UserError, match="unknown road 'tny': did you mean 'tiny'?"):
        road("tny")
