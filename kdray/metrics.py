"""What a run does becomes Prometheus metrics at the port of each node's Ray agent, which puts `ray_` before a name.

Every series has `run` (the config's name) and `stage`; none has a trial, a shard or a step, of which there are many.
Ray's agent forgets a gauge 20 s after it was last told, so a thread tells all of them every second; they go with their
process. A counter it keeps, by process, until the node ends. So counters are those of the driver, and of processes in
which trial after trial runs; what training workers tell are gauges. A sweep of 1,000 trials, 16 side by side, has 16
series of a training metric. What each trial did is in its history.

Knows names, labels and meanings, and nothing about who has the facts. Without Ray in this process nothing happens.
"""

import threading
import time
from functools import cache, cached_property
from typing import Any

import ray
from ray.util import metrics

from kdray.console import labels
from kdray.progress import Progress

_EVERY = 1.0
"""Seconds from one telling of the gauges, and of a training step, to the next. Ray hands them on every 10."""
_kept: dict[tuple["Gauge", tuple[str, ...]], float] = {}
"""Values of all gauges by the values of their labels."""


class _Metric:
    kind: type[Any]

    def __init__(self, name: str, text: str, *more: str):
        """`more` are labels beside `run` and `stage`."""
        self.name, self.text, self._own = f"kdray_{name}", text, ("run", "stage", *more)

    @cached_property
    def _ray(self) -> Any:
        return self.kind(self.name, self.text, self._own)

    def _tags(self, given: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in {**labels(), **given}.items() if name in self._own}


class Counter(_Metric):
    """Counts of a driver add up while its Ray runs."""

    kind = metrics.Counter

    @property
    def exported(self) -> str:
        """As Prometheus has it."""
        return f"ray_{self.name}_total"

    def add(self, value: float = 1.0, **given: str) -> None:
        """Adds a `value` of 0 or more to the series with the `given` labels."""
        if value > 0 and ray.is_initialized():
            self._ray.inc(value, self._tags(given))


class Gauge(_Metric):
    """A value of now."""

    kind = metrics.Gauge

    @property
    def exported(self) -> str:
        """As Prometheus has it."""
        return f"ray_{self.name}"

    def set(self, value: float, **given: str) -> None:
        """Sets the series with the `given` labels, and keeps it set."""
        if ray.is_initialized():
            tags = self._tags(given)
            _keep()
            _kept[self, tuple(tags[name] for name in self._own)] = value
            self._ray.set(value, tags)

    def again(self, value: float, tags: tuple[str, ...]) -> None:
        """Tells a value that was set."""
        self._ray.set(value, dict(zip(self._own, tags, strict=True)))


@cache
def _keep() -> None:
    threading.Thread(target=_tell_all, name="kdray-metrics", daemon=True).start()


def _tell_all() -> None:
    while True:
        time.sleep(_EVERY)
        for (gauge, tags), value in list(_kept.items()):
            if ray.is_initialized():
                gauge.again(value, tags)
            else:
                _kept.clear()


CACHE_ROWS = Gauge("cache_rows", "Rows of the cache that is being filled, when it is whole")
MISSING_ROWS = Gauge("cache_missing_rows", "Rows without soft targets")
MISSING_SHARDS = Gauge("cache_missing_shards", "Shards that are not in storage")
COMPUTED_ROWS = Counter("cache_computed_rows", "Rows whose soft targets were computed and stored")
COMPUTED_SHARDS = Counter("cache_computed_shards", "Shards that were computed and stored")
TEACHER_SECONDS = Counter("cache_teacher_seconds", "Seconds that teacher actors were busy with stored shards")
LEASED_AGAIN = Counter("cache_leased_again", "Shards leased again, for the actor failed or died")
ACTORS = Gauge("cache_actors", "Teacher actors: up, or waiting for room", "state")

