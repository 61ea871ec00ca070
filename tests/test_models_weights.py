"""Folders of weights: what they keep, and how a network starts from them."""

import dataclasses
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.errors import UserError
from convnext_jax.models import create_model, load_model, split_model
from convnext_jax.models.interface import resize_kernel
from convnext_jax.models.parameters import flat
from convnext_jax.models.registry import named_architecture
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.models.weights import ModelFolder, start_from

SMALL = {"depths": (1, 1), "block": "basic", "width": 8, "stem": "conv3x3_s1"}


def folder_of(name: str = "convnext_atto", num_classes: int = 13, **fields: Any) -> ModelFolder:
    """Random weights, and random running statistics if there are any."""
    random = np.random.default_rng(0)
    _, *trees = split_model(create_model(name, num_classes=num_classes, **fields))
    params, batch_stats = jax.tree.map(lambda leaf: random.random(leaf.shape).astype(np.float32), trees)
    architecture = dataclasses.asdict(named_architecture(name, fields))
    names = tuple(f"class {index}" for index in range(num_classes))
    return ModelFolder(params, batch_stats, name, architecture, names, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "a test")


def test_the_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    written = folder_of("resnet18", **SMALL)
    written.write(tmp_path / "weights")
    read = ModelFolder.read(tmp_path / "weights")
    for tree in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(written, tree), getattr(read, tree))
    assert dataclasses.replace(written, params={}, batch_stats={}) == dataclasses.replace(
        read, params={}, batch_stats={}
    )
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
    with pytest.raises(UserError, match="exists already"):
        written.write(tmp_path / "weights")


def test_the_folder_alone_builds_the_network_and_says_how_to_feed_it(tmp_path: Path) -> None:
    written = folder_of("resnet18", num_classes=5, **SMALL)
    written.write(tmp_path / "weights")
    model, folder = load_model(tmp_path / "weights")
    assert model.architecture == ResNetArchitecture(**SMALL)
    assert folder.mean == (0.1, 0.2, 0.3) and folder.class_names[4] == "class 4"
    _, params, batch_stats = split_model(model)
    jax.tree.map(np.testing.assert_array_equal, params, written.params)
    jax.tree.map(np.testing.assert_array_equal, batch_stats, written.batch_stats)
    assert model(jnp.zeros((2, 16, 16, 3))).shape == (2, 5)


def test_parameters_stored_in_bfloat16_are_half_as_large_and_read_as_float32(tmp_path: Path) -> None:
    written = folder_of("resnet18", **SMALL)
    for dtype in ("float32", "bfloat16"):
        written.write(tmp_path / dtype, dtype=dtype)
    full, half = ((tmp_path / dtype / "weights.safetensors").stat().st_size for dtype in ("float32", "bfloat16"))
    read = ModelFolder.read(tmp_path / "bfloat16")
    assert 0.5 < half / full < 0.7 and read.verified  # the header and the running statistics are as large
    jax.tree.map(np.testing.assert_array_equal, read.batch_stats, written.batch_stats)
    for path, array in flat(read.params).items():
        rounded = flat(written.params)[path].astype(jnp.bfloat16).astype(np.float32)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, rounded)


def test_create_model_starts_from_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_of("resnet18", **SMALL).write(tmp_path / "weights")
    model = create_model("resnet18", num_classes=4, init_from=tmp_path / "weights", **SMALL)
    _, params, batch_stats = split_model(model)
    written = ModelFolder.read(tmp_path / "weights")
    np.testing.assert_array_equal(params["stem"]["conv"]["kernel"], written.params["stem"]["conv"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, batch_stats, written.batch_stats)
    assert "a fresh head of 4 classes replaces the one of 13" in caplog.text


# --- nothing damaged is believed


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder_of("resnet18", num_classes=5, **SMALL).write(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "checksums.json"])
def test_a_damaged_folder_is_refused_with_the_file_and_the_remedy(weights: Path, name: str) -> None:
    content = bytearray((weights / name).read_bytes())
    content[-20] ^= 1  # the last array, or a name in JSON: files that can be read, but are not what was written
    (weights / name).write_bytes(content)
    named = r"checksums\.json|missing|has other content" if name == "checksums.json" else f"{name} has other content"
    with pytest.raises(
        UserError, match=rf"weights in {weights} are damaged \(.*({named}).*tools\.export .* --output DIR, with"
    ):
        ModelFolder.read(weights)


