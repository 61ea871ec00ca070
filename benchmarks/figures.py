"""Writes docs/figures.md: the figures of README.md and docs/, each with its record.

    python benchmarks/figures.py

`FIGURES` says what of a record stands where. Each template, filled with the numbers of its record, must stand in its
document to the letter (`tests/test_docs_figures.py`). So a figure cannot differ from its record.
"""

import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from convnext_jax.storage.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RECORDS = "benchmarks/results"
PAGE = ROOT / "docs" / "figures.md"
EPYC = "_epyc_2cores.json"


@dataclasses.dataclass(frozen=True)
class Figure:
    """Some numbers of a document that come from a record.

    Attributes:
      document: that has them, such as ``docs/data.md``.
      template: their text, with a field of `str.format` for each number.
      record: its file; of several records the numbers are summed.
      values: where each number stands in it: keys joined by `` > ``. ``key=value`` takes an item of a list. `` / 60``
        at the end divides, and `` ~ 3`` rounds to three digits.
    """

    document: str
    template: str
    record: str | tuple[str, ...]
    values: tuple[str, ...]

    @property
    def records(self) -> tuple[str, ...]:
        """The files."""
        return (self.record,) if isinstance(self.record, str) else self.record

    @property
    def text(self) -> str:
        """The template with the numbers of the record."""
        return self.template.format(*(sum(number(record, path) for record in self.records) for path in self.values))


def number(record: str, path: str) -> Any:
    """Returns a number of a record."""
    path, _, digits = path.partition(" ~ ")
    path, _, divisor = path.partition(" / ")
    found = _read(record)
    for key in path.split(" > "):
        if isinstance(found, list):
            name, _, value = key.partition("=")
            found = next(item for item in found if str(item[name]) == value) if value else found[int(key)]
        else:
            found = found[key]
    if divisor:
        found = found / float(divisor)
    return float(f"{found:.{int(digits) - 1}e}") if digits else found


@functools.cache
def _read(record: str) -> Any:
    return json.loads((ROOT / RECORDS / record).read_text(encoding="utf-8"))


def _rows(document: str, template: str, record: str, rows: Mapping[str, str], values: Sequence[str]) -> list[Figure]:
    """The rows of a table: ``{row}`` in the template is the name of a row, ``{key}`` in the values is its key."""
    return [
        Figure(document, template.replace("{row}", row), record, tuple(value.replace("{key}", key) for value in values))
        for row, key in rows.items()
    ]


