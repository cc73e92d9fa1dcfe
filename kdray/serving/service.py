"""Inputs to a name become predictions, within a deadline: what all protocols have in common.

Knows nothing about HTTP.
"""

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from kdray.serving import metrics
from kdray.serving.advice import Advice
from kdray.serving.batcher import FullError
from kdray.serving.predictor import Prediction, RefusedError
from kdray.serving.protocol import FULL, Limits, Refusal, complaint
from kdray.serving.roster import DEFAULT, Roster, Student

logger = logging.getLogger("kdray")

_STUCK_SECONDS = 5.0
TEACHER = "teacher"
Predictions = list[Prediction | Exception]


@dataclass(frozen=True)
class Answers:
    """What was said of each input, and by what."""

    predictions: Predictions
    package: str
    """Its key; TEACHER where that was asked."""


class Service:
    """The students of a replica, and the rules that requests to them obey. Belongs to one event loop."""

    def __init__(self, roster: Roster, limits: Limits, deadline: float, advice: Advice | None = None):
        """`deadline`: seconds after which a request is given up; `advice`: the teacher of the default student."""
        self.roster, self.limits, self.deadline, self._advice = roster, limits, deadline, advice
        self.thresholds: dict[str, float] = {}
        """Confidence below which the teacher answers, by package."""

    @property
    def stuck(self) -> bool:
        """Whether a model is: a batch runs for over half of the deadline, and over 5 s. It does not come back."""
        return self.roster.running_for > max(_STUCK_SECONDS, self.deadline / 2)

    async def ask(self, name: str, inputs: list[Any], parameters: dict[str, Any]) -> Answers:
        """The prediction of each input, or what is wrong with it.

        Raises Refusal: 404 where nothing has that name, 503 where there is no room, 504 after the deadline.
        """
        self._must_have(name)
        ends = asyncio.get_running_loop().time() + self.deadline
        try:
            with self.roster.using(name) as student:
                async with asyncio.timeout_at(ends):
                    predictions = await student.batcher.submit([(item, parameters) for item in inputs])
        except FullError:
            raise Refusal(503, FULL, retry=1) from None
        except TimeoutError:
            raise Refusal(504, f"no answer within {self.deadline:g} s") from None
        finally:
            metrics.QUEUE.set(self.roster.waiting)
        better = await self._advised(name, student, inputs, parameters, predictions, ends)
        return Answers(better, student.manifest["key"])

    async def bulk(self, name: str, inputs: list[Any],
                   parameters: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """`{"answer": ...}` or `{"error": ...}` of each input in order, some at a time: what is wrong fails alone.

        Waits for room, and has no deadline: it goes on while somebody reads. Raises Refusal (404).
        """
        self._must_have(name)
        found = [{"error": wrong[1]} if (wrong := complaint(item, self.limits)) else None for item in inputs]
        places = iter([place for place, one in enumerate(found) if one is None])
        sound = [item for item, one in zip(inputs, found, strict=True) if one is None]
        told = done = 0
        with self.roster.using(name) as student:
            async with aclosing(student.batcher.stream([(item, parameters) for item in sound])) as parts:
                async for predictions in parts:
                    ends = asyncio.get_running_loop().time() + self.deadline
                    part, done = sound[done:done + len(predictions)], done + len(predictions)
                    for one in await self._advised(name, student, part, parameters, predictions, ends):
                        found[next(places)] = _told(one)
                    ready = next((place for place in range(told, len(found)) if found[place] is None), len(found))
                    yield found[told:ready]  # type: ignore[misc]  # none of these is None
                    told = ready
        yield found[told:]  # type: ignore[misc]

    async def ask_teacher(self, inputs: list[Any], parameters: dict[str, Any]) -> Answers:
        """The teacher's prediction of each input. Raises Refusal: 404 without a teacher, 503, 504."""
        if self._advice is None:
            raise Refusal(404, "no teacher is served: start the service with serve.teacher")
        try:
            async with asyncio.timeout(self.deadline):
                return Answers(await self._advice.ask(inputs, parameters), TEACHER)
        except TimeoutError:
            raise Refusal(504, f"no answer within {self.deadline:g} s") from None
        except Exception as error:
            log_bug(error)
            raise Refusal(503, "the teacher does not answer", retry=1) from None

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher is served too."""
        return self._advice is not None

    def manifests(self, name: str) -> list[dict[str, Any]]:
        """Manifests of the packages that `name` serves, that which answers most first. Raises Refusal (404)."""
        self._must_have(name)
        return self.roster.manifests(name)

    async def _advised(self, name: str, student: Student, inputs: list[Any], parameters: dict[str, Any],
                       predictions: Predictions, ends: float) -> Predictions:
        """The student's predictions, counted, and the teacher's where there is one that knows better."""
        _count(student.manifest["key"], predictions)
        if self._advice is None or name != DEFAULT:
            return predictions
        self._advice.observe(inputs, predictions)
        threshold = self.thresholds.get(student.uri, 0.0)
        return await self._advice.cascade(inputs, parameters, predictions, threshold, ends)

    def _must_have(self, name: str) -> None:
        if name not in self.roster.slots:
            raise Refusal(404, f"no student is named {name[:50]!r}; there are {', '.join(self.roster.slots)}")


def log_bug(error: BaseException) -> None:
    """Logs where a bug is. Its message may hold a request's text, so it is left out."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("a request failed with %s\n%s", type(error).__name__, frames)


def _told(prediction: Prediction | Exception) -> dict[str, Any]:
    if isinstance(prediction, RefusedError):
        return {"error": str(prediction)}
    if isinstance(prediction, Exception):
        log_bug(prediction)
        return {"error": "internal error"}
    return {"answer": prediction.answer}


def _count(student: str, predictions: Predictions) -> None:
    found = [one for one in predictions if isinstance(one, Prediction)]
    confidence = metrics.CONFIDENCE.labels(student)
    for one in found:
        confidence.observe(one.confidence)
    for label, count in Counter(label for one in found for said in one.said for label in _names(said)).items():
        metrics.LABELS.labels(student, label).inc(count)


def _names(said: Any) -> list[str]:
    """The labels in what was said of a target: one, several, or none in a number."""
    return [name for name in (said if isinstance(said, list) else [said]) if isinstance(name, str)]
