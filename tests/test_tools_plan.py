"""The plan of a run on chips that are not here."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from conftest import ROOT
from PIL import Image
from tiny import tiny_experiment

from convnext_jax.config import Experiment
from convnext_jax.data.registry import Extent
from convnext_jax.errors import UserError
from convnext_jax.models.lenet import LeNetArchitecture
from convnext_jax.report.plan_chart import plan_chart
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tools.benchmark.stand_in_data import shapes_as_dataset
from convnext_jax.tools.plan import __main__ as command
from convnext_jax.tools.plan import planning
from convnext_jax.tools.plan.chips import CHIPS
from convnext_jax.tools.plan.compile import CompiledRun, compile_run, memory_by_kind
from convnext_jax.tools.plan.extent import extent_before_data
from convnext_jax.tools.plan.hlo import (
    Collective,
    Executed,
    Program,
    bytes_of,
    collectives,
    memory_traffic,
    program_instructions,
    read_program,
    step_instructions,
)
from convnext_jax.tools.plan.kinds import by_kind, step_costs
from convnext_jax.tools.plan.roofline import bytes_sent, roofline
from convnext_jax.tools.plan.text import plan_text
from convnext_jax.tools.plan.topology import devices_of, read_topology

# Lines of the step of configs/cifar100.py, batch 1,024, compiled by libtpu 0.0.52 for v5e:2x4.
EXCERPT = Path(__file__).parent / "step_v5e.hlo.txt"
RECORD = ROOT / "benchmarks" / "results" / "plan_cifar100_v5e_2x4.json"
EXTENT = Extent(32, 32, 4, 40)


@pytest.fixture(scope="module")
def excerpt() -> tuple[Program, list[Executed]]:
    program = read_program(EXCERPT.read_text())
    return program, step_instructions(program)


def lenet() -> Experiment:
    experiment = tiny_experiment(LeNetArchitecture((4, 8, 16), 12))
    return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, dtype="float32"))


@pytest.fixture(scope="module")
def run() -> CompiledRun:
    return compile_run(lenet(), EXTENT, Sharding(make_mesh(devices_of(read_topology("cpu:2")))))


PROGRAM = """\
HloModule jit_forward

%body (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  ROOT %b = f32[2]{0} add(%x, %x), backend_config={"estimated_cycles":"7"}
}

