"""The figures of evaluations as rows, for the terminal, Markdown and the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from convnext_jax.evaluate.comparison import Group
from convnext_jax.evaluate.seeds import over_seeds

# How a figure is called and written. The figures of a sum are fractions, and the losses are in nats.
FIGURES = {
    "mean_iou": ("mean IoU", "{:.2%}"),
    "dice": ("mean Dice", "{:.2%}"),
    "pixel_accuracy": ("pixel accuracy", "{:.2%}"),
    "boundary_f1": ("boundary F1", "{:.2%}"),
    "top1": ("top-1", "{:.2%}"),
    "top5": ("top-5", "{:.2%}"),
    "loss": ("loss", "{:.4f}"),
    "pixel_loss": ("loss of pixels", "{:.4f}"),
    "image_loss": ("loss of images", "{:.4f}"),
    "ece": ("ECE", "{:.2%}"),
    "ece_equal_mass": ("ECE, equal mass", "{:.2%}"),
    "brier": ("Brier score", "{:.4f}"),
}


def figure_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the figures of an evaluation with their 95% intervals, a head first.

    Args:
      figures: as `convnext_jax.evaluate.selected.AnyEvaluation` has them.
    """
    rows = [("figure", "value", "95% interval")]
    for name, (label, form) in FIGURES.items():
        if figures.get(name) is None:
            continue
        interval = figures.get("intervals", {}).get(name)
        ends = " to ".join(form.format(end) for end in interval) if interval else ""
        rows.append((label, form.format(figures[name]), ends))
    if scaled := figures.get("temperature_scaling"):
        label = f"at temperature {scaled['temperature']:.3f}"
        rows += [
            (f"{FIGURES[name][0]} {label}", FIGURES[name][1].format(scaled[name]), "")
            for name in ("loss", "ece", "brier")
        ]
    return rows


def about_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what the figures are about: the data, the network, its cost, and the device; a head first."""
    rows = [
        ("about", "value"),
        ("data", f"{figures['dataset']}, {figures['split']}, {figures['examples']:,} examples"),
        ("network", f"{figures['model']}, {figures['parameters']:,} parameters, {figures['macs'] / 1e6:,.1f} M MACs"),
        ("checkpoint", f"step {figures['step']:,}, {figures['weights']} weights"),
        *([("test-time augmentation", figures["tta"])] if "tta" in figures else []),
        ("computed in", f"{figures['dtype']} on {figures['device']}"),
    ]
    if (reach := figures.get("boundary_tolerance")) is not None:
        rows.append(("boundaries", f"right if at most {reach:.3g} pixel{'s' * (reach != 1)} apart"))
    if scaled := figures.get("temperature_scaling"):
        held_out = f"{scaled['fitted_on']}, {scaled['fitted_on_examples']:,} examples held out of the training"
        rows.append(("temperature fitted on", held_out))
    if cost := figures.get("cost"):
        rows += [
            ("time", f"{cost['milliseconds_per_image']:.3g} ms an image at batch {cost['best_batch_size']}"),
            ("time of one image", f"{cost['milliseconds_batch_1']:.3g} ms at batch 1"),
            ("throughput", f"{cost['images_per_second']:,.0f} images/s"),
            ("memory", "unknown" if cost["memory_bytes"] is None else f"{cost['memory_bytes'] / 2**20:,.0f} MiB"),
        ]
    return rows


def class_rows(per_class: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns precision, recall and F1 of classes, the lowest F1 first, a head before all."""
    head = ("class", "precision", "recall", "F1", "examples")
    ordered = sorted(per_class.items(), key=lambda item: item[1]["f1"])
    return [head] + [
        (name, *(f"{each[figure]:.1%}" for figure in ("precision", "recall", "f1")), f"{each['examples']:,}")
        for name, each in ordered
    ]


def mask_class_rows(per_class: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns IoU, Dice, boundary F1 and pixels of the classes of masks, the lowest IoU first, a head before all.

    A class that is neither in the masks nor in the predictions comes last, without figures.
    """
    total = max(sum(each["pixels"] for each in per_class.values()), 1)
    ordered = sorted(per_class.items(), key=lambda item: 2.0 if item[1]["iou"] is None else item[1]["iou"])
    return [("class", "IoU", "Dice", "boundary F1", "pixels", "share of pixels")] + [
        (
            name,
            *("none" if each[figure] is None else f"{each[figure]:.1%}" for figure in ("iou", "dice", "boundary_f1")),
            f"{each['pixels']:,}",
            f"{each['pixels'] / total:.1%}",
        )
        for name, each in ordered
    ]


def group_rows(groups: Sequence[Group]) -> list[list[str]]:
    """Returns a row for each evaluation, and for several seeds their mean and standard deviation; a head first."""
    there = {name for group in groups for each in group.evaluations for name in each.figures}
    shown = {name: written for name, written in FIGURES.items() if name in there}

    def cell(figures: Mapping[str, Any], name: str) -> str:
        return "" if figures.get(name) is None else shown[name][1].format(figures[name])

    rows = [["run", "step", *(label for label, _ in shown.values()), "examples"]]
    for group in groups:
        figures = [each.figures for each in group.evaluations]
        for each in group.evaluations:
            name = group.name if len(figures) == 1 else str(each.run.workdir)
            cells = [cell(each.figures, figure) for figure in shown]
            rows.append([name, str(each.step), *cells, f"{len(each.examples):,}"])
        if len(figures) > 1:
            in_all = [name for name in shown if all(row.get(name) is not None for row in figures)]
            spread = over_seeds({name: row[name] for name in in_all} for row in figures)
            both = {name: f"{cell(spread['mean'], name)} ± {cell(spread['std'], name)}" for name in in_all}
            cells = [both.get(name, "") for name in shown]
            rows.append([f"{group.name}: mean ± std", "", *cells, ""])
    return rows


def corruption_rows(corruptions: Mapping[str, Any]) -> list[list[str]]:
    """Returns the top-1 accuracy under each corruption by severity, and the means, a head first.

    Args:
      corruptions: what `convnext_jax.evaluate.robustness.summarize_corruptions` returns.
    """
    severities = sorted({severity for each in corruptions["by_severity"].values() for severity in each})
    rows = [["corruption", *(f"severity {severity}" for severity in severities), "mean"]]
    for name, accuracies in corruptions["by_severity"].items():
        cells = [f"{accuracies[severity]:.1%}" if severity in accuracies else "" for severity in severities]
        rows.append([name, *cells, f"{corruptions['top1'][name]:.1%}"])
    return [*rows, ["mean", *[""] * len(severities), f"{corruptions['mean_top1']:.2%}"]]


def displacement_rows(displaced: Mapping[str, Mapping[str, float]], what: str) -> list[tuple[str, str, str]]:
    """Returns the accuracy and the consistency by distance or by factor, a head with ``what`` first."""
    return [(what, "top-1", "same prediction")] + [
        (by, f"{each['top1']:.2%}", f"{each['consistency']:.2%}") for by, each in displaced.items()
    ]
