"""Trials become runs of an MLflow server, which MLFLOW_TRACKING_URI names.

Needs the package mlflow: imported where `search.trackers` asks for it. A run is found again by its tags.
"""

import logging
import os
from typing import Any

from mlflow import MlflowClient
from ray.air._internal.mlflow import _MLflowLoggerUtil
from ray.air.integrations.mlflow import MLflowLoggerCallback

from kdray.errors import ConfigError
from kdray.search.trackers import safe

_URI = "MLFLOW_TRACKING_URI"
_TAG = "kdray.trial"


def check() -> None:
    """Raises ConfigError where MLFLOW_TRACKING_URI is not set, or no server answers there.

    A server that does not answer is asked twice more for 10 seconds each, unless the environment says otherwise.
    """
    if not os.environ.get(_URI):
        raise ConfigError(f"search.trackers: mlflow has no server: set {_URI}, as in {_URI}=http://mlflow:5000")
    for name, value in {"HTTP_REQUEST_MAX_RETRIES": "2", "HTTP_REQUEST_TIMEOUT": "10",
                        "SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    try:
        MlflowClient(os.environ[_URI]).search_experiments(max_results=1)
    except Exception as error:
        raise ConfigError(f"search.trackers: no MLflow server answers at {_URI}={safe(os.environ[_URI])}. Start it, "
                          f"correct {_URI}, or take mlflow out of search.trackers. It says: {safe(error)}") from None


class Util(_MLflowLoggerUtil):
    """Ray's, which logs to another run, a new one, where it cannot see the one it was told."""

    def _run_exists(self, run_id: str) -> bool:
        return True


class MLflowRuns(MLflowLoggerCallback):
    """Ray's callback that finds the runs of a resumed sweep, in an experiment with the sweep's name.

    MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID name another one.
    """

    def __init__(self, sweep: str):
        super().__init__(os.environ[_URI], experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", sweep))
        self.mlflow_util = Util()
        self._sweep = sweep

    def log_trial_start(self, trial: Any) -> None:
        """Starts the trial's run, or goes on with the one that is there."""
        client = self.mlflow_util._get_client()
        known = client.search_runs([self.mlflow_util.experiment_id], f"tags.`{_TAG}` = '{trial.trial_id}'",
                                   max_results=1)
        if known:
            self._trial_runs[trial] = known[0].info.run_id
            client.update_run(known[0].info.run_id, status="RUNNING")
        self.tags = {"kdray.sweep": self._sweep, _TAG: trial.trial_id}
        super().log_trial_start(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """The metrics at step `iteration`."""
        self.mlflow_util.log_metrics(run_id=self._trial_runs[trial], metrics_to_log=result, step=iteration)
