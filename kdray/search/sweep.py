"""A base job and a search become a table of trials: Optuna's TPE proposes, ASHA stops, all share one cache.

Invariants: the baseline (alpha = 1) is the first trial and is never stopped early; a sweep that was killed
goes on where it was.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from kdray.cluster import check_resources
from kdray.config import SearchConfig, TrainingConfig
from kdray.errors import TrainingError
from kdray.search.describe import BASELINE, describe
from kdray.search.space import first_point, tune_space
from kdray.search.trial import run_trial
from kdray.storage import Store, content_key
from kdray.training.job import TrainingJob

logger = logging.getLogger("kdray")
KIND = "sweeps"
METRIC = "best"
# Tune would hand them to every trial in a runtime environment, which Ray writes to its logs; nodes have their own.
ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
_EXPERIMENTS = "tune"


@dataclass(frozen=True)
class Sweep:
    """What a sweep is made from."""

    job: TrainingJob
    """The student at the configured temperature and alpha; its key stands for everything before the sweep."""
    search: SearchConfig

    @property
    def key(self) -> str:
        """Content key of the sweep."""
        return content_key({"job": self.job.key, "search": self.search.model_dump(exclude={"max_concurrent"})})


def run_sweep(sweep: Sweep) -> list[dict[str, Any]]:
    """Rows of the table of trials, the baseline first.

    A row has `point`, `baseline`, `state` (finished, stopped or failed), `best` (validation metric), `epochs`,
    `student` (key, None where it was not finished), `history` and `error`. Raises ClusterError where a trial
    does not fit, TrainingError where all trials or the baseline failed.
    """
    os.environ.update(TUNE_DISABLE_STRICT_METRIC_CHECKING="1", TUNE_DISABLE_SIGINT_HANDLER="1",
                      TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
                      RAY_CHDIR_TO_TRIAL_DIR="0", RAY_AIR_NEW_OUTPUT="0",
                      TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    store = Store(sweep.job.storage)
    grid = _tuner(sweep, store).fit()
    rows = [_row(result, store, sweep) for result in list(grid)]  # type: ignore[call-overload]
    _check(rows, sweep.search.trials + 1)
    return sorted(rows, key=lambda row: not row["baseline"])


def trial_resources(settings: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Resources of a trial's own process, and of all its processes.

    A process that only waits for its workers takes no CPU; a byte of memory stands for what Tune must be given.
    """
    worker = {"CPU": settings["num_cpus"] or 1.0, "GPU": settings["num_gpus"]}
    if settings["workers"] == 1:
        return worker, worker
    return {"memory": 1.0}, {name: need * settings["workers"] for name, need in worker.items()}


def _tuner(sweep: Sweep, store: Store) -> tune.Tuner:
    settings = sweep.job.settings
    own, whole = trial_resources(settings)
    check_resources(settings["workers"], {"CPU": settings["num_cpus"] or 1.0, "GPU": settings["num_gpus"]},
                    "training.workers")
    trainable = tune.with_resources(tune.with_parameters(run_trial, job=sweep.job), own)
    path = store.uri_of(_EXPERIMENTS, sweep.key)
    if tune.Tuner.can_restore(path):
        logger.info("sweep: going on with the trials that were there")
        return tune.Tuner.restore(path, trainable, resume_unfinished=True, restart_errored=True)
    fits = int(min(ray.cluster_resources().get(name, 0.0) // need for name, need in whole.items() if need > 0))
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=METRIC, mode="max", num_samples=sweep.search.trials + 1, reuse_actors=True,
            search_alg=BaselineFirst(sweep), max_concurrent_trials=sweep.search.max_concurrent or max(1, fits),
            scheduler=KeepBaseline(time_attr="epoch", max_t=_epochs(settings), grace_period=sweep.search.grace,
                                   reduction_factor=2, stop_last_trials=False)),
        run_config=tune.RunConfig(
            name=sweep.key, storage_path=store.uri_of(_EXPERIMENTS), verbose=0, callbacks=[TrialLines(sweep)],
            failure_config=tune.FailureConfig(max_failures=settings["max_failures"]),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1)),
    )


