"""Inputs to a name become predictions, within a deadline: what all protocols have in common.

Knows nothing about HTTP.
"""

import asyncio
import logging
import traceback
from collections import Counter
from typing import Any

from kdray.serving import metrics
from kdray.serving.advice import Advice
from kdray.serving.batcher import FullError
from kdray.serving.predictor import Prediction, RefusedError
from kdray.serving.protocol import FULL, Limits, Refusal, complaint
from kdray.serving.roster import DEFAULT, Roster

logger = logging.getLogger("kdray")


class Service:
    """The students of a replica, and the rules that requests to them obey. Belongs to one event loop."""

    def __init__(self, roster: Roster, limits: Limits, deadline: float, advice: Advice | None = None):
        """`deadline`: seconds after which a request is given up; `advice`: the teacher of the default student."""
        self.roster, self.limits, self.deadline, self._advice = roster, limits, deadline, advice
        self.thresholds: dict[str, float] = {}
        """Confidence below which the teacher answers, by package."""

    async def ask(self, name: str, inputs: list[Any], parameters: dict[str, Any]) -> list[Prediction | Exception]:
        """The prediction of each input, or what is wrong with it.

        Raises Refusal: 404 where nothing has that name, 503 where the queue is full, 504 after the deadline.
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
        _count(student.manifest["key"], predictions)
        if self._advice is None or name != DEFAULT:
            return predictions
        self._advice.observe(inputs, predictions)
        threshold = self.thresholds.get(student.uri, 0.0)
        return await self._advice.cascade(inputs, parameters, predictions, threshold, ends)

    async def ask_teacher(self, inputs: list[Any], parameters: dict[str, Any]) -> list[Prediction | Exception]:
        """The teacher's prediction of each input. Raises Refusal: 404 without a teacher, 503, 504."""
        if self._advice is None:
            raise Refusal(404, "no teacher is served: start the service with serve.teacher")
        try:
            async with asyncio.timeout(self.deadline):
                return await self._advice.ask(inputs, parameters)
        except TimeoutError:
            raise Refusal(504, f"no answer within {self.deadline:g} s") from None
        except Exception as error:
            log_bug(error)
            raise Refusal(503, "the teacher does not answer", retry=1) from None

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher is served too."""
        return self._advice is not None

    async def each(self, name: str, inputs: list[Any], parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """`{"answer": ...}` or `{"error": ...}` of each input: what cannot be answered fails alone.

        Raises Refusal as `ask` does.
        """
        problems = {place: found[1] for place, item in enumerate(inputs) if (found := complaint(item, self.limits))}
        sound = [item for place, item in enumerate(inputs) if place not in problems]
        predictions = iter(await self.ask(name, sound, parameters))
        return [{"error": problems[place]} if place in problems else _told(next(predictions))
                for place in range(len(inputs))]

    def manifest(self, name: str) -> dict[str, Any]:
        """Manifest of what `name` serves. Raises Refusal (404)."""
        self._must_have(name)
        return self.roster.manifest(name)

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


def _count(student: str, predictions: list[Prediction | Exception]) -> None:
    found = [one for one in predictions if isinstance(one, Prediction)]
    confidence = metrics.CONFIDENCE.labels(student)
    for one in found:
        confidence.observe(one.confidence)
    for label, count in Counter(label for one in found for label in one.labels).items():
        metrics.LABELS.labels(student, label).inc(count)