%condition (x: f32[2]) -> pred[] {
  %x.1 = f32[2]{0} parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  %a = f32[2]{0} add(%p, %p), backend_config={"estimated_cycles":"100"}
  ROOT %w = f32[2]{0} while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_a_program_without_steps_is_counted_with_the_rounds_of_its_loops() -> None:
    program = read_program(PROGRAM)
    costs = step_costs(program, program_instructions(program))
    assert [(cost.name, cost.cycles) for cost in costs] == [("a", 100), ("b", 21)]


def test_cycles_are_those_of_one_step(excerpt: tuple[Program, list[Executed]]) -> None:
    costs = step_costs(*excerpt)
    # From the text by hand. The slice of the crop is taken 128 times, the reduction of RandAugment twice.
    assert by_kind(costs) == {
        "products": 1_067_236 + 256_555,
        "depthwise": 1_672_198 + 122_009,
        "norms": 177_676,
        "augmentation": 128 * 6_517 + 2 * 24_886,
        "optimizer": 128_964,
        "copies": 276_800,
        "other": 0,
    }
    assert [cost.times for cost in costs if cost.kind == "augmentation"] == [128, 2]


def test_the_dearest_have_their_place_in_the_source(excerpt: tuple[Program, list[Executed]]) -> None:
    depthwise, product, crop = step_costs(*excerpt)[:3]
    assert (depthwise.place, depthwise.backward, depthwise.shape) == ("ops/depthwise.py:59", True, "f32[96]")
    assert (product.place, product.backward) == ("layers/convolution.py:49", True)
    assert (crop.place, crop.backward) == ("augment/geometry.py:38", False)  # from the loop that it is in
    program, step = excerpt
    calls = program.place(next(each.instruction for each in step if each.instruction.name == "fusion.2342"))
    assert [call.rpartition("/convnext_jax/")[2] for call in calls[:3]] == [
        "layers/convolution.py:49",
        "models/convnext.py:216",
        "models/interface.py:236",
    ]
    assert "/convnext_jax/train/step.py" in calls[-2] and calls[-1].startswith("/home/user/")


def test_what_has_no_cycles_is_kept(excerpt: tuple[Program, list[Executed]]) -> None:
    unknown = [each.instruction.name for each in excerpt[1] if each.instruction.cycles is None]
    assert "gather_fusion.8" in unknown and "all-reduce.601" in unknown and "fusion.2338" not in unknown


def test_collectives_have_their_bytes_and_their_group(excerpt: tuple[Program, list[Executed]]) -> None:
    first, second = collectives(*excerpt, num_chips=16)
    # The first names a mesh of eight in a form of its own, the second lists them.
    assert first == Collective("all-reduce", 4 * (100 + 768 * 100), 16, 1, ("f32",))
    assert second == Collective("all-reduce", 2 * (7 * 7 * 96 + 96 * 384), 8, 1, ("bf16",))


def test_the_larger_side_of_a_collective_counts() -> None:
    text = """
%body (p: f32[]) -> f32[] {
  %x = f32[8,4]{1,0} parameter(0)
  %all-gather-start.1 = (f32[8,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%x), replica_groups=[2,2]<=[4], dimensions={0}
  %y = f32[16,4]{1,0} all-gather-done(%all-gather-start.1)
  %reduce-scatter.1 = f32[4,4]{1,0} reduce-scatter(f32[16,4]{1,0} %y), replica_groups={{0,1,2,3}}, to_apply=%add
}

ENTRY %main (p: f32[]) -> f32[] {
  %loop = f32[] while(%p), condition=%c, body=%body
}
"""
    program = read_program(text)
    gathered, scattered = collectives(program, step_instructions(program), 4)
    assert (gathered.opcode, gathered.bytes, gathered.group) == ("all-gather", 256, 2)
    assert (scattered.opcode, scattered.bytes, scattered.group) == ("reduce-scatter", 256, 4)
    assert bytes_sent([gathered, scattered]) == 256 / 2 + 256 * 3 / 4


def test_traffic_is_that_of_the_large_memory() -> None:
    text = """
%body (p: f32[]) -> f32[] {
  %a = f32[256]{0:T(256)} parameter(0)
  %b = f32[64]{0:T(256)S(1)} fusion(%a), kind=kLoop, calls=%f
  %c = f32[32]{0:T(256)} fusion(%b), kind=kLoop, calls=%f
  %copy-start.1 = (f32[32]{0:T(256)S(1)}, f32[32]{0:T(256)}, u32[]{:S(2)}) copy-start(%c)
  %d = f32[32]{0:T(256)S(1)} copy-done(%copy-start.1)
}

ENTRY %main (p: f32[]) -> f32[] {
  %loop = f32[] while(%p), condition=%c, body=%body
}
"""
    program = read_program(text)
    # The first fusion reads, the second writes, and the copy reads.
    assert memory_traffic(program, step_instructions(program)) == 4 * (256 + 32 + 32)


def test_bytes_of_types() -> None:
    assert bytes_of("f32[]") == 4 and bytes_of("u8[0,3]") == 0
    assert bytes_of("(s4[8]{0}, c64[2]{0}, /*index=2*/pred[3]{0:T(256)})") == 4 + 16 + 3


def test_a_program_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no loop over the steps"):
        step_instructions(read_program("ENTRY %main (p: f32[]) -> f32[] {\n  %p = f32[] parameter(0)\n}\n"))


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_chips_are_possible(chip: Any) -> None:
    # All of them need 100 to 600 operations for a byte of their memory, and have slower links than memory.
    assert 100 < chip.peak_flops / chip.memory_bandwidth < 600
    assert chip.link_bandwidth < chip.memory_bandwidth / 2 and 10**10 < chip.memory_bytes < 2 * 10**11
    assert chip.source and (chip.clock is None or 1e9 < chip.clock < 1.8e9)


def test_clocks_are_those_that_are_published() -> None:
    # Jouppi et al. 2023, table 4; https://jax-ml.github.io/scaling-book/tpus
    assert CHIPS["v4"].clock == pytest.approx(1.05e9, rel=0.01)
    assert CHIPS["v5e"].clock == pytest.approx(1.5e9, rel=0.01)


def test_the_roofline_is_each_limit_alone() -> None:
    limits = roofline(CHIPS["v5e"], flops=197e9, accessed=819e7, sent=200e5)
    assert limits == pytest.approx({"arithmetic": 1e-3, "memory": 1e-2, "interconnect": 1e-4})


def test_memory_by_kind_is_what_xla_plans(run: CompiledRun) -> None:
    assert run.program is not None
    memory, stats = memory_by_kind(run), run.program.memory_analysis()
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(run.plan.state.params))
    assert memory["parameters"] == memory["moving average"] == parameters
    assert memory["optimizer"] == 2 * parameters + 8  # two moments, two counts
    assert memory["training data"] == 40 * (32 * 32 * 3 + 4 + 4) + 8  # pixels, label, order; epoch, position
    assert memory["padding"] == 0  # a CPU has none
    arguments = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    assert sum(memory.values()) == arguments + stats.temp_size_in_bytes


