"""MLflow. Its own variables choose server and experiment: ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME``."""

import os
import time
from collections.abc import Mapping

from convnext_jax.workdir.tracker import PROJECT, TrackedRun

_TAG = "convnext_jax.run"  # MLflow chooses the identifiers of its runs; ours is a tag
_MOST_PARAMS = 100  # of a request
_LONGEST_PARAM = 500  # characters


class MlflowTracker:
    """A run of MLflow; see `convnext_jax.workdir.tracker.Tracker`."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        found = self._client.search_runs([number], f"tags.`{_TAG}` = '{run.identifier}'", max_results=1)
        if found:
            self._id: str = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(number, run_name=run.name, tags={_TAG: run.identifier}).info.run_id
        params = [
            Param(f"{section}.{field}", str(value)[:_LONGEST_PARAM])
            for section, fields in run.settings.items()
            for field, value in fields.items()
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _MOST_PARAMS])

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, *, completed: bool) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._id, "FINISHED" if completed else "KILLED")
