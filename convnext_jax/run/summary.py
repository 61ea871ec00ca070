"""What a run leaves at its end: ``summary.json`` and ``curves.png``."""

import dataclasses
from typing import Any

import jax
import numpy as np

from convnext_jax.errors import writing
from convnext_jax.run.prepare import Run
from convnext_jax.storage.files import write_json
from convnext_jax.workdir.best_metric import best_metric
from convnext_jax.workdir.metrics_log import LABELS, figure_name, read_metrics


def write_summary(run: Run, parameters: int) -> dict[str, Any]:
    """Writes ``summary.json`` and ``curves.png`` from what was logged."""
    # Plotting is slow to import, and only needed here.
    from convnext_jax.report.curves import plot_curves

    workdir, plan = run.output.workdir, run.plan
    lines = read_metrics(workdir / "metrics.jsonl")
    metric = next(iter(plan.spec.task.metrics))
    main = figure_name(plan.split, metric)
    evaluations = [line for line in lines if main in line] or [_saved_evaluation(run)]
    speeds = [line["train/images_per_second"] for line in lines if "train/images_per_second" in line]
    names = [name for name in evaluations[-1] if name in ("step", "epoch") or name.startswith(plan.split)]
    best = max(evaluations, key=best_metric(plan.experiment, plan.spec.task).score)
    summary = {
        "split": plan.split,
        "final": {name: evaluations[-1][name] for name in names},
        "best": {name: best[name] for name in names},
        "parameters": parameters,
        "train_examples": plan.spec.source.num_examples,
        f"{plan.split}_examples": plan.evaluated.num_examples,
        "seconds": lines[-1]["seconds"] if lines else 0.0,
        "images_per_second_median": float(np.median(speeds)) if speeds else None,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    if plan.rollbacks:
        summary["rollbacks"] = [dataclasses.asdict(rollback) for rollback in plan.rollbacks]
    model, data = plan.experiment.model.name, plan.experiment.data.name
    title = f"{model} on {data}: {plan.split} {LABELS[metric]} {summary['final'][main]:.2%}"
    with writing(workdir, "--workdir"):
        write_json(workdir / "summary.json", summary)
        if lines:
            plot_curves(lines, workdir / "curves.png", title, plan.split)
    return summary


def _saved_evaluation(run: Run) -> dict[str, float]:
    """Returns the last evaluation as its checkpoint has it, for a run that has lost its log."""
    step = run.plan.total_steps
    epoch = float(run.plan.experiment.run.epochs)
    return {"step": step, "epoch": epoch, **run.checkpoints.metrics(step)}
