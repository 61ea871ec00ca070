"""The model card of exported weights: a ``README.md`` as the Hugging Face Hub shows it.

It says what a reader must know before using the network: what it was trained on and how, its figures with their source,
what it is to be given, and its limits. What is not known is said to be unknown.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError
from convnext_jax.evaluate.opened_classifier import OpenedClassifier
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.models.parameters import count_parameters
from convnext_jax.report.tables import markdown_table
from convnext_jax.storage.bounded import read_json

_FIGURES = {"top1": "top-1", "top5": "top-5", "loss": "cross-entropy", "ece": "expected calibration error"}
_MOST_CLASSES = 20  # that are listed one by one
_LIBRARIES = ("timm", "transformers")  # that the Hub knows by these names


def model_card(network: OpenedClassifier, form: str, code: str, findings: Sequence[str] = ()) -> str:
    """Returns the card of a network.

    Args:
      network: the network.
      form: the format that it is exported to.
      code: Python that loads it, in the folder of the card; empty if there is none.
      findings: what was found while it was exported, a sentence each.
    """
    run, figures = network.origin.run, _figures(network)
    data = run.record.name if run else ""
    title = f"{network.model} on {data}" if data else network.model
    sections = {
        "Figures": _figures_text(network, figures),
        "Use": f"```python\n{code}\n```" if code else f"The weights have the names of {form}.",
        **({"Export": "\n".join(f"- {finding}" for finding in findings)} if findings else {}),
        "Input": _input_text(network, form),
        "Training": _training_text(run) if run else "Not known to the exporter.",
        "Limits": _limits_text(network),
        "License": _LICENSE,
    }
    parts = [_front_matter(network, form, title, figures), f"# {title}", _about_text(network)]
    parts += [f"## {name}\n\n{text}" for name, text in sections.items()]
    return "\n\n".join(parts) + "\n"


_LICENSE = (
    "No license is stated for these weights. The program that trained them, convnext_jax, is under Apache-2.0; the"
    " terms of the data set may bind the weights. State a license here before publishing them."
)


def _front_matter(network: OpenedClassifier, form: str, title: str, figures: dict[str, Any] | None) -> str:
    """Returns the fields that the Hub reads. JSON is YAML too, and quotes what has to be quoted."""
    fields: dict[str, Any] = {
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(["image-classification", "convnext_jax", form])),
    }
    if form in _LIBRARIES:
        fields["library_name"] = form
    if figures:
        accuracy = {"type": "accuracy", "value": round(figures["top1"], 4)}
        name = figures["dataset"]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": name, "type": name, "split": figures["split"]},
            "metrics": [accuracy],
        }
        fields["model-index"] = [{"name": title, "results": [result]}]
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _about_text(network: OpenedClassifier) -> str:
    shown = network.classes[:_MOST_CLASSES]
    more = f" and {len(network.classes) - len(shown)} more" if len(shown) < len(network.classes) else ""
    return (
        f"{network.model} with {count_parameters(network.params):,} parameters, {network.origin.text}, exported by"
        f" convnext_jax. It tells {len(network.classes)} classes apart: {', '.join(shown)}{more}."
    )


def _figures(network: OpenedClassifier) -> dict[str, Any] | None:
    """Returns what ``evaluate.py`` wrote into the workdir, None if it is of something else or there is nothing.

    It may be of other weights, of several views of an image, or of images of another size than the network is opened
    for.
    """
    origin = network.origin
    if origin.run is None or network.preprocess.shape[:2] != _trained_size(network):
        return None
    try:
        figures = read_json(origin.run.workdir / "evaluation.json")
    except (UserError, OSError, ValueError):
        return None
    about = (figures.get("step"), figures.get("weights"), figures.get("tta", "none"))
    same = about == (origin.step, origin.weights, "none")
    return figures if same and isinstance(figures.get("top1"), float) else None


def _trained_size(network: OpenedClassifier) -> tuple[int, int]:
    """Returns the height and width of the images of the training; if not recorded, of those that it is opened for."""
    record = network.origin.run.record.splits.get("train") if network.origin.run else None
    height, width, _ = record.shape if record else network.preprocess.shape
    return height, width


def _figures_text(network: OpenedClassifier, figures: dict[str, Any] | None) -> str:
    if figures is None:
        if network.origin.run is None:
            return "Not known to the exporter."
        where = f"in {network.origin.run.workdir.name}"
        what = "of these weights, with one view of an image of this size,"
        return f"Not measured: there is no evaluation.json {what} {where}. `evaluate.py` writes one."
    rows = [["figure", "value", "95% interval"]]
    for name, label in _FIGURES.items():
        if name in figures:
            low, high = figures.get("intervals", {}).get(name, (None, None))
            rows.append([label, f"{figures[name]:.4f}", "" if low is None else f"{low:.4f} to {high:.4f}"])
    source = (
        f"On all {figures['examples']:,} images of the {figures['split']} split of {figures['dataset']}, from"
        f" evaluation.json of {network.origin.run.workdir.name if network.origin.run else ''}, in {figures['dtype']} on"
        f" {figures['device']}."
    )
    return f"{markdown_table(rows)}\n\n{source}"


def _input_text(network: OpenedClassifier, form: str) -> str:
    preprocess, side = network.preprocess, network.forward.image_size
    mean, std = ([round(value, 6) for value in values] for values in (preprocess.mean, preprocess.std))
    height, width, channels = preprocess.shape
    kind = {1: "grayscale", 3: "RGB"}.get(channels, f"{channels} channels")
    pixels = f"{height}x{width} pixels, {kind}"
    if height == width:
        pixels += f". The shorter side is resized to {height} (bicubic, with antialiasing) and the center is cropped"
    inside = form in ("onnx", "onnx_int8", "stablehlo")
    if side is not None and (side, side) != (height, width) and not inside:
        pixels += f"; these are then resized to {side}x{side} (bilinear)"
        if form in _LIBRARIES:
            pixels += f". The library's own transform goes to {side}x{side} at once, so its answers differ a little"
    if inside:
        return f"{pixels}. The input is uint8 [B,{height},{width},{channels}]; the normalization is in the program."
    return (
        f"{pixels}. The values are scaled to [0, 1] and normalized by channel with the means {mean} and the standard"
        f" deviations {std}."
    )


def _training_text(run: SavedRun) -> str:
    experiment, record = run.experiment, run.record.splits.get("train")
    examples = f"{record.examples:,} images of " if record else ""
    optim, settings = experiment.optim, experiment.run
    fields = {
        "data": f"{examples}{run.record.name}",
        "epochs": f"{settings.epochs:g}, batches of {settings.batch_size}",
        "optimizer": f"{optim.name}, learning rate {optim.learning_rate:g}, weight decay {optim.weight_decay:g}",
        "started from": str(experiment.model.init_from) if experiment.model.init_from else "random weights",
        "seed": str(settings.seed),
        **_versions(run.workdir / "environment.json"),
    }
    rows = [["", ""], *([name, value] for name, value in fields.items())]
    return f"{markdown_table(rows)}\n\nThe whole configuration is in config.json of the run, {run.workdir.name}."


def _versions(path: Path) -> dict[str, str]:
    try:
        versions = read_json(path)["versions"]
        return {"versions": ", ".join(f"{name} {versions[name]}" for name in ("jax", "flax", "optax"))}
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return {}


def _limits_text(network: OpenedClassifier) -> str:
    height, width = _trained_size(network)
    return (
        f"It was trained on pictures of {height}x{width} pixels of the classes above, and gives one of these classes"
        " for any picture. The figures hold for pictures like those of the test split. How it does on others, on"
        " corrupted or shifted pictures, and on groups of people was not examined unless it is said above."
    )