def _epochs(settings: dict[str, Any]) -> int:
    return settings["epochs"] + (settings["finetune"]["epochs"] if settings["finetune"] else 0) + 1


class BaselineFirst(OptunaSearch):
    """Proposes the baseline, then what Optuna's TPE proposes, which never hears of the baseline."""

    def __init__(self, sweep: Sweep):
        training = TrainingConfig(**sweep.job.settings)
        super().__init__(tune_space(sweep.search.space, training), metric=METRIC, mode="max",
                         points_to_evaluate=[first_point(sweep.search.space, training)], seed=sweep.search.seed)
        self._baseline_trial: str | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next point."""
        if self._baseline_trial is None:
            self._baseline_trial = trial_id
            return dict(BASELINE)
        return super().suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Passes on what is Optuna's."""
        if trial_id != self._baseline_trial:
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Passes on what is Optuna's."""
        if trial_id != self._baseline_trial:
            super().on_trial_complete(trial_id, result, error)


class KeepBaseline(ASHAScheduler):
    """ASHA that lets the baseline have its whole budget."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """ASHA's decision, or to go on."""
        if trial.config == BASELINE:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)


class TrialLines(tune.Callback):
    """A log line for each change of a trial."""

    def __init__(self, sweep: Sweep):
        self._total, self._ended = sweep.search.trials + 1, 0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins."""
        logger.info("sweep: %s begins", describe(trial.config))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        """An epoch ended."""
        if "epoch" in result:
            logger.info("sweep: %s | epoch %d | loss %.4f | best %.4f", describe(trial.config), result["epoch"],
                        result["loss"], result[METRIC])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended."""
        self._ended += 1
        logger.info("sweep: %s ends | %d/%d trials", describe(trial.config), self._ended, self._total)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good, or for now."""
        logger.warning("sweep: %s failed", describe(trial.config))


def _row(result: tune.Result, store: Store, sweep: Sweep) -> dict[str, Any]:
    metrics = result.metrics or {}
    student = metrics.get("student")
    finished = bool(student) and store.manifest(sweep.job.kind, str(student)) is not None
    point = dict(result.config or {})
    made = store.manifest(sweep.job.kind, str(student)) if finished else None
    return {
        "point": point, "baseline": point == BASELINE,
        "state": "failed" if result.error else "finished" if finished else "stopped",
        "best": metrics.get(METRIC), "epochs": metrics.get("epoch", 0), "student": student if finished else None,
        "history": made["history"] if made else _history(result), "seconds": made["seconds"] if made else
        metrics.get("time_total_s"), "error": str(result.error) if result.error else None,
    }


def _history(result: tune.Result) -> list[dict[str, Any]]:
    frame = result.metrics_dataframe
    if frame is None or "epoch" not in frame:
        return []
    columns = [name for name in frame.columns if name in ("epoch", "stage", "loss", METRIC)]
    return frame[columns].dropna().to_dict("records")


def _check(rows: list[dict[str, Any]], wanted: int) -> None:
    if len(rows) < wanted:
        raise TrainingError(f"the sweep ended with {len(rows)} of {wanted} trials; run it again to go on")
    failed = [row for row in rows if row["state"] == "failed"]
    for row in failed:
        logger.warning("sweep: %s failed: %s", describe(row["point"]), _last_line(row["error"]))
    if failed and (len(failed) == len(rows) or failed[0]["baseline"]):
        which = "all trials" if len(failed) == len(rows) else "the baseline"
        raise TrainingError(f"{which} failed, first cause: {_last_line(failed[0]['error'])}")


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def discard(sweep: Sweep) -> None:
    """Removes Tune's experiment of a published sweep: its table is in the manifest, its students are artefacts."""
    Store(sweep.job.storage).delete_folder(_EXPERIMENTS, sweep.key)
