"""The evaluation of a classifier as a page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax

from convnext_jax.evaluate.figures import confusion_counts
from convnext_jax.evaluate.offline import Evaluation
from convnext_jax.report.confusion import add_confusion
from convnext_jax.report.evaluation_charts import corruption_chart, curves_chart, reliability_chart
from convnext_jax.report.evaluation_parts import about_run, cost_tiles, lead, tiles
from convnext_jax.report.evaluation_tables import (
    about_rows,
    class_rows,
    corruption_rows,
    displacement_rows,
    figure_rows,
)
from convnext_jax.report.page import Page, data_uri, details, table, text
from convnext_jax.workdir.metrics_log import evaluated_split, read_metrics

_PICTURES = 24
_CLASSES = 10


def evaluation_page(evaluation: Evaluation, *, command: str) -> Page:
    """Returns the page of an evaluation.

    Args:
      evaluation: its figures and its logits.
      command: the command line that made it.
    """
    run, figures = evaluation.run, evaluation.figures
    page = Page(f"{run.workdir.name}: {figures['top1']:.2%} top-1", lead(figures))
    names, labels, predicted = run.record.class_names, evaluation.examples.labels, evaluation.predicted
    page.add(
        "Summary",
        tiles(
            {
                "top-1": f"{figures['top1']:.2%}",
                "top-5": f"{figures['top5']:.2%}",
                "loss (nats)": f"{figures['loss']:.3f}",
                "calibration error": f"{figures['ece']:.2%}",
                **cost_tiles(figures),
            }
        ),
        '<div class="columns">',
        table(figure_rows(figures), caption="Figures, with bootstrap intervals over the examples", numbers=(1, 2)),
        table(about_rows(figures), caption="What they are about"),
        "</div>",
    )
    if lines := read_metrics(run.workdir / "metrics.jsonl"):
        split = evaluated_split(lines) or "test"
        page.add("Learning curves", curves_chart(lines, split))
    add_confusion(page, confusion_counts(predicted, labels, len(names)), names)
    page.add(
        "Calibration",
        _calibration_note(evaluation),
        reliability_chart(evaluation.logits, labels, evaluation.temperature),
    )
    page.add("Classes", *_class_tables(figures))
    if parts := _robustness(figures):
        page.add("Robustness", *parts)
    page.add("Pictures", *_pictures(evaluation))
    page.add("Run", *about_run(run, command))
    return page


def _calibration_note(evaluation: Evaluation) -> str:
    scaled = evaluation.figures.get("temperature_scaling")
    if scaled is None:
        note = (
            "No temperature was fitted: the run held no examples out of its training (config.data.validation_fraction)"
            " besides those of its test split."
        )
    else:
        note = (
            f"The temperature {scaled['temperature']:.3f} was fitted on {scaled['fitted_on_examples']:,} examples of"
            f" the {scaled['fitted_on']} split, which were held out of the training, and on none of these."
        )
    return f'<p class="note">{text(note)}</p>'


def _class_tables(figures: Mapping[str, Any]) -> list[str]:
    rows, numbers = class_rows(figures["per_class"]), (1, 2, 3, 4)
    head, body = rows[0], rows[1:]
    parts = []
    if len(body) > 2 * _CLASSES:
        worst, best = body[:_CLASSES], body[::-1][:_CLASSES]
        parts = [
            '<div class="columns">',
            table([head, *worst], caption=f"The {_CLASSES} classes with the lowest F1", numbers=numbers),
            table([head, *best], caption=f"The {_CLASSES} classes with the highest F1", numbers=numbers),
            "</div>",
            details(
                f"All {len(body)} classes", table(rows, caption="All classes, the lowest F1 first", numbers=numbers)
            ),
        ]
    else:
        parts = [table(rows, caption="All classes, the lowest F1 first", numbers=numbers)]
    if figures["per_superclass"]:
        rows = class_rows(figures["per_superclass"])
        caption = f"The {len(rows) - 1} superclasses; a confusion within one counts as right"
        parts.append(details("Superclasses", table(rows, caption=caption, numbers=numbers)))
    return parts


def _robustness(figures: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, found in (("robustness", "made here"), ("corrupted", "")):
        if name not in figures:
            continue
        measured = figures[name]
        corruptions = measured.get("corruptions", measured)
        where = found or measured["folder"]
        rows = corruption_rows(corruptions)
        caption = f"Top-1 under corruption ({where})"
        parts += [
            f"<h3>Corruptions ({text(where)}): {corruptions['mean_top1']:.2%} top-1 in the mean</h3>",
            corruption_chart(corruptions, figures["top1"]),
            details("By severity", table(rows, caption=caption, numbers=range(1, len(rows[0])))),
        ]
        if "translation" in measured:
            shifted = displacement_rows(measured["translation"], "pixels")
            scaled = displacement_rows(measured["scale"], "factor")
            parts += [
                '<div class="columns">',
                table(shifted, caption="Shifted by, mean of four directions", numbers=(1, 2)),
                table(scaled, caption="Scaled by", numbers=(1, 2)),
                "</div>",
            ]
    return parts


def _pictures(evaluation: Evaluation) -> list[str]:
    temperature = evaluation.temperature or 1.0
    probabilities = softmax(np.asarray(evaluation.logits, np.float64) / temperature, axis=-1)
    confidence, correct = np.nan_to_num(probabilities.max(-1)), evaluation.correct
    wrong, right = np.flatnonzero(~correct), np.flatnonzero(correct)
    mistakes = wrong[np.argsort(-confidence[wrong], kind="stable")][:_PICTURES]
    doubtful = right[np.argsort(confidence[right], kind="stable")][:_PICTURES]
    return [
        "<h3>The most confident mistakes</h3>",
        _gallery(evaluation, mistakes, confidence) if len(mistakes) else "<p>There are none.</p>",
        "<h3>The least confident of the right ones</h3>",
        _gallery(evaluation, doubtful, confidence) if len(doubtful) else "<p>There are none.</p>",
    ]


def _gallery(evaluation: Evaluation, chosen: np.ndarray, confidence: np.ndarray) -> str:
    names, examples = evaluation.run.record.class_names, evaluation.examples
    cells = []
    for index in chosen:
        true, taken = names[examples.labels[index]], names[evaluation.predicted[index]]
        told = f"{true} taken for {taken}" if true != taken else true
        cells.append(
            f'<figure><img src="{data_uri(np.asarray(examples.images[index]))}" alt="{text(told)}">'
            f"<figcaption><strong>{text(true)}</strong>"
            + (f"<br>taken for {text(taken)}" if true != taken else "")
            + f"<br>{confidence[index]:.1%} sure, number {index}</figcaption></figure>"
        )
    return '<div class="pictures">' + "".join(cells) + "</div>"