_AVX512 = "_epyc_avx512_2cores.json"
_LARGE_PICTURES = [
    f"{size}, {what}, one process" for size in (64, 128, 224) for what in ("center square", "random rectangle")
]
_STREAMED = {
    "64x64, decoded, memory-mapped": "decoded, memory-mapped",
    "64x64 PNG, one process": "png, 1 process",
    "64x64 PNG, two processes": "png, 2 processes",
    "64x64 JPEG, one process": "jpeg, 1 process",
    "64x64 JPEG, two processes": "jpeg, 2 processes",
} | {
    f"500x375 JPEG to {size_and_what.replace(',', ' pixels,', 1)}": f"500x375 to {size_and_what}"
    for size_and_what in _LARGE_PICTURES
}
_LAYERS = (
    "depthwise 3x3 (MobileNetV2)",
    "depthwise 5x5 (EfficientNet)",
    "depthwise 7x7 (ConvNeXt)",
    "depthwise 31x31 (RepLKNet)",
    "grouped 3x3, 32 groups (ResNeXt)",
    "dense 3x3 (ResNet-18)",
    "attention, 65 tokens (ViT-Ti)",
    "attention, 256 tokens (CCT-7)",
    "attention in windows of 16 (Swin-T)",
)
_SURVEYED = (
    "convnext_multiscale",
    "convnext_tiny",
    "convnextv2_tiny",
    "convnext_swin_mlp",
    "convnext_isotropic_small",
    "googlenet",
    "road_tiny",
    "swin_3stage_patch4_window4",
    "lenet5",
    "mobilenet_v2",
    "efficientnet_b0",
)
_SURVEYED_LATER = (
    "resnet18_small_stem",
    "vgg16_bn_small",
    "cct_7_3x2",
    "densenet121",
    "alexnet_small_stem",
    "densenet100_k12",
    "vit_lite_7",
    "wavemix_lite_64_6",
    "cvt_13",
    "mobilenet_v2_small_stem",
    "resnet20",
    "swin_tiny_patch2_window4",
    "preact_resnet164",
    "vit_tiny_patch4",
    "resnet50",
    "efficientnet_b0_small_stem",
    "resnext50_32x4d",
    "replknet31b",
)  # in the order of the record
_FINE_TUNED = {
    "from scratch": (8, 7, 1),
    "from the weights of CIFAR-100": (2, 6, 0),
    "the same, `layer_decay=0.75`": (5, 3, 4),
}
_EXPORTED = ("convnext_jax", "timm", "onnx", "stablehlo", "onnx, weights packed in each call")
_CHIPS = {  # topology and images a chip
    "v5p_2x2x2": ("v5p:2x2x2", 128),
    "v5p_4x4x4": ("v5p:4x4x4", 16),
    "v5p_8x8x16": ("v5p:8x8x16", 1),
    "v5p_8x8x16_batch16384": ("v5p:8x8x16", 16),
    "v6e_2x4": ("v6e:2x4", 128),
    "v6e_16x16": ("v6e:16x16", 4),
}
_ROAD = (
    "resnet",
    "stage_ratio",
    "patchify",
    "depthwise",
    "width",
    "inverted",
    "moved_up",
    "kernel5",
    "kernel7",
    "kernel9",
    "kernel11",
    "one_activation",
    "one_norm",
)
_LOSSES = {"cross_entropy": "2", "dice": "0", "cross_entropy+dice": "1"}
_CHAOS = (f"chaos{EPYC}", f"chaos_12_kills{EPYC}")
_TINY, _H100 = f"benchmark_convnext_tiny{EPYC}", "benchmark_convnext_tiny_h100.json"
_LONG = "cifar100_72epochs_h100.json"
_OURS_H200, _T_H200 = "multiscale_cifar100_ours_h200.json", "multiscale_cifar100_t_100epochs_h200.json"
_COST = f"evaluation_cost_cifar100_cpu{EPYC}"
_SMALL_SAVE, _LARGE_SAVE = (f"checkpoint_cost_{name}{EPYC}" for name in ("cifar100_cpu", "convnext_tiny"))
_SCENES = f"digit_scenes{EPYC}"

