"""Base jobs and a search become a table of trials: plans of each student propose and stop, all share one cache.

Tune runs the trials, as many side by side as the cluster has room for. A sweep that was killed goes on where it was.
"""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.error import TuneError
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
from kdray.search.records import Record, Records
from kdray.search.trial import point_job, run_trial
from kdray.storage import Store, content_key
from kdray.tasks import TASKS
from kdray.training.job import TrainingJob

logger = logging.getLogger("kdray")
KIND = "sweeps"
# Tune would hand them to every trial in a runtime environment, which Ray writes to its logs; nodes have their own.
ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
_EXPERIMENTS = "tune"
_LEAST = 0.001
"""Seconds of a sweep whose time is up: Tune takes 0 for no limit."""
_AFTERWARDS = {"max_concurrent", "seeds", "max_ms", "max_mb", "trackers"}
"""Settings of a search that change nothing of what its trials are."""


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
            return make_plans(self.search, training, TASKS[self.jobs[name].task])
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
    records, proposals = Records(store, _folder(sweep)), Proposals(sweep.plans)
    if records.trials:
        logger.info("sweep: going on with the trials that were there")
        records.keep(proposals.resume(records.trials))
    with SweepProgress(sweep.total, list(sweep.jobs)) as shown:
        shown.take_in(records.trials)
        _run(sweep, proposals, records, [records, shown, *told])
    names = list(sweep.jobs)
    known = [record for record in records.trials.values() if record.history or record.error]  # else time was up
    rows = [_row(record, store, sweep) for record in sorted(known, key=lambda one: _place(one.config, names))]
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


def _run(sweep: Sweep, proposals: Proposals, records: Records, callbacks: list[tune.Callback]) -> None:
    """Runs the trials that have not ended.

    What Tune itself writes are pickles, which are for this process alone: a sweep is resumed from its records.
    """
    left = proposals.total - sum(record.state is not None for record in records.trials.values())
    if left:
        with tempfile.TemporaryDirectory(prefix="kdray-tune-") as folder:
            try:
                _tuner(sweep, proposals, records, callbacks, folder, left).fit()
            except TuneError as error:
                raise records.trouble or error from None


def _tuner(sweep: Sweep, proposals: Proposals, records: Records, callbacks: list[tune.Callback], folder: str,
           left: int) -> tune.Tuner:
    settings = sweep.base.settings
    own, whole = trial_resources(settings)
    on = settings["labels"]
    check_resources(settings["workers"], {"CPU": settings["num_cpus"] or 1.0, "GPU": settings["num_gpus"]},
                    "training.workers", on)
    nodes = nodes_with(on)
    fits = int(min(sum(node.get(name, 0.0) for node in nodes) // need for name, need in whole.items() if need > 0))
    budget = None if sweep.points else sweep.search.time_budget
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, jobs=sweep.jobs, folder=_folder(sweep), whose=labels()),
            tune.PlacementGroupFactory([own], bundle_label_selector=[on] if on else None)),
        tune_config=tune.TuneConfig(
            metric=METRIC, mode="max", num_samples=left, reuse_actors=True, search_alg=proposals,
            max_concurrent_trials=sweep.search.max_concurrent or max(1, fits), scheduler=Halving(proposals),
            time_budget_s=budget and max(_LEAST, budget - records.elapsed)),
        run_config=tune.RunConfig(
            name=sweep.key, storage_path=folder, verbose=0, callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=settings["max_failures"])),
    )


def _folder(sweep: Sweep) -> tuple[str, str]:
    """Where in the storage a sweep that is not published keeps records and checkpoints of its trials."""
    return _EXPERIMENTS, sweep.key


def _row(record: Record, store: Store, sweep: Sweep) -> dict[str, Any]:
    config, point = record.config, point_of(record.config)
    epochs = record.history[-1]["epoch"] if record.history else 0
    job = point_job(sweep.jobs[config[NAME]], point) if epochs else None
    made = store.manifest(job.kind, job.key) if job else None
    if made is not None and made["history"][-1]["epoch"] != epochs:
        made = None
    return {
        "name": config[NAME], "point": point, "baseline": config[ROLE] == "baseline",
        "state": "failed" if record.error else "finished" if made else "stopped",
        "best": record.best, "epochs": epochs, "student": made["key"] if made else None,
        "history": made["history"] if made else record.history,
        "seconds": made["seconds"] if made else record.seconds or None, "error": record.error,
    }


def _place(config: dict[str, Any], names: list[str]) -> tuple[int, bool, int]:
    return names.index(config[NAME]), config[ROLE] != "baseline", config[NUMBER]


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


def discard(sweep: Sweep) -> None:
    """Removes what is kept of a sweep's trials: once it is published, its table is in the manifest."""
    Store(sweep.base.storage).delete_folder(*_folder(sweep))
