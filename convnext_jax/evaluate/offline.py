"""Evaluation of a workdir's checkpoint, anywhere: needs the workdir and the data, no optimiser and no loop."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from convnext_jax import data
from convnext_jax.checkpoint import Checkpoints
from convnext_jax.data.resident import put_split
from convnext_jax.distributed import abstract, compute_dtype, make_mesh, replicated
from convnext_jax.errors import UserError
from convnext_jax.evaluate.exact import evaluate_split
from convnext_jax.models import abstract_model, count_parameters
from convnext_jax.models.from_config import model_from_config
from convnext_jax.workdir import DatasetRecord, read_experiment, write_json


def evaluate_workdir(
    workdir: Path,
    *,
    which: str = "latest",
    split: str = "test",
    data_dir: str | None = None,
    dtype: str | None = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Evaluates a checkpoint on a whole split.

    Args:
      workdir: a workdir of ``train.py``.
      which: ``latest``, ``best`` or a step.
      split: ``test`` or ``train``.
      data_dir: where the data are on this machine; where the config says if None.
      dtype: what to compute in; what the config says if None.
      batch_size: images at a time.

    Returns:
      What ``evaluation.json`` holds: ``top1``, ``top5`` (fractions), ``loss`` (nats), ``examples`` and what they
      speak of.

    Raises:
      UserError: no workdir, no such checkpoint, or data that are missing or other than those trained on.
    """
    experiment = read_experiment(workdir)
    record = DatasetRecord.read(workdir)
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        raise UserError(f"{workdir} has no checkpoints yet")
    config = experiment.data if data_dir is None else dataclasses.replace(experiment.data, data_dir=data_dir)
    dataset = data.load(config)
    if dataset.class_names != record.class_names:
        raise UserError(
            f"{dataset.name} has other classes here than the run in {workdir} was trained on; see dataset.json"
        )
    mesh = make_mesh()
    dtype = compute_dtype(dtype or experiment.model.dtype)
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.select(which)
        classes = len(record.class_names)
        definition, *like = abstract_model(
            lambda: model_from_config(experiment.model, num_classes=classes, dtype=dtype)
        )
        params, statistics = checkpoints.restore_model(step, *abstract(like, replicated(mesh)))
    figures = evaluate_split(
        definition,
        params,
        put_split(getattr(dataset, split), replicated(mesh)),
        statistics=statistics,
        mean=record.mean,
        std=record.std,
        batch_size=batch_size,
        mesh=mesh,
    )
    return figures | {
        "parameters": count_parameters(params),
        "model": experiment.model.name,
        "dataset": dataset.name,
        "split": split,
        "step": step,
        "weights": "raw",
        "dtype": dtype,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def write_evaluation(evaluation: dict[str, Any], directory: Path) -> Path:
    """Writes ``evaluation.json`` into a folder, made where it does not exist, and returns its path."""
    path = directory / "evaluation.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, evaluation)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another --output") from error
    return path
