"""The evaluation of a segmentation as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from convnext_jax.evaluate.segmentation import SegmentationEvaluation
from convnext_jax.report.confusion import add_confusion
from convnext_jax.report.evaluation_charts import curves_chart, reliability_chart
from convnext_jax.report.evaluation_parts import about_run, cost_tiles, lead, tiles
from convnext_jax.report.evaluation_tables import about_rows, class_rows, figure_rows, mask_class_rows
from convnext_jax.report.overlays import class_colors, error_picture, overlay
from convnext_jax.report.page import Page, data_uri, details, table, text
from convnext_jax.report.pictures import shown
from convnext_jax.workdir.metrics_log import evaluated_split, read_metrics

_SCENES = 8  # of each kind
_SIDE = 192  # pixels of the longer side of a picture, at most
_IN_SIGHT = 24  # classes of a legend that is not folded away


def segmentation_page(evaluation: SegmentationEvaluation, *, command: str) -> Page:
    """Returns the page of an evaluation.

    Args:
      evaluation: its figures and its masks.
      command: the command line that made it.
    """
    run, figures = evaluation.run, evaluation.figures
    names = run.record.mask_names
    page = Page(f"{run.workdir.name}: {figures['mean_iou']:.2%} mean IoU", lead(figures))
    page.add(
        "Summary",
        tiles(_summary(figures)),
        '<div class="columns">',
        table(figure_rows(figures), caption="Figures, with bootstrap intervals over the images", numbers=(1, 2)),
        table(about_rows(figures), caption="What they are about"),
        "</div>",
    )
    page.add(
        "Classes",
        table(
            mask_class_rows(figures["per_class"]),
            caption="All classes of the masks, the lowest IoU first",
            numbers=range(1, 6),
        ),
    )
    if lines := read_metrics(run.workdir / "metrics.jsonl"):
        split = evaluated_split(lines) or "test"
        drawn = {"loss": "loss", "mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
        drawn |= {"top1": "top-1 of images"} if "top1" in figures else {"dice": "mean Dice"}
        page.add("Learning curves", _loss_note(evaluation, split), curves_chart(lines, split, drawn))
    add_confusion(page, np.array(figures["confusion"]), names, of="pixels")
    if (logits := evaluation.outputs.image_logits) is not None:
        rows = class_rows(figures["per_image_class"])
        page.add(
            "Classes of images",
            table(rows, caption="All classes of images, the lowest F1 first", numbers=range(1, 5)),
            reliability_chart(logits, evaluation.examples.labels, None),
        )
    page.add("Pictures", *_pictures(evaluation))
    page.add("Run", *about_run(run, command))
    return page


def _summary(figures: Mapping[str, Any]) -> dict[str, str]:
    boundary = figures["boundary_f1"]
    return {
        "mean IoU": f"{figures['mean_iou']:.2%}",
        "mean Dice": f"{figures['dice']:.2%}",
        "pixel accuracy": f"{figures['pixel_accuracy']:.2%}",
        "boundary F1": "none" if boundary is None else f"{boundary:.2%}",
        **({"top-1 of images": f"{figures['top1']:.2%}"} if "top1" in figures else {}),
        "loss (nats)": f"{figures['loss']:.3f}",
        **cost_tiles(figures),
    }


def _loss_note(evaluation: SegmentationEvaluation, split: str) -> str:
    """Says that the two losses are not the same one, where they are not."""
    config = evaluation.run.experiment.task
    if config.losses == (("cross_entropy", 1.0),):
        return ""
    factors = ("" if weight == 1 else f"{weight:g} " for _, weight in config.losses)
    names = ({"dice": "Dice", "lovasz": "Lovász"}.get(name, name.replace("_", "-")) for name, _ in config.losses)
    terms = " + ".join(map("".join, zip(factors, names, strict=True)))
    told = f"The loss of the masks is {terms} in training, and on {split} the cross-entropy alone, in nats a pixel."
    return f'<p class="note">{text(told)}</p>'


def _pictures(evaluation: SegmentationEvaluation) -> list[str]:
    overlaps = evaluation.overlaps
    scores = overlaps.figures()["mean_iou"]
    # An image whose pixels are all ignored has no score.
    counted = np.flatnonzero(overlaps.true.sum(-1))
    order = counted[np.argsort(scores[counted], kind="stable")]
    most = min(_SCENES, -(-len(order) // 3))
    worst, rest = order[:most], order[most:]
    best, rest = rest[::-1][:most], rest[: max(len(rest) - most, 0)]
    start = max(len(rest) - most, 0) // 2
    kinds = {
        "The worst images": worst,
        "The images in the middle": rest[start : start + most],
        "The best images": best,
    }
    note = (
        "By the mean IoU of each image over the classes that are in it or in its prediction. From left to right: the"
        " image, the truth, the prediction, and the errors in red; what is hatched is ignored."
    )
    parts = [f'<p class="note">{note}</p>', _legend(evaluation.run.record.mask_names)]
    for heading, chosen in kinds.items():
        if len(chosen):
            scenes = "".join(_scene(evaluation, int(index)) for index in chosen)
            parts += [f"<h3>{heading}</h3>", f'<div class="scenes">{scenes}</div>']
    return parts


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><span style="background: rgb({red}, {green}, {blue})"></span>{text(name)}</li>'
        for name, (red, green, blue) in zip(names, class_colors(len(names)).tolist(), strict=True)
    )
    legend = f'<ul class="classes" aria-label="Colors of the classes">{items}</ul>'
    return legend if len(names) <= _IN_SIGHT else details(f"Colors of the {len(names)} classes", legend)


def _scene(evaluation: SegmentationEvaluation, index: int) -> str:
    names, examples = evaluation.run.record.mask_names, evaluation.examples
    assert examples.masks is not None
    image = np.asarray(examples.images[index])
    truth, predicted = (_reduced(masks[index], nearest=True) for masks in (examples.masks, evaluation.outputs.masks))
    image = _reduced(shown(image), nearest=False)
    image = image if image.ndim == 3 else image[..., None]
    pictures = {
        "image": image,
        "truth": overlay(image, truth, len(names)),
        "prediction": overlay(image, predicted, len(names)),
        "errors": error_picture(image, truth, predicted),
    }
    there = np.flatnonzero(evaluation.overlaps.true[index])
    shown_names = ", ".join(names[number] for number in there)
    cells = "".join(
        f'<img src="{data_uri(picture)}" alt="{text(f"{kind} of number {index}")}">'
        for kind, picture in pictures.items()
    )
    heads = "".join(f"<span>{kind}</span>" for kind in pictures)
    figures = evaluation.overlaps[index].figures()
    told = f"mean IoU, {figures['pixel_accuracy']:.1%} of the pixels right, number {index}: {shown_names}"
    return (
        f'<figure><div class="scene">{heads}{cells}</div>'
        f"<figcaption><strong>{figures['mean_iou']:.1%}</strong> {text(told)}</figcaption></figure>"
    )


def _reduced(pixels: np.ndarray, *, nearest: bool) -> np.ndarray:
    """Returns an image or a mask, uint8 [H,W,...], no larger than a page needs."""
    longest = max(pixels.shape[:2])
    if longest <= _SIDE:
        return np.asarray(pixels)
    size = (max(pixels.shape[1] * _SIDE // longest, 1), max(pixels.shape[0] * _SIDE // longest, 1))
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize(size, method))
