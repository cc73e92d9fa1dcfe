"""What trials report becomes runs in TensorBoard, MLflow and Weights & Biases, through Ray's own callbacks for Tune.

A tracker sees kdray's words: a trial's name is its point described, its parameters are the point, its metrics are
what an epoch reports, at that epoch. Knows nothing about how trials are proposed, nor what their metrics mean.
Invariants: a tracker that fails or hangs costs the sweep a warning; a student of a sweep is one run of a tracker,
however often the sweep is resumed; credentials are in no file and no log line.
"""

import importlib.util
import logging
import math
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ray import tune
from ray.tune.logger import LoggerCallback
from ray.tune.result import AUTO_RESULT_KEYS, DEBUG_METRICS
from ray.tune.utils import flatten_dict

from kdray.errors import ConfigError
from kdray.search.describe import NAME, describe, point_of
from kdray.storage import content_key

logger = logging.getLogger("kdray")
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_TUNES = {*AUTO_RESULT_KEYS, *DEBUG_METRICS, "done", "should_checkpoint", "experiment_tag"}
_LAST_WAIT = 60.0
"""Seconds that a sweep which has ended waits for a tracker to take the rest."""


@dataclass(frozen=True)
class Place:
    """Where a sweep's trials go in a tracker."""

    sweep: str
    """Name of the run and the first 8 digits of the sweep's key."""
    key: str
    """Key of the sweep."""
    folder: Path | None
    """The local storage folder, None where storage is elsewhere."""
    several: bool = False
    """Whether a trial's name says which student it trains."""

    @property
    def tensorboard(self) -> Path:
        """Folder of the sweep's event files; needs `folder`."""
        assert self.folder is not None
        return self.folder / "tensorboard" / self.sweep


@dataclass(frozen=True)
class Tracked:
    """A trial with what Ray's callbacks ask of one; the same point of a sweep is the same trial."""

    trial_id: str
    name: str = field(compare=False)
    config: dict[str, Any] = field(compare=False)

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """The point."""
        return self.config

    def __str__(self) -> str:
        return self.name


def check(names: Iterable[str]) -> None:
    """Raises ConfigError where a tracker's package, its server or its API key is missing."""
    wanted = list(names)
    for name in wanted:
        found = importlib.util.find_spec(_PACKAGES[name])
        if found is None or found.origin is None:  # a folder `wandb` here is a package without an origin
            raise ConfigError(f"search.trackers: {name} is not installed: pip install 'kdray[{name}]'")
    if "mlflow" in wanted:
        from kdray.search import mlflow_runs

        mlflow_runs.check()
    if "wandb" in wanted:
        from kdray.search import wandb_runs

        wandb_runs.check()


def callbacks(names: Sequence[str], run_name: str, sweep_key: str, folder: Path | None,
              students: Sequence[str] = ()) -> list[tune.Callback]:
    """Tune's callbacks for the trackers `names` of a sweep over `students`; logs where their files go.

    `folder` is the storage where that is a local folder, None elsewhere, which leaves TensorBoard out. Raises
    ConfigError like `check`.
    """
    check(names)
    place = Place(f"{run_name}-{sweep_key[:8]}", sweep_key, folder, len(students) > 1)
    wanted = [name for name in dict.fromkeys(names) if name != "tensorboard" or folder is not None]
    if "tensorboard" in wanted:
        logger.info("sweep: tensorboard --logdir '%s'", place.tensorboard)
    elif "tensorboard" in names:
        logger.info("sweep: no TensorBoard files, `storage` is not a local folder")
    return [Tracker(name, place) for name in wanted]


def tracked(config: dict[str, Any], place: Place) -> Tracked:
    """A trial's configuration as trackers see it: values that are no number, text or truth value become text."""
    point = point_of(config)
    student = {"student": config[NAME]} if place.several else {}
    shown = {name: value if isinstance(value, (str, bool, int, float)) else "null" if value is None else str(value)
             for name, value in {**student, **flatten_dict(point)}.items()}
    return Tracked(content_key([place.key, shown])[:16], describe(point, student.get("student", "")), shown)


def metrics(result: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a result, nested ones as `outer/inner`, without what Tune adds."""
    flat = flatten_dict({name: value for name, value in result.items() if name not in _TUNES})
    numbers = {name: float(value) for name, value in flat.items() if isinstance(value, (int, float))}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def safe(text: object) -> str:
    """The first line of a text or error, without the user and password of a URI in it."""
    line = (str(text).strip() or type(text).__name__).splitlines()[0]
    return re.sub(r"(?<=//)[^/\s]+@", "", line)[:300]


class Tracker(tune.Callback):
    """Feeds one of Ray's callbacks from a thread of its own, so that the sweep never waits for it."""

    def __init__(self, name: str, place: Place):
        self._name, self._place = name, place
        self._waiting: SimpleQueue[tuple[str, Tracked, Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._callback: LoggerCallback | None = None
        self._open: set[Tracked] = set()
        self._warned = False

    def __reduce__(self) -> tuple[type["Tracker"], tuple[str, Place]]:
        return Tracker, (self._name, self._place)

    def setup(self, *args: Any, **info: Any) -> None:
        """The sweep begins."""
        self._thread.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or begins again."""
        self._put("start", trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        """An epoch ended; what a trial reports in mid-epoch has no metrics."""
        if "epoch" in result:
            self._put("result", trial, metrics(result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial finished, was stopped, or reported a fault as its last."""
        self._put("end", trial, "fault" in trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self._put("end", trial, True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The sweep ended: waits for the tracker, but not for ever."""
        self._waiting.put(None)
        self._thread.join(_LAST_WAIT)
        if self._thread.is_alive():
            self._warn(f"has not taken everything {_LAST_WAIT:.0f} s after the last trial")

    def _put(self, event: str, trial: Any, detail: Any = None) -> None:
        self._waiting.put((event, tracked(trial.config, self._place), detail))

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._tell(*item)
            except Exception as error:
                self._warn(safe(error))

    def _tell(self, event: str, trial: Any, detail: Any) -> None:
        """One event; a trial whose start was not told, because the tracker failed, is started now."""
        callback = self._ready()
        if trial not in self._open:
            callback.log_trial_start(trial)
            self._open.add(trial)
        if event == "result":
            callback.log_trial_result(int(detail["epoch"]), trial, detail)
        elif event == "end":
            self._open.discard(trial)
            callback.log_trial_end(trial, failed=detail)

    def _ready(self) -> LoggerCallback:
        if self._callback is None:
            callback = _callback(self._name, self._place)
            callback.setup()
            self._callback = callback
        return self._callback

    def _warn(self, cause: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("search.trackers: %s: %s. The sweep goes on, but %s may lack trials", self._name, cause,
                           self._name)


def _callback(name: str, place: Place) -> LoggerCallback:
    if name == "mlflow":
        from kdray.search.mlflow_runs import MLflowRuns

        return MLflowRuns(place.sweep)
    if name == "wandb":
        from kdray.search.wandb_runs import WandbRuns

        return WandbRuns(place.sweep, place.folder)
    from kdray.search.tensorboard_runs import TensorBoardRuns

    return TensorBoardRuns(place.tensorboard)
