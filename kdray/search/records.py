"""What the trials of a sweep tell becomes a file a trial in storage, from which a sweep that was killed goes on.

JSON alone: nothing that is read is run. Knows nothing about how trials are proposed or trained.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray import tune

from kdray.errors import StorageError
from kdray.search.describe import place_of
from kdray.storage import Store

_KEPT = ("epoch", "stage", "loss", "best", "agreement", "kl", "ratio")
"""What is kept of an epoch; all else is in the student's manifest, where there is one."""
_FOLDER, _SUFFIX = "trials", ".json"


Ended = Literal["finished", "stopped", "failed"]


@dataclass
class Record:
    """What a trial has told."""

    config: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    state: Ended | None = None
    """None where it is to go on."""
    error: str | None = None
    seconds: float = 0.0
    elapsed: float = 0.0
    """Seconds that the sweep had taken when this was written."""

    @property
    def best(self) -> float | None:
        """Validation metric of its best epoch."""
        return self.history[-1]["best"] if self.history else None

    def add(self, result: dict[str, Any]) -> None:
        """An epoch; one that was told before, and those after it, are told again."""
        before = [entry for entry in self.history if entry["epoch"] < result["epoch"]]
        kept = {name: result[name] for name in _KEPT if name in result}
        self.history = [*before, {name: value for name, value in kept.items() if value == value}]


class Records(tune.Callback):
    """The records of a sweep, by place, below its folder of the storage; those of a sweep that was killed are there."""

    def __init__(self, store: Store, sweep: tuple[str, ...]):
        """Raises StorageError where a file is no record."""
        self._store, self._folder = store, (*sweep, _FOLDER)
        names = [name for name in store.names(*self._folder) if name.endswith(_SUFFIX)]
        self.trials = {name.removesuffix(_SUFFIX): self._read(name) for name in names}
        self.elapsed = max((record.elapsed for record in self.trials.values()), default=0.0)
        """Seconds that the sweep took before."""
        self._started = time.monotonic()
        self._took = dict[str, float]()
        """Seconds that a trial took before it began again."""
        self._stopped = set[str]()
        self.trouble: Exception | None = None
        """Why something could not be written; Tune makes a text of it, or tries the trial again."""

    def keep(self, places: Iterable[str]) -> None:
        """Forgets all other trials."""
        self.trials = {place: self.trials[place] for place in places}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or begins again."""
        place = place_of(trial.config)
        record = self.trials.setdefault(place, Record(trial.config))
        record.error, self._took[place] = None, record.seconds
        self._write(place)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        """A trial reports an epoch, a fault, or that it is in mid-epoch. Tune has marked the result where it stops."""
        place = place_of(trial.config)
        record = self.trials[place]
        record.error = result.get("fault")
        record.seconds = self._took[place] + result["time_total_s"]
        if result.get("done"):
            self._stopped.add(place)
        if "epoch" in result:
            record.add(result)
            self._write(place)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial finished, was stopped, or reported a fault as its last."""
        place = place_of(trial.config)
        record = self.trials[place]
        record.state = "failed" if record.error else "stopped" if place in self._stopped else "finished"
        self._write(place)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good; when the sweep is run again, it gets another chance."""
        place = place_of(trial.config)
        self.trials.setdefault(place, Record(trial.config)).error = _last_line(trial)
        self._write(place)

    def _write(self, place: str) -> None:
        record = self.trials[place]
        record.elapsed = self.elapsed + time.monotonic() - self._started
        try:
            self._store.write(json.dumps(asdict(record)).encode(), *self._folder, place + _SUFFIX)
        except Exception as error:
            self.trouble = error
            raise

    def _read(self, name: str) -> Record:
        try:
            return Record(**json.loads(self._store.read(*self._folder, name)))
        except (ValueError, TypeError) as error:
            raise StorageError(f"{self._store.path(*self._folder, name)} is not the record of a trial ({error}). "
                               "Delete it and run again: students that are there are kept") from error


def _last_line(trial: Any) -> str:
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    return (text.strip() or "no cause was given").splitlines()[-1]
