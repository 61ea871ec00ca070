"""The roles of the parameters of every network, what an optimizer does by them, and their summary."""

import dataclasses
import functools

import jax
import optax
import pytest
from networks import EVERY_LAYER, TINY

from convnext_jax.config import OptimConfig
from convnext_jax.errors import UserError
from convnext_jax.layers.parameters import Role
from convnext_jax.models import MODELS, Architecture, abstract_model, count_parameters, create_model
from convnext_jax.models.convnext import BLOCKS
from convnext_jax.models.parameters import AbstractModel, flat, nested
from convnext_jax.optim.optimizer import make_optimizer
from convnext_jax.optim.summary import summarize_roles

VARIANTS: dict[str, Architecture] = {
    **{block: dataclasses.replace(TINY, block=block) for block in BLOCKS},
    "dense": dataclasses.replace(TINY, convolution="dense"),
    "batch norm": dataclasses.replace(TINY, norm="batch", grn=True),
    "swin_mlp": dataclasses.replace(TINY, swin_mlp_stages=(1, 2, 3, 4)),
    "two stem convolutions": dataclasses.replace(TINY, stem="conv7x7_patch2", bilstm2d=True),
}
ARCHITECTURES: dict[str, Architecture] = {**MODELS, **VARIANTS}


@functools.cache
def shapes(name: str) -> AbstractModel:
    return abstract_model(lambda: create_model(ARCHITECTURES[name], num_classes=10))


@pytest.mark.parametrize("name", (*EVERY_LAYER, *VARIANTS))
def test_each_parameter_has_one_role_that_fits_its_place_and_shape(name: str) -> None:
    model = shapes(name)
    roles = flat(model.roles)
    assert roles.keys() == flat(model.params).keys()
    for path, leaf in flat(model.params).items():
        role = roles[path]
        assert isinstance(role, Role)
        # Matrices and kernels decay, and positions, scales, biases and norms do not.
        assert role.decays == (leaf.ndim >= 2 and role is not Role.POSITION), path
        # Muon's are between hidden layers, from and to more than one channel, and not Swin-MLP's heads, the groups of a
        # convolution, or Swin's table of positions.
        hidden = not path.startswith("stem/") and path.split("/")[-2] != "head"
        several = ("/spatial/" in path) or ("resnext" in name and path.endswith("conv2/kernel"))
        matrix = leaf.ndim >= 2 and min(leaf.shape[-2:]) > 1 and not several and "/position/" not in path
        assert role.is_hidden_matrix == (hidden and matrix), path


def test_every_role_is_found_in_some_network() -> None:
    assert {role for name in (*EVERY_LAYER, *VARIANTS) for role in flat(shapes(name).roles).values()} == set(Role)


@pytest.mark.parametrize(
    ("name", "path", "role"),
    [
        ("convnext_swin_mlp", "stem/norm/bias", Role.NORM),
        ("convnext_swin_mlp", "stem/conv/kernel", Role.STEM),
        ("convnext_swin_mlp", "stem/conv/bias", Role.BIAS),
        ("convnext_swin_mlp", "stages/0/blocks/0/layer_scale", Role.LAYER_SCALE),
        ("convnext_swin_mlp", "stages/3/blocks/2/spatial_norm/scale", Role.NORM),
        ("convnext_swin_mlp", "stages/3/blocks/2/spatial/kernel", Role.WINDOW),
        ("convnext_swin_mlp", "stages/3/blocks/2/spatial/bias", Role.BIAS),
        ("convnext_swin_mlp", "stages/1/downsample/conv/kernel", Role.CONVOLUTION),
        ("convnext_swin_mlp", "head/kernel", Role.HEAD),
        ("convnextv2_atto", "stages/0/blocks/0/grn/beta", Role.RESPONSE_NORM),
        ("multiscale_c", "stages/0/blocks/0/convs/0/1/kernel", Role.DEPTHWISE),
        ("two stem convolutions", "stem/more/0/kernel", Role.STEM),
        ("two stem convolutions", "lstm/vertical/backward/recurrent_kernel", Role.RECURRENT),
        ("dense", "stages/0/blocks/0/dense/kernel", Role.CONVOLUTION),
        ("resnet50", "stages/0/blocks/0/shortcut/conv/kernel", Role.CONVOLUTION),
        ("resnet50", "stages/0/blocks/0/norm3/scale", Role.NORM),
        ("vit_tiny_patch4", "stages/0/blocks/0/attention/qkv/kernel", Role.LINEAR),
        ("vit_tiny_patch4", "stem/position", Role.POSITION),
        ("vit_tiny_patch4", "stem/class_token", Role.POSITION),
        ("swin_tiny", "stages/0/blocks/0/attention/position/table", Role.POSITION),
        ("cct_7_3x1", "pool/score/kernel", Role.HEAD),
        ("cvt_13", "stages/2/downsample/class_token", Role.POSITION),
        ("resnext29_8x64d", "stages/0/blocks/0/conv2/kernel", Role.GROUPED),
    ],
)
def test_roles_by_path(name: str, path: str, role: Role) -> None:
    assert flat(shapes(name).roles)[path] is role


@pytest.mark.parametrize("role", Role)
def test_muon_leaves_what_is_no_hidden_matrix_to_adamw(role: Role) -> None:
    muon = {Role.CONVOLUTION, Role.LINEAR, Role.RECURRENT}
    assert role.optimizer("muon") == ("muon" if role in muon else "adamw")
    assert role.optimizer("lion") == "lion"


def test_muon_without_matrices_is_refused_with_both_fields() -> None:
    model = dataclasses.replace(
        shapes("resnet18"), roles=nested({"stem/conv/kernel": Role.STEM, "head/kernel": Role.HEAD})
    )
    with pytest.raises(UserError, match=r"config\.optim\.name=muon .* config\.model\.name has none; take .*=adamw"):
        make_optimizer(OptimConfig(name="muon"), optax.constant_schedule(0.1), model)


def test_the_summary_counts_every_parameter_once() -> None:
    model = shapes("convnextv2_atto")
    rows = summarize_roles(model, "muon")
    assert sum(row.parameters for row in rows) == count_parameters(model.params)
    assert sum(row.tensors for row in rows) == len(jax.tree.leaves(model.params))
    by_role = {row.role: row for row in rows}
    # Twelve blocks of 40, 80, 160 and 320 channels, each expanded four times.
    channels = [40] * 2 + [80] * 2 + [160] * 6 + [320] * 2
    grn, head, linear = by_role["GRN"], by_role["head kernel"], by_role["linear kernels"]
    assert (grn.optimizer, grn.weight_decay, grn.tensors, grn.parameters) == ("adamw", False, 24, 8 * sum(channels))
    assert (head.optimizer, head.weight_decay, head.tensors, head.parameters) == ("adamw", True, 1, 3200)
    assert (linear.optimizer, linear.weight_decay, linear.tensors) == ("muon", True, 24)
    assert linear.parameters == 8 * sum(c * c for c in channels)
    assert "recurrent kernels" not in by_role
    assert {row.optimizer for row in summarize_roles(model, "lion")} == {"lion"}
