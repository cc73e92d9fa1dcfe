"""Base jobs and a search become a table of trials: plans of each student propose and stop, all share one cache.

Tune runs the trials, as many side by side as the cluster has room for. A sweep that was killed goes on where it was.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from kdray.cluster import check_resources, nodes_with
from kdray.config import OF_DISTILLATION, SearchConfig, TrainingConfig
from kdray.console import labels
from kdray.errors import TrainingError
from kdray.search import trackers
from kdray.search.describe import NAME, NUMBER, ROLE, describe, point_of
from kdray.search.live import SweepProgress
from kdray.search.plan import Plan
from kdray.search.points import Listed, learns, make_plans
from kdray.search.proposals import METRIC, Halving, Proposals, Whose
from kdray.search.trial import run_trial
from kdray.storage import Store, content_key
from kdray.training.job import TrainingJob

logger = logging.getLogger("kdray")
KIND = "sweeps"
# Tune would hand them to every trial in a runtime environment, which Ray writes to its logs; nodes have their own.
ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
_EXPERIMENTS = "tune"
_AFTERWARDS = {"max_concurrent", "seeds", "max_ms", "max_mb", "trackers"}
"""Settings of a search that change nothing of what its trials are."""
_HISTORY = ("epoch", "stage", "loss", METRIC, "agreement", "kl", "ratio")


@dataclass(frozen=True)
class Sweep:
    """What a sweep is made from."""

    jobs: dict[str, TrainingJob]
    """Each student by name, at the configured temperature and alpha; its key stands for everything before the sweep."""
    search: SearchConfig
    points: dict[str, dict[str, list[dict[str, Any]]]] | None = None
    """Points of each student, by role, that are given instead of searched."""
    name: str = "run"
    """Name of the run, for trackers."""

    @property
    def key(self) -> str:
        """Content key of the sweep; a job's own leaves out, at alpha 1, what its distilled trials start from."""
        jobs = {name: [job.key, *(job.settings[field] for field in OF_DISTILLATION)] for name, job in self.jobs.items()}
        return content_key({"layout": 3, "jobs": jobs, "points": self.points,
                            "search": self.search.model_dump(exclude=_AFTERWARDS)})

    @property
    def base(self) -> TrainingJob:
        """The first student's job: storage, kind and resources are the same for all."""
        return next(iter(self.jobs.values()))

    def plans(self) -> dict[Whose, Plan]:
        """New plans of each student and role."""
        return {(name, role): plan for name, job in self.jobs.items()
                for role, plan in self._plans(name, TrainingConfig(**job.settings)).items()}

    def _plans(self, name: str, training: TrainingConfig) -> dict[str, Plan]:
        if self.points is None:
            return make_plans(self.search, training)
        return {role: Plan(Listed(points), training) for role, points in self.points[name].items()}

    @property
    def total(self) -> int:
        """How many trials it has at most."""
        return sum(map(len, self.plans().values()))


