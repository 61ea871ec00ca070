"""The command that prints a network part by part, or what an optimizer does to which parameters."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convnext_jax.tools.summary", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_table_of_the_parts() -> None:
    table = run("convnext_atto", "--image_size", "32", "--num_classes", "10", "--stem", "patch2")
    lines = [line.split() for line in table.stdout.splitlines()]
    assert [line[0] for line in lines] == ["part", "stem", *["stage"] * 4, "head", "total"], table.stderr
    assert "3,376,290" in lines[-1]


def test_the_parts_as_json() -> None:
    done = run("resnet18", "--image_size", "32", "--json")
    content = json.loads(done.stdout)
    assert (content["model"], content["image_size"]) == ("resnet18", 32)
    assert content["architecture"]["depths"] == [2, 2, 2, 2]
    assert content["total"]["parameters"] == 11_689_512
    assert content["parts"][4]["output"] == [1, 1, 512]


ROLES = ("convnext_atto", "--num_classes", "10", "--roles", "--optimizer", "muon", "--layer_decay", "0.8")


def test_a_table_of_the_roles_and_levels() -> None:
    done = run(*ROLES)
    roles, levels = done.stdout.split("\n\n")
    by_role = {line.split("  ")[0]: line.split()[-4:] for line in roles.splitlines()[1:]}
    assert by_role["linear kernels"][:3] == ["muon", "yes", "24"]
    assert by_role["layer scales"][:3] == ["adamw", "no", "12"]
    assert by_role["total"][-1] == "3,377,730"
    lines = levels.splitlines()[1:]
    assert lines[0].split()[:2] == ["x", "0.05498"] and lines[0].endswith("stem")
    assert lines[-1].split()[:2] == ["x", "1"] and lines[-1].endswith("head")


def test_the_roles_and_levels_as_json() -> None:
    content = json.loads(run(*ROLES, "--layer_decay_levels", "single", "--json").stdout)
    assert content["total"]["parameters"] == 3_377_730 and content["optimizer"] == "muon"
    assert {"role": "head kernel", "optimizer": "adamw", "weight_decay": True, "tensors": 1, "parameters": 3200} in (
        content["roles"]
    )
    assert [level["factor"] for level in content["levels"]] == pytest.approx([0.8**n for n in reversed(range(13))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convnext_ato",), "unknown model 'convnext_ato': did you mean 'convnext_atto'?"),
        (("convnext_atto", "--image_size", "31"), "the smallest that works is 32x32"),
        (("convnext_atto", "--stem", "patch3"), "stem='patch3': unknown; did you mean 'patch"),
        (("convnext_atto", "--optimizer", "muon"), "--layer_decay and --layer_decay_levels are for --roles"),
        (("convnext_atto", "--layer_decay", "0.8"), "--layer_decay and --layer_decay_levels are for --roles"),
        (("convnext_atto", "--roles", "--optimizer", "adam"), "invalid choice: 'adam'"),
        (("convnext_atto", "--roles", "--layer_decay", "1.5"), "config.optim.layer_decay=1.5: must be in [0, 1]"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
