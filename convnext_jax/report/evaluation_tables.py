"""The figures of evaluations as rows, for the terminal, Markdown and the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from convnext_jax.evaluate.comparison import Group
from convnext_jax.evaluate.seeds import over_seeds

# How a figure is called and written. The figures of a sum are fractions, and the loss is in nats.
FIGURES = {
    "top1": ("top-1", "{:.2%}"),
    "top5": ("top-5", "{:.2%}"),
    "loss": ("loss", "{:.4f}"),
    "ece": ("ECE", "{:.2%}"),
    "ece_equal_mass": ("ECE, equal mass", "{:.2%}"),
    "brier": ("Brier score", "{:.4f}"),
}


def figure_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the figures of an evaluation with their 95% intervals, a head first.

    Args:
      figures: as `convnext_jax.evaluate.offline.Evaluation` has them.
    """
    rows = [("figure", "value", "95% interval")]
    for name, (label, form) in FIGURES.items():
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
        ("test-time augmentation", figures["tta"]),
        ("computed in", f"{figures['dtype']} on {figures['device']}"),
    ]
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


def group_rows(groups: Sequence[Group]) -> list[list[str]]:
    """Returns a row for each evaluation, and for several seeds their mean and standard deviation; a head first."""
    rows = [["run", "step", *(label for label, _ in FIGURES.values()), "examples"]]
    for group in groups:
        figures = [each.figures for each in group.evaluations]
        for each in group.evaluations:
            name = group.name if len(figures) == 1 else str(each.run.workdir)
            cells = [form.format(each.figures[figure]) for figure, (_, form) in FIGURES.items()]
            rows.append([name, str(each.step), *cells, f"{len(each.examples):,}"])
        if len(figures) > 1:
            spread = over_seeds({name: row[name] for name in FIGURES} for row in figures)
            cells = [
                f"{form.format(spread['mean'][name])} ± {form.format(spread['std'][name])}"
                for name, (_, form) in FIGURES.items()
            ]
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
