"""Parameter groups: each parameter in one, what the optimiser does to which, and the command that shows it."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from convnext_jax.models.architectures import ARCHITECTURES, BLOCKS, Architecture
from convnext_jax.optim.groups import GROUPS, Group, decay_mask, group_of, muon_labels
from tiny import tiny_model

from convnext_jax.errors import UserError
from convnext_jax.models import abstract_model, count_parameters, create_model, list_models, split_model
from convnext_jax.models.parameters import flat_params
from convnext_jax.optim import groups
from convnext_jax.optim.layer_decay import layer_factors, layer_label, scale_by_layer_decay
from convnext_jax.optim.summary import summarize_groups, summarize_layers

TINY = Architecture((1, 1, 1, 1), (8, 8, 16, 16), stem="patch2")
VARIANTS = {
    **{name: ARCHITECTURES[name] for name in list_models()},
    **{block: dataclasses.replace(TINY, block=block) for block in BLOCKS},
    "dense": dataclasses.replace(TINY, convolution="dense", kernel_size=3),
    "batch norm": dataclasses.replace(TINY, norm="batch", grn=True),
    "swin_mlp": dataclasses.replace(TINY, swin_mlp_stages=(1, 2, 3, 4)),
    "two stem convolutions": dataclasses.replace(TINY, stem="conv7x7_patch2", bilstm2d=True),
}


def shapes(architecture: Architecture) -> dict:
    return abstract_model(lambda: create_model(architecture, num_classes=10))[1]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_groups_cover_every_model_and_treat_its_parameters_by_their_shapes(name: str):
    params = shapes(VARIANTS[name])
    decays, labels = flat_params(decay_mask(params)), flat_params(muon_labels(params))
    for path, leaf in flat_params(params).items():
        assert decays[path] == (leaf.ndim >= 2), path
        # Between hidden layers, from more than one channel, and not Swin-MLP's heads.
        hidden = not path.startswith(("stem/", "head/"))
        matrix = leaf.ndim >= 2 and leaf.shape[-2] > 1 and "/spatial/" not in path
        assert labels[path] == ("muon" if hidden and matrix else "adamw"), path


def test_every_group_is_that_of_some_model():
    found = {group_of(path) for architecture in VARIANTS.values() for path in flat_params(shapes(architecture))}
    assert found == set(GROUPS)


@pytest.mark.parametrize(
    ("path", "group", "decay"),
    [
        ("stem/norm/bias", "norms", False),
        ("stem/conv/bias", "biases", False),
        ("stages/0/blocks/0/layer_scale", "layer scales", False),
        ("stages/0/blocks/0/grn/beta", "GRN", False),
        ("stages/3/blocks/2/spatial_norm/scale", "norms", False),
        ("stages/3/blocks/2/spatial/bias", "biases", False),
        ("stages/1/downsample/norm/bias", "norms", False),
        ("stages/1/downsample/conv/kernel", "convolution kernels", True),
        ("stages/0/blocks/1/convs/0/1/kernel", "depthwise kernels", True),
        ("lstm/vertical/backward/recurrent_kernel", "LSTM kernels", True),
        ("norm/scale", "norms", False),
        ("head/bias", "biases", False),
    ],
)
def test_names_find_their_group(path: str, group: str, decay: bool):
    assert (group_of(path).name, group_of(path).decay) == (group, decay)


def test_a_parameter_that_no_group_covers_is_named(monkeypatch: pytest.MonkeyPatch):
    for function in (decay_mask, muon_labels):
        with pytest.raises(ValueError, match="'head/gain' is covered by no group of convnext_jax.optim.groups.GROUPS"):
            function({"head": {"kernel": jnp.ones((2, 3)), "gain": jnp.ones(3)}})
    monkeypatch.setattr(groups, "GROUPS", (*GROUPS, Group("gammas", "gamma$", decay=True)))
    with pytest.raises(ValueError, match=r"'a/grn/gamma' is covered by 2 groups \(GRN, gammas\) of"):
        decay_mask({"a": {"grn": {"gamma": jnp.ones(3)}}})


def test_muon_without_matrices_is_refused_with_both_fields():
    params = {"stem": {"conv": {"kernel": jnp.ones((2, 2, 3, 4))}}, "head": {"kernel": jnp.ones((4, 2))}}
    with pytest.raises(UserError, match=r"config\.optim\.name=muon .* config\.model\.name has none; take .*=adamw"):
        muon_labels(params)


def test_layer_decay_scales_the_updates_by_the_distance_from_the_head():
    _, params, _ = split_model(tiny_model())
    updates = jax.tree.map(jnp.ones_like, params)
    scaled, _ = jax.jit(lambda: scale_by_layer_decay(0.5).update(updates, scale_by_layer_decay(0.5).init(params)))()
    found = {path: float(np.mean(leaf)) for path, leaf in flat_params(scaled).items()}
    # Four stages of one block each.
    expected = {
        "head/kernel": 1.0,
        "norm/bias": 1.0,
        "stages/3/blocks/0/expand/kernel": 0.5,
        "stages/3/downsample/conv/kernel": 0.5,
        "stages/1/blocks/0/layer_scale": 0.125,
        "stages/0/blocks/0/depthwise/bias": 0.0625,
        "stem/conv/kernel": 0.03125,
        "stem/norm/scale": 0.03125,
    }
    assert {path: found[path] for path in expected} == expected
    assert min(found.values()) == 0.03125


def test_layers_are_counted_by_number_and_the_lstm_goes_with_the_head():
    names = [f"stages/2/blocks/{block}/layer_scale" for block in range(12)] + ["lstm/project/bias", "stem/conv/bias"]
    params = {name: jnp.ones(1) for name in names}
    factors = [(layer_label(layer), factor) for layer, factor in layer_factors(params, 0.5).items()]
    assert factors[0] == ("stem", 0.5**13)
    assert factors[1:-1] == [(f"stage 3 block {block + 1}", 0.5 ** (12 - block)) for block in range(12)]
    assert factors[-1] == ("head", 1.0)


def test_the_summary_counts_every_parameter_once():
    params = shapes(ARCHITECTURES["convnextv2_atto"])
    rows, layers = summarize_groups(params, "muon"), summarize_layers(params, 0.9)
    for table in (rows, layers):
        assert sum(row.parameters for row in table) == count_parameters(params)
        assert sum(row.tensors for row in table) == len(jax.tree.leaves(params))
    by_name = {row.group: row for row in rows}
    grn, head, pointwise = by_name["GRN"], by_name["head kernel"], by_name["pointwise kernels"]
    # Twelve blocks of 40, 80, 160 and 320 channels, each expanded four times.
    channels = [40] * 2 + [80] * 2 + [160] * 6 + [320] * 2
    assert (grn.optimizer, grn.weight_decay, grn.tensors, grn.parameters) == ("adamw", False, 24, 8 * sum(channels))
    assert (head.optimizer, head.weight_decay, head.tensors, head.parameters) == ("adamw", True, 1, 3200)
    assert (pointwise.optimizer, pointwise.weight_decay, pointwise.tensors) == ("muon", True, 24)
    assert pointwise.parameters == 8 * sum(c * c for c in channels)
    assert by_name["LSTM kernels"].tensors == 0
    assert {row.optimizer for row in summarize_groups(params, "lion")} == {"lion"}
    assert [layer.layer for layer in layers[:3]] == ["stem", "stage 1 block 1", "stage 1 block 2"]
    assert layers[0].factor == pytest.approx(0.9**13) and layers[-1].factor == 1.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convnext_jax.tools.summary", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_command_prints_the_groups_and_layers():
    arguments = ("convnext_atto", "--num_classes", "10", "--groups", "--optimizer", "muon", "--layer_decay", "0.8")
    done = run(*arguments)
    groups_table, layers_table = done.stdout.split("\n\n")
    lines = [line.split() for line in groups_table.splitlines()]
    assert [line[0] for line in lines] == ["group", *(group.name.split()[0] for group in GROUPS), "total"], done.stderr
    assert ["pointwise", "kernels", "muon", "yes", "24"] == lines[5][:5]
    assert ["layer", "scales", "adamw", "no", "12"] == lines[10][:5]
    assert "3,377,730" == lines[-1][-1]
    lines = [line.split() for line in layers_table.splitlines()]
    assert lines[1][:3] == ["stem", "x", "0.05498"] and lines[-1][:3] == ["head", "x", "1"]
    content = json.loads(run(*arguments, "--json").stdout)
    assert content["total"]["parameters"] == 3_377_730 and content["optimizer"] == "muon"
    assert [row["group"] for row in content["groups"]] == [group.name for group in GROUPS]
    assert content["layers"][-1]["factor"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--optimizer", "muon"), "--optimizer and --layer_decay are for --groups"),
        (("--layer_decay", "0.8"), "--optimizer and --layer_decay are for --groups"),
        (("--groups", "--optimizer", "adam"), "invalid choice: 'adam'"),
        (("--groups", "--layer_decay", "1.5"), "config.optim.layer_decay=1.5: must be in [0, 1]"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: tuple[str, ...], message: str):
    done = run("convnext_atto", *arguments)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