def test_a_missing_file_is_said_to_be_missing(weights: Path) -> None:
    (weights / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"damaged \(weights\.safetensors is missing\)"):
        ModelFolder.read(weights)
    with pytest.raises(UserError, match=r"absent holds no weights to start from .*import_torch"):
        ModelFolder.read(weights.parent / "absent")


def test_a_workdir_is_not_a_folder_of_weights_and_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=r"is a workdir, .*tools\.export --workdir .*/run --format convnext_jax"):
        ModelFolder.read(tmp_path / "run")


def test_who_may_read_the_description_may_read_the_weights(weights: Path) -> None:
    modes = {path.name: path.stat().st_mode for path in weights.iterdir()}
    assert modes["weights.safetensors"] == modes["model.json"]


def test_weights_that_may_not_be_read_are_not_called_damaged(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "weights.safetensors":  # the superuser may read anything
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"^\S+/weights\.safetensors cannot be read \(Permission denied\)"):
        ModelFolder.read(weights)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if "weights.safetensors" in path.name:  # the description is small enough
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return written(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=r"out cannot be written \(No space left on device\); choose another --output"):
        folder_of("resnet18", num_classes=5, **SMALL).write(tmp_path / "out")


def test_a_folder_without_checksums_is_used_and_called_unverified(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_model(weights)
    assert ModelFolder.read(weights).verified and "unverified" not in caplog.text
    (weights / "checksums.json").unlink()
    assert not ModelFolder.read(weights).verified
    load_model(weights)
    create_model("resnet18", num_classes=5, init_from=weights, **SMALL)
    assert caplog.messages == [f"{weights}: unverified: there are no checksums to compare its files with"] * 2
    (weights / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match=r"weights\.safetensors is no safetensors file, or cut short"):
        ModelFolder.read(weights)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", 3, "holds no weights to start from .*3 is no text"),
        ("mean", ["x"], "holds no weights to start from .*are no numbers"),
        ("std", [1.0], "mean and std are not of the same channels"),
        ("class_names", 5, "holds no weights to start from"),
        ("architecture", {"depths": [10**9, 1]}, r"describes no resnet18 \(depths=\(1000000000, 1\)\)"),
        ("architecture", {"depths": "deep"}, "describes no resnet18"),
        ("architecture", {"stem": 3}, "describes no resnet18"),
        ("verified", True, "holds no weights to start from"),
    ],
)
def test_a_description_that_others_wrote_is_checked(weights: Path, field: str, value: Any, message: str) -> None:
    (weights / "checksums.json").unlink()
    card = json.loads((weights / "model.json").read_text())
    (weights / "model.json").write_text(json.dumps(card | {field: value}))
    with pytest.raises(UserError, match=message):
        load_model(weights)


