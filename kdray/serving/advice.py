"""Predictions of a student and a teacher beside it become better ones, or a measure of how well they agree.

Cascade: the student answers where it is sure, the teacher where it is not. Shadow: a share of the requests goes to the
teacher too, off the request's path. Knows nothing about Ray or HTTP: the teacher is whatever can be awaited.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from kdray.serving import metrics
from kdray.serving.predictor import Prediction

logger = logging.getLogger("kdray")

Ask = Callable[[list[Any], dict[str, Any]], Awaitable[list[Prediction | Exception]]]
"""Inputs and parameters to the teacher's predictions."""
Compare = Callable[[list[Any], list[list[Any]]], Awaitable[list[bool]]]
"""Inputs and what the student said of each to whether the teacher says the same."""
_FLYING = 8
"""Requests that may be in the teacher's shadow queue; the others are not looked at."""


class Advice:
    """What a replica does with its teacher. Belongs to one event loop."""

    def __init__(self, ask: Ask, compare: Compare, shadow: float):
        """`shadow`: share of the requests that the teacher sees too."""
        self.ask, self._compare, self._shadow = ask, compare, shadow
        self._flying: set[asyncio.Task[None]] = set()

    async def cascade(self, inputs: list[Any], parameters: dict[str, Any], predictions: list[Prediction | Exception],
                      threshold: float, ends: float | None = None) -> list[Prediction | Exception]:
        """The predictions, the teacher's where the student is less sure than `threshold`.

        The student's stay where the teacher does not answer, or not before the event loop's time `ends`.
        """
        unsure = [place for place, one in enumerate(predictions)
                  if isinstance(one, Prediction) and one.confidence < threshold]
        if not unsure:
            return predictions
        try:
            async with asyncio.timeout_at(ends):
                found = await self.ask([inputs[place] for place in unsure], parameters)
        except Exception as error:
            _count("cascade", "failed", len(unsure))
            logger.warning("the teacher does not answer (%s): the student's answers stay", type(error).__name__)
            return predictions
        _count("cascade", "answered", len(unsure))
        better = list(predictions)
        for place, one in zip(unsure, found, strict=True):
            if isinstance(one, Prediction):
                better[place] = one
        return better

    def observe(self, inputs: list[Any], predictions: list[Prediction | Exception]) -> None:
        """Lets the teacher see a share of the requests, later."""
        if random.random() >= self._shadow:
            return
        pairs = [(item, one.said) for item, one in zip(inputs, predictions, strict=True)
                 if isinstance(one, Prediction)]
        if len(self._flying) >= _FLYING:
            _count("shadow", "skipped", len(pairs))
            return
        task = asyncio.create_task(self._look(pairs))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _look(self, pairs: list[tuple[Any, list[Any]]]) -> None:
        try:
            agrees = await self._compare([item for item, _ in pairs], [said for _, said in pairs])
        except Exception as error:
            _count("shadow", "failed", len(pairs))
            logger.warning("the teacher does not answer (%s)", type(error).__name__)
            return
        _count("shadow", "agreed", sum(agrees))
        _count("shadow", "differed", len(agrees) - sum(agrees))


def choose_threshold(confidence: np.ndarray, student: np.ndarray, teacher: np.ndarray, quality: float) -> float:
    """The least confidence below which the teacher must answer for `quality` times the teacher's right rows.

    `confidence` (rows,) is the student's; `student` and `teacher` (rows,) say which rows each has right.
    """
    order = np.argsort(confidence, kind="stable")
    gained = np.concatenate([[0], np.cumsum(teacher[order].astype(int) - student[order].astype(int))])
    apart = np.concatenate([[True], np.diff(confidence[order]) > 0, [True]])[:len(gained)]
    enough = np.flatnonzero(apart & (student.sum() + gained >= quality * teacher.sum()))
    asked = int(enough[0]) if len(enough) else len(order)
    return float(np.nextafter(confidence[order[asked - 1]], 2)) if asked else 0.0


def _count(why: str, outcome: str, inputs: int) -> None:
    metrics.TEACHER.labels(why, outcome).inc(inputs)