def test_a_step_exchanges_its_gradients_once(run: CompiledRun) -> None:
    assert run.program is not None
    program = read_program(run.program.as_text() or "")
    (exchange,) = collectives(program, step_instructions(program), 2)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.plan.state.params))
    # The gradients, and beside them two sums over the batch: of the loss and of a metric.
    assert exchange == Collective("all-reduce", 4 * (parameters + 2), 2, 1, ("f32",))


def test_the_largest_batch_is_found_from_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def compiled(experiment: Experiment, extent: Extent, sharding: Sharding, limit: int | None) -> SimpleNamespace:
        tried.append(experiment.run.batch_size)
        return SimpleNamespace(program=None if experiment.run.batch_size > 20_000 else "a program")

    monkeypatch.setattr(planning, "compile_run", compiled)
    monkeypatch.setattr(planning, "memory_by_kind", lambda run: {"temporaries": 10**6 * tried[-1], "program": 10**9})
    topology, known = read_topology("v5e:1x2"), {8: 10**9 + 8 * 10**6}
    extent = dataclasses.replace(EXTENT, train_examples=50_000)
    sharding = Sharding(make_mesh(jax.devices()[:2]))
    found = planning.largest_that_fits(lenet(), extent, topology, sharding, known)
    exact = (16 * 2**30 - 10**9) // 10**6
    assert exact * 15 / 16 <= found["batch_size"] <= exact and found["batch_size"] % 2 == 0
    assert 8 not in tried and len(tried) <= 5 and found["bytes_by_batch"]["8"] == known[8]