# In the order of the documents. A figure without numbers says which record a text or a table comes from.
FIGURES: list[Figure] = [
    Figure("README.md", "{:,} handwritten digits", f"digits{EPYC}", ("summary > train_examples",)),
    Figure(
        "README.md",
        "{:.1%}, {:.0f} s of training on two cores of an AMD EPYC",
        f"digits{EPYC}",
        ("summary > final > test/top1", "summary > seconds"),
    ),
    Figure("README.md", "{:,} scenes of these digits", _SCENES, ("summary > train_examples",)),
    Figure(
        "README.md",
        "{:.1%} mean IoU, {:.0f} s of training",
        _SCENES,
        ("summary > final > test/mean_iou", "summary > seconds"),
    ),
    Figure(
        "README.md",
        "{:.1%}, {:.0f} minutes on the same",
        f"cifar100_cpu{EPYC}",
        ("summary > final > test/top1", "summary > seconds / 60"),
    ),
    Figure(
        "README.md",
        "{:.1%}, {:.0f} minutes on two cores of an AMD EPYC with AVX-512",
        "fast_cifar100_epyc_avx512_2cores.json",
        ("summary > final > test/top1", "summary > seconds / 60"),
    ),
    *(
        Figure(
            "README.md",
            f"[{{:.1%}}](benchmarks/results/fast_cifar100_seed{seed}",
            f"fast_cifar100_seed{seed}{_AVX512}",
            ("summary > final > test/top1",),
        )
        for seed in (1, 2)
    ),
    Figure(
        "README.md",
        "{:.1%}, {:.0f} minutes on the same, beside other work",
        f"fast_cifar100_wide{_AVX512}",
        ("summary > final > test/top1", "summary > seconds / 60"),
    ),
    Figure(
        "README.md",
        "{:.1%}, {:.0f} minutes on the same, one seed ([record](benchmarks/results/fast_cifar10",
        "fast_cifar10_4epochs_epyc_avx512_2cores.json",
        ("summary > final > test/top1", "summary > seconds / 60"),
    ),
    Figure(
        "README.md",
        "{:.1%}, {:.0f} s on one NVIDIA H100",
        _LONG,
        ("summary > final > test/top1", "summary > seconds"),
    ),
    Figure(
        "README.md",
        "takes PyTorch's best {:.2f} times as long, and a plain JAX implementation {:.2f} times as long",
        f"compare_patch4{EPYC}",
        ("systems > torch_compiled > step > ratio > median", "systems > plain_jax > step > ratio > median"),
    ),
    Figure("docs/quick_start.md", "on {:,} handwritten digits", f"digits{EPYC}", ("summary > train_examples",)),
    Figure("docs/quick_start.md", "the {:,} test images", f"digits{EPYC}", ("summary > test_examples",)),
    Figure(
        "docs/export.md",
        "on its {:,} test images: the same {:,} answers in every one. The largest difference of a logit, where the"
        " largest logit is {:.1f}",
        f"exported_answers{EPYC}",
        ("images", "formats > timm > same_answers", "largest_logit"),
    ),
    Figure(
        "docs/export.md",
        "| {:.1e} | {:.1e} | {:.1e} | {:.1e} | {:.1e} | {:.1e} |",
        f"exported_answers{EPYC}",
        tuple(
            f"formats > {form} > largest_difference"
            for form in ("timm", "transformers", "torchvision", "facebookresearch", "onnx", "stablehlo")
        ),
    ),
    Figure(
        "docs/export.md",
        "gives the same {:,} answers, with logits up to {:.2f} away",
        f"exported_answers{EPYC}",
        ("formats > onnx_int8 > same_answers", "formats > onnx_int8 > largest_difference"),
    ),
    Figure(
        "docs/export.md",
        "| 1 | {:.1f} | {:.1f} | {:.1f} | {:.1f} | {:.1f} |",
        f"exported_times{EPYC}",
        tuple(f"milliseconds_an_image > 1 > {system}" for system in _EXPORTED),
    ),
    Figure(
        "docs/export.md",
        "| 64 | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |",
        f"exported_times{EPYC}",
        tuple(f"milliseconds_an_image > 64 > {system}" for system in _EXPORTED),
    ),
    Figure("docs/export.md", "within {:.1e} of their largest logit", f"exported_random{EPYC}", ("largest",)),
    Figure("docs/segmentation.md", "![Scenes of digits", f"evaluation_{_SCENES}", ()),
    *_rows(
        "docs/segmentation.md",
        "| `{row}` | {:.3f} ± {:.3f} | {:.3f} ± {:.3f} |",
        f"scenes_losses{EPYC}",
        _LOSSES,
        [
            f"points > {{key}} > {kind} > validation/{name}"
            for name in ("mean_iou", "dice")
            for kind in ("figures", "std")
        ],
    ),
    Figure("docs/segmentation.md", "with both reaches {:.2f}", _SCENES, ("summary > final > test/mean_iou",)),
    Figure(
        "docs/segmentation.md",
        "{:.1%} mean IoU on the test scenes, {:.0f} s of training",
        _SCENES,
        ("summary > final > test/mean_iou", "summary > seconds"),
    ),
    *_rows(
        "docs/data.md",
        "| {row} | {:,.0f} ({:,.0f} to {:,.0f}) |",
        f"streaming{_AVX512}",
        _STREAMED,
        [f"images_per_second > {{key}} > {name} ~ 3" for name in ("median", "least", "most")],
    ),
    Figure("docs/data.md", "[{:.0f} images/s]", _TINY, ("parts > step > images_per_second > median",)),
    Figure("docs/data.md", "[{:,.0f}]", _H100, ("parts > step > images_per_second > median ~ 3",)),
    Figure("docs/evaluation.md", "![The report", f"evaluation_fast_cifar100_wide{_AVX512}", ()),
    Figure(
        "docs/evaluation.md",
        "Evaluating the {:,} test images of CIFAR-100 with `configs/cifar100_cpu.py` takes {:.2f} times as long",
        _COST,
        ("examples", "evaluate_over_forward_median"),
    ),
    Figure("docs/evaluation.md", "the page {:.1f} s", _COST, ("page_seconds",)),
    Figure("docs/models.md", "Fifteen of them at 32 pixels", f"network_costs_32px{EPYC}", ()),
    Figure(
        "docs/models.md",
        "AlexNet takes {:.4f} ms an image and ConvNeXt-T with patches {:.4f}, but LeNet-5, with less than a hundredth"
        " of their multiply-adds, {:.4f}",
        "network_costs_32px_v5e_modeled.json",
        tuple(
            f"networks > name={name} > modeled_milliseconds"
            for name in ("alexnet_small_stem", "convnext_tiny", "lenet5")
        ),
    ),
    *_rows(
        "docs/models.md",
        "| `{row}` | {:.1%} | {:.1%} | {:.3f} |",
        f"survey_one_epoch{EPYC}",
        dict(zip(_SURVEYED, _SURVEYED, strict=True)),
        [f"points > network={{key}} > validation/{name}" for name in ("top1", "top5", "loss")],
    ),
    *_rows(
        "docs/models.md",
        "| `{row}` | {:.1%} | {:.1%} | {:.3f} |",
        f"survey_one_epoch{_AVX512}",
        {name: str(point) for point, name in enumerate(_SURVEYED_LATER)},
        [f"points > {{key}} > figures > validation/{name}" for name in ("top1", "top5", "loss")],
    ),
    Figure("docs/weights.md", "agree with PyTorch's within 3.3e-6", "torch_parity_epyc_2cores.txt", ()),
    Figure("docs/weights.md", "agree within 7.7e-7 of their largest value", f"imported_weights{EPYC}", ()),
    *(
        Figure(
            "docs/weights.md",
            f"| {start} | {{:.2%}}, {{:.2%}}, {{:.2%}} | {{:.3f}}, {{:.3f}}, {{:.3f}} |",
            f"fine_tuning_digits{_AVX512}",
            tuple(f"points > {point} > figures > validation/{name}" for name in ("top1", "loss") for point in points),
        )
        for start, points in _FINE_TUNED.items()
    ),
    Figure(
        "docs/scaling.md",
        "that is {:,}, after",
        "plan_cifar100_v5e_2x4_largest.json",
        ("largest_batch > batch_size",),
    ),
    Figure("docs/scaling.md", "`--topology v5e:2x4`, batch {:,}", "plan_cifar100_v5e_2x4.json", ("batch_size",)),
    Figure(
        "docs/scaling.md",
        "total                     {:.2f}",
        "plan_cifar100_v5e_2x4.json",
        ("cycles / 1e6",),
    ),
    Figure(
        "docs/scaling.md",
        "{:.3g} hours, {:.3g} chip hours",
        "plan_cifar100_v5e_2x4.json",
        ("hours", "chip_hours"),
    ),
    Figure("docs/scaling.md", "`--topology v5e:16x16`, batch {:,}", "plan_cifar100_v5e_16x16.json", ("batch_size",)),
    Figure("docs/scaling.md", "total                     {:.2f}", "plan_cifar100_v5e_16x16.json", ("cycles / 1e6",)),
    Figure(
        "docs/scaling.md",
        "{:.3g} hours, {:.3g} chip hours",
        "plan_cifar100_v5e_16x16.json",
        ("hours", "chip_hours"),
    ),
    Figure(
        "docs/scaling.md",
        "| {} | 16 | {:.2f} |",
        "plan_cifar100_v5e_8x8.json",
        ("chips", "modeled_step_seconds / 0.001"),
    ),
    *(
        Figure("docs/scaling.md", f"{before}{{:.2f}} ([record]", f"plan_{name}.json", ("cycles / 1e6",))
        for before, name in (
            ("| `v5e:2x4` | ", "plain_jax_v5e_2x4"),
            ("no record kept | ", "cifar100_v5e_2x4"),
            ("| `v6e:2x4` | ", "plain_jax_v6e_2x4"),
            ("| ", "cifar100_v6e_2x4_before"),
            ("| ", "cifar100_v6e_2x4"),
        )
    ),
    *(
        Figure(
            "docs/scaling.md",
            f"| `{topology}` | {{:,}} | {{:,}} | {images} | {{:.2f}} |",
            f"plan_cifar100_{name}.json",
            ("chips", "batch_size", "modeled_step_seconds / 0.001"),
        )
        for name, (topology, images) in _CHIPS.items()
    ),
    Figure("docs/scaling.md", "![Images per second and the shares", "plan_cifar100_v5p_8x8x16.json", ()),
    Figure("docs/scaling.md", "batch {:,} ([record]", "plan_convnext_xlarge_v5e_4x4.json", ("batch_size",)),
    Figure(
        "docs/scaling.md",
        "total                     {:.2f}",
        "plan_convnext_xlarge_v5e_4x4.json",
        ("cycles / 1e6",),
    ),
    *(
        Figure(
            "docs/scaling.md",
            f"| `{topology}` | {{:.2f}} | {{:.0f}} |",
            f"plan_convnext_xlarge_{name}.json",
            ("cycles / 1e6", "modeled_step_seconds / 0.001"),
        )
        for topology, name in (("v5e:4x4", "v5e_4x4"), ("v5p:2x2x4", "v5p_2x2x4"))
    ),
    Figure(
        "docs/scaling.md",
        "a step of {:.0f} ms",
        "plan_convnext_xlarge_v5e_4x4_before.json",
        ("modeled_step_seconds / 0.001",),
    ),
    Figure(
        "docs/scaling.md",
        "for 16 images: {:.0f} ms",
        "plan_convnext_xlarge_v5e_4x4_matrices.json",
        ("modeled_step_seconds / 0.001",),
    ),
    Figure(
        "docs/reliability.md",
        "| SIGKILL | {:.0f} | {:.0f} | {:.0f} |",
        _CHAOS,
        ("SIGKILL > sent", "SIGKILL > statuses > -9", "SIGKILL > runs"),
    ),
    Figure(
        "docs/reliability.md",
        "| SIGTERM | {:.0f} | {:.0f}, all with status 75",
        _CHAOS,
        ("SIGTERM > sent", "SIGTERM > statuses > 75"),
    ),
    Figure("docs/reliability.md", "| {:.1f} s |", f"chaos{EPYC}", ("SIGTERM > slowest_seconds",)),
    Figure(
        "docs/reliability.md",
        "({:.0f} MB) costs {:.2f} s of training in all, of which training stands still for {:.1f} s: {:.2%} at",
        _SMALL_SAVE,
        (
            "megabytes",
            "save_costs_seconds",
            "save_blocks_seconds",
            "share_of_training_at_the_default_interval",
        ),
    ),
    Figure("docs/reliability.md", "Its verification takes {:.2f} s", _SMALL_SAVE, ("verification_seconds",)),
    Figure(
        "docs/reliability.md",
        "({:.0f} MB) costs {:.1f} s, {:.1%}, and takes {:.2f} s to verify",
        _LARGE_SAVE,
        (
            "megabytes",
            "save_costs_seconds",
            "share_of_training_at_the_default_interval",
            "verification_seconds",
        ),
    ),
    *(
        Figure(
            "docs/papers.md",
            template,
            record,
            ("summary > final > test/top1 / 0.01", "summary > seconds", "summary > images_per_second_median ~ 5"),
        )
        for record, template in (
            (_OURS_H200, "`cifar100_adamw/ours`, 200 epochs | 72.76 | {:.2f} | {:.0f} | {:,.0f} |"),
            (_T_H200, "`cifar100_adamw/t`, 100 epochs | | {:.2f} | {:.0f} | {:,.0f} |"),
        )
    ),
    Figure(
        "docs/papers.md",
        "named {:.1f}% of a held-out tenth",
        f"multiscale_trial_lr2.5e-4{EPYC}",
        ("summary > final > validation/top1 / 0.01",),
    ),
    *_rows(
        "docs/papers.md",
        "| {row} | {:.1%} ± {:.1%} |",
        "multiscale_parts_epyc_avx512.json",
        {"ConvNeXt's block and 4x4 patches": "0", "the paper's block, LSTM and stem": "1"},
        ["points > {key} > figures > validation/top1", "points > {key} > std > validation/top1"],
    ),
    *_rows(
        "docs/papers.md",
        "| {row} | {:.1%} ± {:.1%} |",
        "course_report_parts_epyc_avx512.json",
        {
            "LayerNorm, depthwise 7x7": "3",
            "BatchNorm, depthwise 7x7": "1",
            "LayerNorm, depthwise 3x3": "0",
            "LayerNorm, dense 3x3": "2",
        },
        ["points > {key} > figures > validation/top1", "points > {key} > std > validation/top1"],
    ),
    *_rows(
        "docs/papers.md",
        "| `{row}` | {:.1%} | {:.1%} | {:.3f} |",
        "road_6epochs_h200.json",
        dict(zip(_ROAD, _ROAD, strict=True)),
        [f"points > step={{key}} > validation/{name}" for name in ("top1", "top5", "loss")],
    ),
    Figure("docs/reliability.md", "lower bounds with which the whole suite passes", "versions_2026-11-26.txt", ()),
    Figure(
        "docs/performance.md",
        "{:,} parameters, {:.1f} M multiply-adds an image",
        _TINY,
        ("parameters", "macs_per_image / 1e6"),
    ),
    *_rows(
        "docs/performance.md",
        "{row}",
        _TINY,
        {
            "forward        {:.0f}  {:.0f} - {:.0f}        {:.0f}     {:.1f}": "forward",
            "step           {:.0f}  {:.0f} - {:.0f}        {:.0f}     {:.1f}": "step",
            "pipeline       {:.0f}  {:.0f} - {:.0f}        {:.0f}     {:.1f}": "pipeline",
        },
        [
            *(f"parts > {{key}} > images_per_second > {name}" for name in ("median", "lower", "upper")),
            "parts > {key} > milliseconds_per_step > median",
            "parts > {key} > gflops",
        ],
    ),
    Figure("docs/performance.md", "pipeline over step: {:.3f}", _TINY, ("pipeline_over_step > median",)),
    Figure(
        "docs/performance.md",
        "alone the ratio is {:.3f}",
        f"input_overhead_cpu{EPYC}",
        ("throughput_ratio_median",),
    ),
    *(
        Figure(
            "docs/performance.md", f"| [training step, `convnext_tiny`, `{stem}`, 32 px", f"compare_{stem}{EPYC}", ()
        )
        for stem in ("conv3x3_s1", "patch2", "patch4")
    ),
    *_rows(
        "docs/performance.md",
        "| {row} | {:.2f} | {:.2f} |",
        f"layers{_AVX512}",
        dict(zip(_LAYERS, _LAYERS, strict=True)),
        [f"layers > {{key}} > {part} > ratio" for part in ("forward", "gradient")],
    ),
    *_rows(
        "docs/performance.md",
        "{row}",
        _H100,
        {
            "forward    {:,.0f}  {:,.0f} - {:,.0f}       {:.2f}  {:,.0f}  {:.1%}": "forward",
            "step        {:,.0f}    {:,.0f} - {:,.0f}       {:.1f}   {:,.0f}  {:.1%}": "step",
        },
        [
            *(f"parts > {{key}} > images_per_second > {name}" for name in ("median", "lower", "upper")),
            "parts > {key} > milliseconds_per_step > median",
            "parts > {key} > gflops",
            "parts > {key} > mfu",
        ],
    ),
    Figure(
        "docs/performance.md",
        "took {:.0f} s, evaluation and checkpoints included, at {:,.0f} images a second",
        _LONG,
        ("summary > seconds", "summary > images_per_second_median ~ 3"),
    ),
    Figure(
        "docs/performance.md",
        "{:.2f} ms, for which banded matrices take {:.3f} ms",
        "depthwise_h100.json",
        ("rows > 23 > milliseconds", "rows > 26 > milliseconds"),
    ),
    Figure(
        "CHANGELOG.md",
        "VGG-16 at 32 pixels takes [{:.0f} ms an image]",
        f"network_costs_vgg16{EPYC}",
        ("networks > 0 > milliseconds > 64",),
    ),
    Figure(
        "CHANGELOG.md",
        "instead of [{:.0f}]",
        f"network_costs_32px{EPYC}",
        ("networks > name=vgg16_bn_small > milliseconds > 64",),
    ),
    Figure("CHANGELOG.md", "1.3 to 12 times as fast", f"convolution_gradients{EPYC}", ()),
]
HEAD = (
    "# Figures and their sources\n\n"
    "The figures of the documents, the record that each comes from, and where it stands in it. A test fills the texts"
    " of the first column with the numbers of the records and looks for them in the documents, so a figure cannot"
    " differ from its record. A row without a place names the record of a picture, a table or a text as a whole.\n\n"
    "A record also has the command, the hardware, the versions and the commit. The [notes on speed]"
    "(../benchmarks/notes.md) and the [experiments behind the recipes](../benchmarks/recipes.md) name more records. All"
    " lie in [`benchmarks/results/`](../benchmarks/results/). This page is written by `python benchmarks/figures.py`.\n"
)


def page(figures: Sequence[Figure]) -> str:
    """Returns docs/figures.md."""
    parts = [HEAD]
    for document, group in itertools.groupby(figures, lambda figure: figure.document):
        name = document.removeprefix("docs/")
        link = name if document.startswith("docs/") else f"../{document}"
        parts.append(f"\n## [{name}]({link})\n\n| figure | record | where in it |\n|---|---|---|\n")
        parts.extend(_row(figure) for figure in group)
    return "".join(parts)


def _row(figure: Figure) -> str:
    text = " ".join(figure.text.replace("|", " ").replace("[", "").replace("]", "").split())
    links = ", ".join(f"[{record.rpartition('.')[0]}](../{RECORDS}/{record})" for record in figure.records)
    where = "<br>".join(f"`{value}`" for value in figure.values)
    return f"| {text.lstrip('!')} | {links} | {where} |\n"


if __name__ == "__main__":
    write_text(PAGE, page(FIGURES))
