"""Plans of several students become Tune's searcher and scheduler. Knows nothing about how a trial is trained."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdray.search.describe import NAME, NUMBER, ROLE, TOTAL_EPOCHS, place_of
from kdray.search.plan import Plan
from kdray.search.records import Record

Whose = tuple[str, str]
"""A student's name and a role, `baseline` or `distilled`."""
METRIC = "best"
"""Tune's name of a trial's best validation metric so far."""


class Proposals(Searcher):
    """Tune's view of the plans: of those that are ready, the one with the fewest trials proposes."""

    def __init__(self, make: Callable[[], dict[Whose, Plan]]):
        """`make`: new plans."""
        super().__init__(metric=METRIC, mode="max")
        self._plans = make()
        self._trials: dict[str, tuple[Whose, int]] = {}
        self._waiting: list[dict[str, Any]] = []
        """Configurations of trials that were proposed and have not begun."""
        self.total = sum(map(len, self._plans.values()))

    def resume(self, records: dict[str, Record]) -> list[str]:
        """Makes new plans what they were when their trials had told what is recorded, by place.

        Returns the places of these trials; those that are to go on are suggested first. Where a plan proposes another
        point than is recorded, as with another version of Optuna, the record and what came after it is none of its.
        """
        places = [place for whose in self._plans for place in self._replay(whose, records)]
        self._waiting.sort(key=lambda config: place_of(config) not in places)
        return places

    def _replay(self, whose: Whose, records: dict[str, Record]) -> Iterator[str]:
        plan = self._plans[whose]
        while plan.ready:
            config = self._propose(whose)
            place, number = place_of(config), config[NUMBER] - 1
            record = records.get(place)
            if record is None or record.config != config:
                self._waiting.append(config)
                return
            yield place
            for entry in record.history:
                plan.goes_on(number, entry["epoch"], entry[METRIC])
            if record.state:
                plan.end(number, record.state)
            else:
                self._waiting.append(config)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial's configuration; None where every next one waits for what runs."""
        ready = {whose: plan for whose, plan in self._plans.items() if plan.ready}
        if self._waiting:
            config = self._waiting.pop(0)
        elif ready:
            config = self._propose(min(ready, key=lambda whose: len(ready[whose].told)))
        else:
            return None
        self._trials[trial_id] = (config[NAME], config[ROLE]), config[NUMBER] - 1
        return config

    def _propose(self, whose: Whose) -> dict[str, Any]:
        plan, (name, role) = self._plans[whose], whose
        number, point = plan.propose()
        return {NAME: name, ROLE: role, NUMBER: number + 1, TOTAL_EPOCHS: plan.told[number].epochs, **point}

    def goes_on(self, trial_id: str, epoch: int, value: float) -> bool:
        """Whether a trial goes on after an epoch."""
        whose, number = self._trials[trial_id]
        on = self._plans[whose].goes_on(number, epoch, value)
        if not on:
            self._plans[whose].end(number, "stopped")
        return on

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the trial's plan."""
        whose, number = self._trials[trial_id]
        if self._plans[whose].told[number].state is None:
            self._plans[whose].end(number, "failed" if error or "fault" in (result or {}) else "finished")

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a file: what trials have told is in their records."""
        Path(checkpoint_path).touch()


class Halving(FIFOScheduler):
    """Stops the trials that their plan stops."""

    def __init__(self, proposals: Proposals):
        super().__init__()
        self._proposals = proposals

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The plan's decision after an epoch."""
        if "epoch" not in result or self._proposals.goes_on(trial.trial_id, result["epoch"], result[METRIC]):
            return TrialScheduler.CONTINUE
        return TrialScheduler.STOP
