"""Sweeps through kdray's own proposals, judgements, selection and comparison, with made-up numbers for trainings.

A world says how good students become; nothing is trained.
"""

from typing import Any, Protocol

import numpy as np
from scipy.special import expit, logit

from kdray.config import Domain, SearchConfig, TrainingConfig
from kdray.evaluation.comparison import paired
from kdray.search.describe import NAME, NUMBER, ROLE, TOTAL_EPOCHS, point_of
from kdray.search.plan import Plan
from kdray.search.points import Listed, make_plans
from kdray.search.proposals import Proposals
from kdray.search.selection import Rows, finalists, paired_points, pairs_of
from kdray.tasks import TASKS

TASK, LABELS = TASKS["sequence-classification"], ["wrong", "right"]
Point = dict[str, Any]


class World(Protocol):
    """What students become."""

    def train(self, student: str, point: Point, epochs: int) -> list[float]:
        """The best validation metric after each epoch of the student that is called so from now on."""


def sweep(search: SearchConfig, training: TrainingConfig, world: World) -> Rows:
    """The table of trials of a search."""
    return _run({("only", role): plan for role, plan in make_plans(search, training).items()}, world, "sweep")


def pairs(rows: Rows, training: TrainingConfig, seeds: int, world: World) -> Rows:
    """What `kdray.search.finalists` makes of a table of trials."""
    points = paired_points(finalists(rows), training.seed, seeds)
    plans = {("only", role): Plan(Listed(part), training) for role, part in points.items()}
    return pairs_of(_run(plans, world, "pair"))


def _run(plans: dict[tuple[str, str], Plan], world: World, when: str) -> Rows:
    proposals, rows = Proposals(lambda: plans), []
    while (config := proposals.suggest(str(len(rows)))) is not None:
        student = f"{when}-{config[ROLE]}-{config[NUMBER]}"
        trial, told = str(len(rows)), world.train(student, point_of(config), config[TOTAL_EPOCHS])
        done = next((epoch for epoch, value in enumerate(told, 1) if not proposals.goes_on(trial, epoch, value)), None)
        proposals.on_trial_complete(trial, {})
        rows.append({"name": config[NAME], "point": point_of(config), "baseline": config[ROLE] == "baseline",
                     "state": "finished" if done is None else "stopped", "best": told[(done or len(told)) - 1],
                     "epochs": done or len(told), "student": student if done is None else None, "error": None})
    return rows


class Level:
    """Students of which none is better than another but by chance: that of its seed, and that of the rows.

    With `apart`, distilled students and plain ones are right on other rows, but on as many.
    """

    def __init__(self, seed: int, rows: int = 1000, accuracy: float = 0.85, spread: float = 0.006, apart: float = 0.0):
        self._random, self._spread = np.random.default_rng(seed), spread
        ease = self._random.beta(accuracy, 1 - accuracy, (2, rows)).clip(1e-4, 1 - 1e-4)
        self._logits, self._apart = logit(ease), self._random.normal(0, apart, (2, rows))
        self._per_point = (ease * (1 - ease)).mean()
        self._right: dict[str, np.ndarray] = {}

    def train(self, student: str, point: Point, epochs: int) -> list[float]:
        """Accuracy on validation; what it answers on the test split is kept."""
        luck = self._random.normal(0, self._spread) / self._per_point
        side = -0.5 if point["alpha"] == 1 else 0.5
        shown, self._right[student] = self._random.random(self._logits.shape) < expit(
            self._logits + side * self._apart + luck)
        return [float(shown.mean()) - 0.02 * 0.5**epoch for epoch in range(1, epochs + 1)]

    def accuracy(self, student: str) -> float:
        """On the test split."""
        return float(self._right[student].mean())

    def compared(self, found: Rows) -> dict[str, Any]:
        """What an evaluation says of pairs on the test split, all rows of which have the label 1."""
        ids = {student: list(right.astype(int).reshape(-1, 1)) for student, right in self._right.items()}
        gold = list(np.ones((self._logits.shape[1], 1), int))
        return paired(TASK, "accuracy", gold, [(pair["seed"], ids[pair["winner"]], ids[pair["baseline"]])
                                               for pair in found], LABELS)


class Hill:
    """Students that are the better the nearer their settings are to a place within the space; `noise` of a trial."""

    def __init__(self, seed: int, space: dict[str, Domain], noise: float = 0.0):
        self._random, self._space, self._noise = np.random.default_rng(seed), space, noise
        self._top, self._steep = self._random.random(len(space)), self._random.uniform(0.3, 1, len(space))

    def quality(self, point: Point) -> float:
        """What a student with these settings is worth."""
        places = np.array([_share(domain, point[name]) for name, domain in self._space.items()])
        return 1 - float(self._steep @ (places - self._top)**2)

    def train(self, student: str, point: Point, epochs: int) -> list[float]:
        """Half of what is missing is learned in each epoch."""
        end = self.quality(point) + self._noise * self._random.normal()
        return [end - 0.5**epoch for epoch in range(1, epochs + 1)]


class Schedules:
    """Students that are the better the longer they train, most of it at the end of a schedule, where the rate falls."""

    def __init__(self, seed: int, noise: float = 0.003):
        self._random, self._noise = np.random.default_rng(seed), noise
        self._rate = self._random.uniform(-4, -3)
        """Common logarithm of the best rate."""

    def end(self, point: Point) -> float:
        """What a student with these settings is worth."""
        return float(0.9 - 0.1 / point["epochs"] - 0.02 * (np.log10(point["lr"]) - self._rate)**2)

    def train(self, student: str, point: Point, epochs: int) -> list[float]:
        """From 0.5, by how much of the schedule is done."""
        end = self.end(point) + self._noise * self._random.normal()
        return [float(end - (end - 0.5) * (1 - epoch / epochs)**1.5) for epoch in range(1, epochs + 1)]


def _share(domain: Domain, value: float) -> float:
    assert domain.min is not None and domain.max is not None
    scale = np.log if domain.log else np.asarray
    return float((scale(value) - scale(domain.min)) / (scale(domain.max) - scale(domain.min)))