def run_sweep(sweep: Sweep) -> list[dict[str, Any]]:
    """Rows of the table of trials: student by student, baselines first, in the order of the plans.

    A row has `name` (whose trial it is), `point`, `baseline`, `state` (finished, stopped or failed), `best` (validation
    metric), `epochs`, `student` (key, None where it was not finished), `history`, `seconds` and `error`. Raises
    ClusterError where a trial does not fit, TrainingError where all trials or a student's baselines failed, or time was
    too short.
    """
    os.environ.update(TUNE_DISABLE_STRICT_METRIC_CHECKING="1", TUNE_DISABLE_SIGINT_HANDLER="1",
                      TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", TUNE_PRINT_ALL_TRIAL_ERRORS="0",
                      RAY_CHDIR_TO_TRIAL_DIR="0", RAY_AIR_NEW_OUTPUT="0",
                      TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    store = Store(sweep.base.storage)
    folder = Path(store.root) if store.local else None
    if sweep.points is None and sweep.search.algorithm == "tpe" and not learns(sweep.search):
        logger.info("sweep: %d trials are too few to learn from, so points are random", sweep.search.trials)
    told = trackers.callbacks(sweep.search.trackers, sweep.name, sweep.key, folder, list(sweep.jobs))
    with SweepProgress(sweep.total, list(sweep.jobs)) as shown:
        every: list[tune.Result] = list(_tuner(sweep, store, [shown, *told]).fit())  # type: ignore[call-overload]
    results = [result for result in every if result.config]  # the others were proposed, but time was up
    names = list(sweep.jobs)
    results.sort(key=lambda result: _place(result.config or {}, names))
    rows = [_row(result, store, sweep) for result in results]
    _check(rows, sweep)
    return rows


def trial_resources(settings: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Resources of a trial's own process, and of all its processes.

    A process that only waits for its workers takes no CPU; a byte of memory stands for what Tune must be given.
    """
    worker = {"CPU": settings["num_cpus"] or 1.0, "GPU": settings["num_gpus"]}
    if settings["workers"] == 1:
        return worker, worker
    return {"memory": 1.0}, {name: need * settings["workers"] for name, need in worker.items()}


def _tuner(sweep: Sweep, store: Store, callbacks: list[tune.Callback]) -> tune.Tuner:
    settings = sweep.base.settings
    own, whole = trial_resources(settings)
    on = settings["labels"]
    check_resources(settings["workers"], {"CPU": settings["num_cpus"] or 1.0, "GPU": settings["num_gpus"]},
                    "training.workers", on)
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, jobs=sweep.jobs, whose=labels()),
        tune.PlacementGroupFactory([own], bundle_label_selector=[on] if on else None))
    path = store.uri_of(_EXPERIMENTS, sweep.key)
    if tune.Tuner.can_restore(path):
        logger.info("sweep: going on with the trials that were there")
        tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, restart_errored=True)
        assert tuner._local_tuner is not None
        tuner._local_tuner.get_run_config().callbacks = callbacks  # instead of those of the sweep that was killed
        return tuner
    nodes = nodes_with(on)
    fits = int(min(sum(node.get(name, 0.0) for node in nodes) // need for name, need in whole.items() if need > 0))
    proposals = Proposals(sweep.plans)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=METRIC, mode="max", num_samples=proposals.total, reuse_actors=True, search_alg=proposals,
            max_concurrent_trials=sweep.search.max_concurrent or max(1, fits), scheduler=Halving(proposals),
            time_budget_s=None if sweep.points else sweep.search.time_budget),
        run_config=tune.RunConfig(
            name=sweep.key, storage_path=store.uri_of(_EXPERIMENTS), verbose=0, callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=settings["max_failures"]),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1)),
    )


def _row(result: tune.Result, store: Store, sweep: Sweep) -> dict[str, Any]:
    metrics, config = result.metrics or {}, result.config or {}
    student = metrics.get("student")
    made = store.manifest(sweep.base.kind, str(student)) if student else None
    finished = made is not None and metrics["epoch"] == made["history"][-1]["epoch"]
    error = metrics.get("fault") or (_last_line(str(result.error)) if result.error else None)
    return {
        "name": config[NAME], "point": point_of(config), "baseline": config[ROLE] == "baseline",
        "state": "failed" if error else "finished" if finished else "stopped",
        "best": metrics.get(METRIC), "epochs": metrics.get("epoch", 0), "student": student if finished else None,
        "history": made["history"] if finished and made else _history(result),
        "seconds": made["seconds"] if finished and made else metrics.get("time_total_s"), "error": error,
    }


def _place(config: dict[str, Any], names: list[str]) -> tuple[int, bool, int]:
    return names.index(config[NAME]), config[ROLE] != "baseline", config[NUMBER]


def _history(result: tune.Result) -> list[dict[str, Any]]:
    frame = result.metrics_dataframe
    if frame is None or "epoch" not in frame:
        return []
    columns = [name for name in frame.columns if name in _HISTORY]
    entries = frame[columns].dropna(subset=["epoch"]).to_dict("records")
    return [{name: value for name, value in entry.items() if value == value} for entry in entries]


def _check(rows: list[dict[str, Any]], sweep: Sweep) -> None:
    for row in rows:
        if row["state"] == "failed":
            logger.warning("sweep: %s failed: %s", _name(row, sweep), row["error"])
    _check_failed("all trials", rows)
    for name in sweep.jobs if sweep.points is None else ():
        _check_failed(f"every baseline of {name}", [row for row in rows if row["baseline"] and row["name"] == name])
    budget = None if sweep.points else sweep.search.time_budget
    if budget is not None:
        _check_budget(rows, sweep, budget)
    elif len(rows) < sweep.total:
        raise TrainingError(f"the sweep ended with {len(rows)} trials before its time; run it again to go on")


def _check_failed(which: str, rows: list[dict[str, Any]]) -> None:
    if rows and all(row["state"] == "failed" for row in rows):
        raise TrainingError(f"{which} failed, first cause: {rows[0]['error']}")


def _check_budget(rows: list[dict[str, Any]], sweep: Sweep, budget: float) -> None:
    """Every student must have a finished trial of each role; else the sweep is dropped and must start anew."""
    done = [(row["name"], "baseline" if row["baseline"] else "distilled") for row in rows if row["state"] == "finished"]
    for name, role in sweep.plans():
        if (name, role) not in done:
            discard(sweep)
            longest = max((row["seconds"] or 0.0 for row in rows), default=0.0)
            took = f"; the longest took {longest:.0f} s" if longest else ""
            raise TrainingError(
                f"search.time_budget = {budget:g} s was over before a {role} trial of {name} had finished "
                f"({len(done)} trials finished{took}). Give it more time, or fewer epochs")


def _name(row: dict[str, Any], sweep: Sweep) -> str:
    return describe(row["point"], row["name"] if len(sweep.jobs) > 1 else "")


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def discard(sweep: Sweep) -> None:
    """Removes Tune's experiment of a published sweep: its table is in the manifest, its students are artefacts."""
    Store(sweep.base.storage).delete_folder(_EXPERIMENTS, sweep.key)