TRAINED_ROWS = Counter("training_rows", "Rows that training steps took", "student")
STEP = Gauge("training_step", "Steps taken in the epoch by this process", "student")
STEP_SECONDS = Gauge("training_step_seconds", "Mean seconds of the last steps", "student")
OF_EPOCH = {
    "epoch": Gauge("training_epoch", "Epochs done", "student"),
    "loss": Gauge("training_loss", "Mean loss since the epoch began", "student"),
    "best": Gauge("training_best", "Best validation metric so far", "student"),
    "ratio": Gauge("training_gradient_ratio", "Gradient of the distillation over that of the hard labels", "student"),
    "agreement": Gauge("training_agreement", "Share of validation targets with the teacher's label", "student"),
    "kl": Gauge("training_kl", "KL from teacher to student on validation, in nats at T = 1", "student"),
}
"""By their names in an epoch's metrics."""

TRIALS = Gauge("sweep_trials", "Trials by state", "state")
TRIALS_ASKED = Gauge("sweep_trials_asked", "Trials that the sweep has at most")
BEST = Gauge("sweep_best", "Best validation metric of a student's distilled trials, or its baseline", "student", "role")
EPOCHS = Counter("sweep_epochs", "Epochs that ended, of all trials")

ALL: list[Counter | Gauge] = [
    CACHE_ROWS, MISSING_ROWS, MISSING_SHARDS, COMPUTED_ROWS, COMPUTED_SHARDS, TEACHER_SECONDS, LEASED_AGAIN, ACTORS,
    TRAINED_ROWS, STEP, STEP_SECONDS, *OF_EPOCH.values(), TRIALS, TRIALS_ASKED, BEST, EPOCHS]


class Fill:
    """What is missing in a cache of `rows` while its missing rows and shards are computed."""

    def __init__(self, rows: int, missing_rows: int, missing_shards: int):
        self._rows, self._shards = missing_rows, missing_shards
        CACHE_ROWS.set(rows)
        self._tell()

    def computed(self, rows: int, seconds: float) -> None:
        """A shard of `rows` is in storage, a teacher having been busy with it for `seconds`."""
        COMPUTED_ROWS.add(rows)
        COMPUTED_SHARDS.add()
        TEACHER_SECONDS.add(seconds)
        self._rows, self._shards = self._rows - rows, self._shards - 1
        self._tell()

    def _tell(self) -> None:
        MISSING_ROWS.set(self._rows)
        MISSING_SHARDS.set(self._shards)


def tell_actors(up: int, waiting: int) -> None:
    """How many teacher actors there are."""
    ACTORS.set(up, state="up")
    ACTORS.set(waiting, state="waiting")


def tell_epoch(facts: dict[str, Any]) -> None:
    """An epoch of a student ended with the metrics `facts`."""
    for name, gauge in OF_EPOCH.items():
        if facts.get(name) is not None:
            gauge.set(facts[name])


class Steps:
    """Progress of a training process, shown as `shown` shows it and told as metrics."""

    def __init__(self, shown: Progress):
        self._shown, self._step, self._told = shown, 0, 0
        self._since = time.monotonic()
        STEP.set(0)

    def advance(self, count: int, **facts: float) -> None:
        """A step of `count` rows was taken."""
        self._shown.advance(count, **facts)
        self._step += 1
        if "loss" in facts:
            OF_EPOCH["loss"].set(facts["loss"])
        if time.monotonic() - self._since >= _EVERY:
            self._tell()

    def close(self) -> None:
        """The epoch's steps are taken."""
        self._shown.close()
        if self._step > self._told:
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        STEP.set(self._step)
        STEP_SECONDS.set((now - self._since) / (self._step - self._told))
        self._since, self._told = now, self._step


class Trained:
    """Counts the rows of a process in which trial after trial is trained; shows nothing."""

    def advance(self, count: int, **facts: float) -> None:
        """A step of `count` rows was taken."""
        TRAINED_ROWS.add(count)

    def close(self) -> None:
        """Nothing."""
