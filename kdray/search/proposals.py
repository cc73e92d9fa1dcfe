"""Plans of several students become Tune's searcher and scheduler. Knows nothing about how a trial is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdray.search.describe import NAME, NUMBER, ROLE, TOTAL_EPOCHS
from kdray.search.plan import Plan, Told

Whose = tuple[str, str]
"""A student's name and a role, `baseline` or `distilled`."""
METRIC = "best"
"""Tune's name of a trial's best validation metric so far."""


class Proposals(Searcher):
    """Tune's view of the plans: of those that are ready, the one with the fewest trials proposes.

    Its state is what trials have told: plans that hear it again are the same.
    """

    def __init__(self, make: Callable[[], dict[Whose, Plan]]):
        """`make`: new plans."""
        super().__init__(metric=METRIC, mode="max")
        self._make, self._plans = make, make()
        self._trials: dict[str, tuple[Whose, int]] = {}
        self.total = sum(map(len, self._plans.values()))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial's configuration; None where every next one waits for what runs."""
        ready = {whose: plan for whose, plan in self._plans.items() if plan.ready}
        if not ready:
            return None
        whose = min(ready, key=lambda whose: len(ready[whose].told))
        plan, (name, role) = ready[whose], whose
        number, point = plan.propose()
        self._trials[trial_id] = whose, number
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
        """Writes what the trials have told."""
        told = [(whose, [{"values": list(one.values.items()), "state": one.state} for one in plan.told])
                for whose, plan in self._plans.items()]
        Path(checkpoint_path).write_text(json.dumps({"told": told, "trials": self._trials}))

    def restore(self, checkpoint_path: str) -> None:
        """Makes the plans what they were."""
        state = json.loads(Path(checkpoint_path).read_text())
        self._plans = self._make()
        for (name, role), trials in state["told"]:
            self._plans[name, role].replay([Told(dict(one["values"]), one["state"]) for one in trials])
        self._trials = {trial: ((name, role), number) for trial, ((name, role), number) in state["trials"].items()}


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
