"""What trials tell becomes the next trial to try, and whether one goes on.

A plain state machine: knows nothing about Ray or training. Invariant: trial i is proposed from, and compared with, the
trials up to i - ahead alone, whatever else has ended by then. So what a sweep finds does not depend on how many of its
trials run side by side, and a plan that is fed what it was told before is the same again.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.trial import TrialState

from kdray.config import OF_DISTILLATION, SearchConfig, TrainingConfig, changed
from kdray.search.describe import BASELINE
from kdray.search.space import choice_of, distributions, first_point, grid, point_of

_LEAST_AHEAD = 4
_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass
class Told:
    """What a trial has told."""

    values: dict[int, float] = field(default_factory=dict)
    """Best validation metric by epoch, counted from 1."""
    state: str | None = None
    """finished, stopped or failed; None while it runs."""
    epochs: int = 0
    """Epochs that it is to take."""


class Points(Protocol):
    """Where points come from."""

    def __len__(self) -> int:
        """How many there are."""

    def propose(self) -> dict[str, Any]:
        """The next point."""

    def learn(self, place: int, told: Told) -> None:
        """How the point at `place`, from 0, has ended."""


class Listed:
    """Points that are known from the start."""

    def __init__(self, points: list[dict[str, Any]]):
        self._points, self._given = points, 0

    def __len__(self) -> int:
        return len(self._points)

    def propose(self) -> dict[str, Any]:
        """The next of the list."""
        self._given += 1
        return self._points[self._given - 1]

    def learn(self, place: int, told: Told) -> None:
        """Nothing to learn."""


class Sampled:
    """Points that Optuna samples: Tree-structured Parzen Estimator (Bergstra et al. 2011, NeurIPS) or uniformly."""

    def __init__(self, search: SearchConfig, training: TrainingConfig):
        sampler: optuna.samplers.BaseSampler = (
            optuna.samplers.RandomSampler(search.seed) if search.algorithm == "random"
            else optuna.samplers.TPESampler(seed=search.seed))
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._study.enqueue_trial(choice_of(search.space, first_point(search.space, training)))
        self._space, self._trials = search.space, search.trials
        self._distributions = distributions(search.space, training)
        self._asked: list[optuna.Trial] = []

    def __len__(self) -> int:
        return self._trials

    def propose(self) -> dict[str, Any]:
        """Optuna's next point."""
        trial = self._study.ask(self._distributions)
        self._asked.append(trial)
        return point_of(self._space, trial.params)

    def learn(self, place: int, told: Told) -> None:
        """Tells Optuna; a trial that was stopped counts with its last value."""
        trial = self._asked[place]
        for epoch, value in told.values.items():
            trial.report(value, epoch)
        state = _STATES[told.state or "failed"]
        if state == TrialState.COMPLETE and not told.values:
            state = TrialState.FAIL
        last = list(told.values.values())[-1] if state == TrialState.COMPLETE else None
        self._study.tell(trial, last, state)


class Plan:
    """The trials of one student that are compared with each other, numbered from 0."""

    def __init__(self, points: Points, training: TrainingConfig, grace: int | None = None,
                 fixed: dict[str, Any] | None = None):
        """`grace`: epochs after which a trial may be stopped; None stops none. `fixed` is part of every point."""
        self._points, self._training, self._grace, self._fixed = points, training, grace, fixed or {}
        self.ahead = max(_LEAST_AHEAD, math.ceil(len(points) / 4))
        self.told: list[Told] = []
        self._learned = 0

    def __len__(self) -> int:
        return len(self._points)

    @property
    def ready(self) -> bool:
        """Whether there is a next trial and all that it may know has ended."""
        known = self.told[:self._known(len(self.told))]
        return len(self.told) < len(self) and all(told.state for told in known)

    def propose(self) -> tuple[int, dict[str, Any]]:
        """The next trial's number and point. The plan must be `ready`."""
        number = len(self.told)
        while self._learned < self._known(number):
            self._points.learn(self._learned, self.told[self._learned])
            self._learned += 1
        point = {**self._fixed, **self._points.propose()}
        self.told.append(Told(epochs=changed(self._training, point).total_epochs))
        return number, point

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Takes a trial's best value at an epoch; False where it is to stop.

        Successive halving (ASHA, Li et al. 2020, MLSys, algorithm 2) with eta 2: at epochs grace, 2 * grace, 4 * grace
        and so on before its last, a trial below the median of those that it may know stops. The first never does.
        """
        mine = self.told[number]
        mine.values[epoch] = value
        if self._grace is None or epoch >= mine.epochs or not _is_rung(epoch, self._grace):
            return True
        known = [told.values[epoch] for told in self.told[:self._known(number)] if epoch in told.values]
        return not known or value >= float(np.median(known))

    def replay(self, told: list[Told]) -> None:
        """Makes a new plan what it was when its trials had told all this."""
        for one in told:
            number, _ = self.propose()
            self.told[number] = replace(one, epochs=self.told[number].epochs)

    def end(self, number: int, state: str) -> None:
        """A trial has finished, been stopped or failed."""
        self.told[number].state = state

    def _known(self, number: int) -> int:
        """How many of the first trials the trial `number` may know."""
        return max(0, number - self.ahead + 1)


def make_plans(search: SearchConfig, training: TrainingConfig) -> dict[str, Plan]:
    """The plans of a search by role: the student's baselines, and its distilled trials.

    What the space has of settings that a student feels without a teacher, such as lr, is searched for the baseline too,
    in the same way: else a winner would be compared with a baseline that nobody has tuned.
    """
    felt = {name: domain for name, domain in search.space.items() if name not in ("alpha", *OF_DISTILLATION)}
    alone = search.model_copy(update={"space": felt})
    return {"baseline": Plan(_points(alone, training), training, search.grace, BASELINE),
            "distilled": Plan(_points(search, training), training, search.grace)}


def _points(search: SearchConfig, training: TrainingConfig) -> Points:
    listed = search.algorithm == "grid" or not search.space
    return Listed(grid(search.space)) if listed else Sampled(search, training)


def _is_rung(epoch: int, grace: int) -> bool:
    return epoch % grace == 0 and (epoch // grace).bit_count() == 1
