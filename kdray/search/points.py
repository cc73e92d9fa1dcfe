"""A search becomes plans: points that are known from the start, or sampled by what trials have told.

Knows nothing about Ray, nor which trial may know of which: a plan tells.
"""

import math
from typing import Any

import optuna
from optuna.trial import TrialState

from kdray.config import OF_DISTILLATION, PLAIN, Domain, SearchConfig, TrainingConfig
from kdray.search.describe import BASELINE
from kdray.search.plan import Plan, Points, Told, ahead
from kdray.search.space import choice_of, distributions, first_point, grid, point_of
from kdray.tasks import Task

_MOST_STARTUPS = 10
_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


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

    def __init__(self, search: SearchConfig, space: dict[str, Domain], training: TrainingConfig):
        sampler: optuna.samplers.BaseSampler = (
            optuna.samplers.RandomSampler(search.seed) if search.algorithm == "random"
            else optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=startups(search.trials)))
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._study.enqueue_trial(choice_of(space, first_point(space, training)))
        self._space, self._trials = space, search.trials
        self._distributions = distributions(space, training)
        self._asked: list[optuna.Trial] = []

    def __len__(self) -> int:
        return self._trials

    def propose(self) -> dict[str, Any]:
        """Optuna's next point."""
        trial = self._study.ask(self._distributions)
        self._asked.append(trial)
        return point_of(self._space, trial.params)

    def learn(self, place: int, told: Told) -> None:
        """Tells Optuna; a trial that was stopped counts with its last value, the more the more of its epochs it did."""
        trial = self._asked[place]
        for epoch, value in told.values.items():
            trial.report(value, 1000 * epoch // told.epochs)
        state = _STATES[told.state or "failed"]
        if state == TrialState.COMPLETE and not told.values:
            state = TrialState.FAIL
        last = list(told.values.values())[-1] if state == TrialState.COMPLETE else None
        self._study.tell(trial, last, state)


def make_plans(search: SearchConfig, training: TrainingConfig, task: Task = PLAIN) -> dict[str, Plan]:
    """The plans of a search by role: the student's distilled trials and, where there is something to search, baselines.

    That is what the space has of settings that a student feels without a teacher, such as lr: it is searched in the
    same way, else a winner would be compared with a baseline that nobody has tuned. Without labels it
    feels nothing: its one trial has its first weights.
    """
    space = search.searched(training, task)
    felt = {name: domain for name, domain in space.items()
            if task.labelled and name not in ("alpha", *OF_DISTILLATION)}
    plain = {"baseline": Plan(_points(search, felt, training), training, search.grace, BASELINE)} if felt else {}
    return {**plain, "distilled": Plan(_points(search, space, training), training, search.grace)}


def startups(trials: int) -> int:
    """Trials that TPE must know, of so many, before it proposes otherwise than at random."""
    return min(_MOST_STARTUPS, math.ceil(trials / 4))


def learns(search: SearchConfig) -> bool:
    """Whether TPE ever comes to propose something: the last trial knows all but those ahead of it."""
    return search.trials - ahead(search.trials) >= startups(search.trials)


def _points(search: SearchConfig, space: dict[str, Domain], training: TrainingConfig) -> Points:
    listed = search.algorithm == "grid" or not space
    return Listed(grid(space)) if listed else Sampled(search, space, training)
