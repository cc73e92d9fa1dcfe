"""The teacher answers where it is asked to, its failures stay its own, and thresholds keep what they promise."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from kdray.serving import advice, metrics
from kdray.serving.advice import Advice, choose_threshold
from kdray.serving.predictor import Prediction, RefusedError


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def student(confidence: float, label: str = "student") -> Prediction:
    return Prediction([{"label": label, "score": confidence}], [label], confidence)


def teacher(name: str) -> Prediction:
    return Prediction([{"label": name, "score": 1.0}], [name], 1.0)


async def nobody(*_: Any) -> Any:
    raise AssertionError("the teacher is asked")


async def broken(*_: Any) -> Any:
    raise RuntimeError("a text of a request")


def counted(why: str, outcome: str) -> float:
    return metrics.TEACHER.labels(why, outcome)._value.get()


def gained(why: str) -> Callable[[], dict[str, float]]:
    """What is counted from now on, by outcome."""
    outcomes = ("answered", "failed", "skipped", "agreed", "differed")
    before = {outcome: counted(why, outcome) for outcome in outcomes}
    return lambda: {outcome: more for outcome in outcomes if (more := counted(why, outcome) - before[outcome])}


def test_the_teacher_answers_the_unsure_ones_in_their_places():
    asked: list[tuple[list[Any], dict[str, Any]]] = []

    async def ask(inputs: list[Any], parameters: dict[str, Any]) -> list[Prediction | Exception]:
        asked.append((inputs, parameters))
        return [teacher(f"about {item}") for item in inputs]

    async def scenario() -> None:
        refused = RefusedError("inputs", "odd")
        predictions = [student(0.9), student(0.2), refused, student(0.5), student(0.49)]
        made = Advice(ask, nobody, 0.0)
        found = await made.cascade(list("abcde"), {"top_k": 1}, predictions, 0.5)
        assert asked == [(["b", "e"], {"top_k": 1})]
        assert found == [predictions[0], teacher("about b"), refused, predictions[3], teacher("about e")]
        assert predictions[1] == student(0.2)

    more = gained("cascade")
    run(scenario)
    assert more() == {"answered": 2}


def test_a_teacher_that_is_late_leaves_the_students_answers():
    async def late(*_: Any) -> Any:
        await asyncio.sleep(60)

    async def scenario() -> None:
        predictions: list[Any] = [student(0.1), student(0.9)]
        ends = asyncio.get_running_loop().time() + 0.05
        assert await Advice(late, nobody, 0.0).cascade(["a", "b"], {}, predictions, 0.5, ends) == predictions

    more = gained("cascade")
    run(scenario)
    assert more() == {"failed": 1}


@pytest.mark.parametrize("threshold, confidences", [(0.0, [0.0, 0.3]), (0.5, [0.5, 1.0]), (0.9, [])])
def test_a_sure_student_leaves_the_teacher_alone(threshold, confidences):
    async def scenario() -> None:
        predictions: list[Any] = [student(confidence) for confidence in confidences]
        found = await Advice(nobody, nobody, 0.0).cascade(["a"] * len(predictions), {}, predictions, threshold)
        assert found == predictions

    run(scenario)


def test_where_the_teacher_fails_the_students_answers_stay_and_no_text_is_logged(caplog):
    async def scenario() -> None:
        predictions = [student(0.1), student(0.9)]
        assert await Advice(broken, nobody, 0.0).cascade(["a", "b"], {}, predictions, 0.5) == predictions

    more = gained("cascade")
    run(scenario)
    assert more() == {"failed": 1}
    assert "RuntimeError" in caplog.text and "a text of a request" not in caplog.text


def test_what_the_teacher_cannot_answer_keeps_the_students_answer():
    async def ask(inputs: list[Any], parameters: dict[str, Any]) -> list[Prediction | Exception]:
        return [ValueError("odd"), teacher("sure")]

    async def scenario() -> None:
        found = await Advice(ask, nobody, 0.0).cascade(["a", "b"], {}, [student(0.1), student(0.2)], 0.5)
        assert found == [student(0.1), teacher("sure")]

    run(scenario)


@pytest.mark.parametrize("error", [asyncio.CancelledError, TimeoutError])
def test_a_deadline_while_the_teacher_thinks_ends_the_request_or_the_wait(error):
    async def ask(*_: Any) -> Any:
        raise error

    async def scenario() -> None:
        made = Advice(ask, nobody, 0.0)
        if error is asyncio.CancelledError:
            with pytest.raises(asyncio.CancelledError):
                await made.cascade(["a"], {}, [student(0.1)], 0.5)
        else:
            assert await made.cascade(["a"], {}, [student(0.1)], 0.5) == [student(0.1)]

    run(scenario)


class Shadow:
    """A teacher that notes what it is shown, and answers when it is let."""

    def __init__(self, agrees: list[bool] | None = None):
        self.shown: list[tuple[list[Any], list[list[str]]]] = []
        self.agrees, self.may_answer = agrees, asyncio.Event()

    async def compare(self, inputs: list[Any], labels: list[list[str]]) -> list[bool]:
        self.shown.append((inputs, labels))
        await self.may_answer.wait()
        return self.agrees or [True] * len(inputs)


async def settled(made: Advice) -> None:
    await asyncio.gather(*made._flying)
    await asyncio.sleep(0)


def test_the_shadow_counts_agreement_and_is_shown_only_what_the_student_answered():
    async def scenario() -> None:
        shadow = Shadow([True, False])
        made = Advice(nobody, shadow.compare, 1.0)
        made.observe(["a", "b", "c"], [student(0.9, "good"), RefusedError("inputs", "odd"), student(0.8, "bad")])
        shadow.may_answer.set()
        await settled(made)
        assert shadow.shown == [(["a", "c"], [["good"], ["bad"]])]
        assert not made._flying

    more = gained("shadow")
    run(scenario)
    assert more() == {"agreed": 1, "differed": 1}


@pytest.mark.parametrize("share, expected", [(0.0, 0), (1.0, 5), (0.25, 2)])
def test_the_shadow_sees_its_share_of_the_requests(monkeypatch, share, expected):
    draws = iter([0.0, 0.2, 0.25, 0.5, 0.999])
    monkeypatch.setattr(advice.random, "random", lambda: next(draws))

    async def scenario() -> None:
        shadow = Shadow()
        shadow.may_answer.set()
        made = Advice(nobody, shadow.compare, share)
        for _ in range(5):
            made.observe(["a"], [student(0.9)])
        await settled(made)
        assert len(shadow.shown) == expected

    run(scenario)


def test_a_teacher_that_lags_skips_requests_instead_of_piling_them_up():
    async def scenario() -> None:
        shadow = Shadow()
        made = Advice(nobody, shadow.compare, 1.0)
        for _ in range(20):
            made.observe(["a", "b"], [student(0.9), student(0.9)])
        assert len(made._flying) == 8
        shadow.may_answer.set()
        await settled(made)
        assert len(shadow.shown) == 8 and not made._flying
        made.observe(["a"], [student(0.9)])
        await settled(made)
        assert len(shadow.shown) == 9

    more = gained("shadow")
    run(scenario)
    assert more() == {"skipped": 24, "agreed": 17}


def test_a_shadow_that_fails_is_counted_and_no_text_is_logged(caplog):
    async def scenario() -> None:
        made = Advice(nobody, broken, 1.0)
        made.observe(["a", "b"], [student(0.9), student(0.9)])
        await settled(made)

    more = gained("shadow")
    run(scenario)
    assert more() == {"failed": 2}
    assert "RuntimeError" in caplog.text and "a text of a request" not in caplog.text


def right(*rows: int) -> np.ndarray:
    return np.array(rows, bool)


CONFIDENCE = np.array([0.9, 0.5, 0.7, 0.6, 0.99])
"""In rising order: rows 1, 3, 2, 0, 4."""


@pytest.mark.parametrize("student, teacher, quality, asked", [
    (right(1, 0, 1, 0, 1), right(1, 1, 1, 1, 1), 1.0, {1, 3}),
    (right(1, 0, 1, 0, 1), right(1, 1, 1, 1, 1), 0.8, {1}),
    (right(1, 0, 1, 0, 1), right(1, 1, 1, 1, 1), 0.6, set()),
    (right(1, 0, 1, 1, 0), right(1, 1, 1, 1, 1), 1.0, {0, 1, 2, 3, 4}),
    (right(1, 1, 1, 1, 1), right(0, 0, 1, 1, 1), 1.0, set()),
    (right(1, 1, 1, 1, 1), right(1, 1, 1, 1, 1), 1.0, set()),
    (right(0, 0, 0, 0, 0), right(0, 0, 0, 0, 0), 1.0, set()),
    (right(0, 0, 0, 0, 0), right(1, 1, 1, 1, 1), 1.0, {0, 1, 2, 3, 4}),
    (right(0, 0, 0, 0, 0), right(1, 0, 0, 0, 0), 1.0, {0, 1, 2, 3}),
    (right(0, 1, 0, 1, 1), right(1, 0, 1, 0, 1), 1.0, set()),
    (right(0, 1, 0, 0, 1), right(1, 0, 1, 1, 1), 0.75, {1, 2, 3}),
])
def test_the_teacher_is_asked_about_as_few_rows_as_the_quality_needs(student, teacher, quality, asked):
    least = choose_threshold(CONFIDENCE, student, teacher, quality)
    below = least > CONFIDENCE
    assert {int(row) for row in np.flatnonzero(below)} == asked
    assert np.where(below, teacher, student).sum() >= quality * teacher.sum()


def test_rows_of_one_confidence_go_together_and_the_promise_still_holds():
    confidence = np.array([0.5, 0.5, 0.5, 0.9])
    student, teacher = right(0, 1, 0, 1), right(1, 0, 1, 1)
    least = choose_threshold(confidence, student, teacher, 1.0)
    together = np.where(confidence < least, teacher, student)
    assert together.sum() >= teacher.sum()


@pytest.mark.parametrize("seed", range(20))
def test_the_promise_holds_on_any_validation_split(seed):
    chance = np.random.default_rng(seed)
    rows = int(chance.integers(1, 60))
    confidence = chance.choice([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], rows)
    student, teacher = chance.random(rows) < 0.6, chance.random(rows) < 0.8
    for quality in (0.5, 0.9, 1.0):
        least = choose_threshold(confidence, student, teacher, quality)
        assert np.where(confidence < least, teacher, student).sum() >= quality * teacher.sum()


def test_a_split_without_rows_asks_nobody():
    assert choose_threshold(np.empty(0), right(), right(), 1.0) == 0.0


def test_a_sure_student_that_is_wrong_is_below_the_threshold_too():
    least = choose_threshold(np.array([1.0, 1.0]), right(0, 0), right(1, 1), 1.0)
    assert least > 1.0
