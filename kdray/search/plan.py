"""What trials tell becomes the next trial to try, and whether one goes on.

A plain state machine: knows nothing about Ray or training, nor where points come from. Invariant: trial i is proposed
from, and compared with, the trials up to i - ahead alone, whatever else has ended by then. So what a sweep finds does
not depend on how many of its trials run side by side, and a plan that is fed what it was told before is the same again.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from kdray.config import TrainingConfig, changed

_LEAST_AHEAD = 4


@dataclass
class Told:
    """What a trial has told."""

    values: dict[int, float] = field(default_factory=dict)
    """Best validation metric by epoch, counted from 1."""
    state: str | None = None
    """finished, stopped or failed; None while it runs."""
    epochs: int = 0
    """Epochs that it is to take."""

    def after(self, epoch: int, epochs: int) -> float | None:
        """Its value when `epoch` / `epochs` of its own were done, rounded down; None where it did not come so far.

        One that finished early, by its patience, stays where it was.
        """
        place = epoch * self.epochs // epochs
        if self.state == "finished":
            place = min(place, max(self.values, default=0))
        return self.values.get(place)


class Points(Protocol):
    """Where points come from."""

    def __len__(self) -> int:
        """How many there are."""

    def propose(self) -> dict[str, Any]:
        """The next point."""

    def learn(self, place: int, told: Told) -> None:
        """How the point at `place`, from 0, has ended."""


class Plan:
    """The trials of one student that are compared with each other, numbered from 0."""

    def __init__(self, points: Points, training: TrainingConfig, grace: int | None = None,
                 fixed: dict[str, Any] | None = None):
        """`grace`: epochs after which a trial may be stopped; None stops none. `fixed` is part of every point."""
        self._points, self._training, self._grace, self._fixed = points, training, grace, fixed or {}
        self.ahead = ahead(len(points))
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
        Trials are compared after equal shares of their epochs: rates fall with the share that is done, so an epoch of a
        long schedule says nothing beside the end of a short one.
        """
        mine = self.told[number]
        mine.values[epoch] = value
        if self._grace is None or epoch >= mine.epochs or not _is_rung(epoch, self._grace):
            return True
        told = [one.after(epoch, mine.epochs) for one in self.told[:self._known(number)]]
        known = [value for value in told if value is not None]
        return not known or value >= float(np.median(known))

    def end(self, number: int, state: str) -> None:
        """A trial has finished, been stopped or failed."""
        self.told[number].state = state

    def _known(self, number: int) -> int:
        """How many of the first trials the trial `number` may know."""
        return max(0, number - self.ahead + 1)


def ahead(trials: int) -> int:
    """How many of so many trials may run side by side: the next one waits for the first of them."""
    return max(_LEAST_AHEAD, math.ceil(trials / 4))


def _is_rung(epoch: int, grace: int) -> bool:
    return epoch % grace == 0 and (epoch // grace).bit_count() == 1