@pytest.mark.parametrize(
    ("dtype", "values", "message"),
    [
        ("F64", 8, "is float64, not float32 or bfloat16"),
        ("F8_E4M3", 1, "numbers that cannot be read"),
        ("C64", 8, "complex numbers|no safetensors file"),  # safetensors 0.5 does not know them
    ],
)
def test_other_numbers_are_refused(weights: Path, dtype: str, values: int, message: str) -> None:
    (weights / "checksums.json").unlink()
    header = json.dumps({"head/bias": {"dtype": dtype, "shape": [5], "data_offsets": [0, 5 * values]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(5 * values)
    (weights / "weights.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=message):
        ModelFolder.read(weights)


# --- starting from the weights of another size


def start(given: ModelFolder, name: str = "convnext_atto", num_classes: int = 13, **fields: Any) -> Any:
    architecture = named_architecture(name, fields)
    _, *fresh = split_model(create_model(architecture, num_classes=num_classes, seed=5))
    params, _, notes = start_from(given, architecture, *fresh)
    return flat(params), flat(fresh[0]), flat(given.params), notes


def test_all_weights_are_taken_over_if_all_fit() -> None:
    params, fresh, given, notes = start(folder_of())
    jax.tree.map(np.testing.assert_array_equal, params, given)
    assert not notes and params.keys() == fresh.keys()


def test_a_head_without_a_bias_is_fresh_for_another_number_of_classes() -> None:
    given = folder_of("airbench94", dims=(8, 8))
    params, fresh, given, notes = start(given, "airbench94", num_classes=4, dims=(8, 8))
    assert notes == ["a fresh head of 4 classes replaces the one of 13"]
    np.testing.assert_array_equal(params["head/kernel"], fresh["head/kernel"])
    kernel = "stages/1/blocks/0/convs/1/kernel"
    np.testing.assert_array_equal(params[kernel], given[kernel])


def test_another_number_of_classes_gets_a_fresh_head_and_says_so() -> None:
    params, fresh, given, notes = start(folder_of(), num_classes=4)
    assert notes == ["a fresh head of 4 classes replaces the one of 13"]
    head = {"head/kernel", "head/bias"}
    for path, array in params.items():
        np.testing.assert_array_equal(array, fresh[path] if path in head else given[path])


@pytest.mark.parametrize(("stem", "size"), [("patch2", 2), ("conv3x3_s1", 3)])
def test_another_stem_gets_the_resized_kernel_and_says_so(stem: str, size: int) -> None:
    params, _, given, notes = start(folder_of(), stem=stem)
    assert notes == [f"stem/conv/kernel is resized from 4x4 to {size}x{size}"]
    kernel = params["stem/conv/kernel"]
    assert kernel.shape == (size, size, 3, 40)
    np.testing.assert_allclose(kernel.sum((0, 1)), given["stem/conv/kernel"].sum((0, 1)), rtol=1e-4, atol=1e-4)


def test_another_image_size_gets_the_resized_positions_and_says_so() -> None:
    small = {"dim": 8, "depth": 4, "heads": 2, "patch_size": 4}
    given = folder_of("vit_tiny_patch4", **small, image_size=16)
    table = given.params["stem"]["position"]
    # A ramp from left to right, that a larger grid continues in smaller steps.
    table[1:] = np.tile(np.arange(4, dtype=np.float32), 4)[:, None]
    params, _, _, notes = start(given, "vit_tiny_patch4", **small, image_size=32)
    assert notes == ["stem/position is resized from 17 to 65"]
    resized = params["stem/position"]
    np.testing.assert_array_equal(resized[0], table[0])
    ramp = resized[1:].reshape(8, 8, 8)[3, :, 0]
    np.testing.assert_allclose(ramp[2:6], [0.75, 1.25, 1.75, 2.25], atol=0.05)


def test_a_resized_kernel_answers_to_a_flat_image_as_before() -> None:
    kernel = np.random.default_rng(0).standard_normal((4, 4, 3, 5)).astype(np.float32)
    for size in (2, 3, 7):
        resized = resize_kernel(kernel, size)
        np.testing.assert_allclose(resized.sum((0, 1)), kernel.sum((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(resize_kernel(kernel, 4), kernel, rtol=1e-6)
    # At half the size four weights become one.
    np.testing.assert_allclose(resize_kernel(kernel, 2)[0, 1], kernel[:2, 2:].sum((0, 1)), rtol=1e-5, atol=1e-6)


def test_weights_of_another_network_are_refused_with_all_differences() -> None:
    with pytest.raises(UserError, match=r"of convnext_atto, do not fit this model: .*grn/gamma is missing.*left over"):
        start(folder_of(), "convnextv2_atto")
    with pytest.raises(UserError, match=re.escape("norm/scale is [320], not [384]")):
        start(folder_of(), "convnext_femto")
    with pytest.raises(UserError, match="stem/norm/mean is missing"):
        start(dataclasses.replace(folder_of("resnet18", **SMALL), batch_stats={}), "resnet18", **SMALL)