@pytest.mark.parametrize("name", ["cpu:2", "h100:2"])
def test_a_plan_says_what_it_knows(name: str, run: CompiledRun) -> None:
    topology = read_topology(name)
    plan = planning.plan_of(run, EXTENT, topology, run.plan.spec.sharding)
    json.dumps(plan)
    said = plan_text(plan)
    assert "it fits: " in said and "all-reduce" in said and "cycles: not available" in said
    assert plan["total_steps"] == 4 * (40 // 8) and plan["cycles"] is None
    if name == "cpu:2":
        assert plan["hours"] is None and "time: not modeled for a CPU" in said
        return
    assert "in place of the chip's own compiler" in said and "at the roofline" in said
    limits = plan["roofline_seconds"]
    assert limits["arithmetic"] == plan["macs_per_image"] * 6 * 4 / 989e12
    assert plan["chip_hours"] == pytest.approx(2 * 20 * max(limits.values()) / 3600)


def test_the_record_of_a_tpu_is_told_and_drawn(tmp_path: Path) -> None:
    plan = json.loads(RECORD.read_text())
    said = plan_text(plan)
    assert "for TPU v5 lite by libtpu" in said and "it fits: 16.00 GiB" in said
    assert re.search(rf"^total +{sum(plan['cycles_by_kind'].values()) / 1e6:.2f}$", said, re.MULTILINE)
    assert said.count("layers/convolution.py") >= 3
    plan_chart(plan["memory_bytes"], plan["cycles_by_kind"], "a title").savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300


def test_a_program_that_the_compiler_refuses_does_not_fit(run: CompiledRun) -> None:
    refused = dataclasses.replace(run, program=None, refusal="Used 19.8G of 15.75G hbm")
    memory = memory_by_kind(refused)
    assert "temporaries" not in memory and memory["parameters"] > 0
    plan = json.loads(RECORD.read_text()) | {"memory_bytes": memory, "total_memory_bytes": None}
    assert "does not fit: Used 19.8G" in plan_text(plan | {"refusal": refused.refusal})


def test_a_data_set_is_known_or_described() -> None:
    cifar, pets = (dataclasses.replace(lenet().data, name=name) for name in ("cifar100", "oxford_flowers102"))
    assert extent_before_data(cifar, None, None).train_examples == 50_000
    assert extent_before_data(dataclasses.replace(pets, image_size=64), 1_020, None) == Extent(64, 64, 102, 1_020)
    with pytest.raises(UserError, match="oxford_flowers102: not all is known .*; give --train_examples, --image_size$"):
        extent_before_data(pets, None, None)
    with pytest.raises(UserError, match="--num_classes 10: cifar100 has 100; leave it out"):
        extent_before_data(cifar, None, 10)
    assert len(shapes_as_dataset(EXTENT, 0.25).train) == 30


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["plan", "--config", str(ROOT / "configs" / "digits.py"), *map(str, arguments)])
    command.main()


@pytest.mark.parametrize("name", ["v9:2x2", "v5e:2", "cpu:0", "h100:2x2", "v5e"])
def test_an_unknown_topology_lists_the_known_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=rf"--topology {name}: unknown; known are cpu:N, v4:XxYxZ, v5e:XxY, .*b200:N"):
        call(monkeypatch, "--topology", name)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--topology v5e:2x4: TPU's compiler is not installed; pip install 'jax.tpu.'"):
        call(monkeypatch, "--topology", "v5e:2x4")


def test_a_compiler_of_another_release_is_named(run: CompiledRun, monkeypatch: pytest.MonkeyPatch) -> None:
    # libtpu 0.0.52 makes programs for v5p that jax 0.10 cannot read.
    versions = {"libtpu": "0.0.52", "jax": "0.10.2"}
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy", 'libtpu==0.0.42.*; extra == "tpu"'])

    def unreadable() -> str:
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    program = run.program
    assert program is not None
    monkeypatch.setattr(program, "as_text", unreadable)
    wanted = "v5p:2x2x2: JAX cannot read .* libtpu 0.0.52 is not that of jax 0.10.2, 0.0.42; pip install 'jax.tpu.'"
    with pytest.raises(UserError, match=wanted):
        planning.plan_of(run, EXTENT, read_topology("v5p:2x2x2"), run.plan.spec.sharding)
    versions["libtpu"] = "0.0.42.1"
    with pytest.raises(jax.errors.JaxRuntimeError):
        planning.plan_of(run, EXTENT, read_topology("v5p:2x2x2"), run.plan.spec.sharding)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="config.run.batch_size=8 is not a multiple of the 3 devices; take 6 or 9"):
        compile_run(lenet(), EXTENT, Sharding(make_mesh(devices_of(read_topology("cpu:3")))))
