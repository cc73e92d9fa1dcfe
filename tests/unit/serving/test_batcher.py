"""The batcher collects while busy, starts at once while idle, and keeps one item's trouble from the others.

No test sleeps: a gate in the worker thread says when a batch has begun and when it may end.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kdray.serving.batcher import Batcher, FullError


class Gate:
    """Doubles its items, one batch at a time, each when it is let through."""

    def __init__(self):
        self.batches: list[list[int]] = []
        self.threads: set[threading.Thread] = set()
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        self.threads.add(threading.current_thread())
        self.began.release()
        assert self.may_end.acquire(timeout=10)
        return [ValueError(f"{item} is negative") if item < 0 else 2 * item for item in items]

    async def wait_for_batch(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, timeout=10)

    def let_through(self, batches: int = 1) -> None:
        self.may_end.release(batches)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def batcher_of(run: Callable[[list[int]], list[int | Exception]], max_items: int, max_queue: int = 100) -> Batcher:
    return Batcher(run, lambda item: 1, max_items, max_queue)


async def one(batcher: Batcher[int, int], item: int) -> int:
    """The answer to a call of one item; raises the item's exception."""
    (answer,) = await batcher.submit([item])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def submitted(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    """Tasks that have queued their items."""
    tasks = [asyncio.create_task(one(batcher, item)) for item in items]
    await asyncio.sleep(0)
    return tasks


def test_an_idle_model_starts_at_once_with_one_item():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 8)
        task = asyncio.create_task(one(batcher, 1))
        await gate.wait_for_batch()
        assert gate.batches == [[1]]
        gate.let_through()
        assert await task == 2
        await batcher.close()

    run(scenario)


def test_what_arrives_while_busy_is_the_next_batch():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 8)
        first = await submitted(batcher, 1)
        await gate.wait_for_batch()
        later = await submitted(batcher, 2, 3, 4, 5)
        assert gate.batches == [[1]]
        gate.let_through(2)
        assert await asyncio.gather(*first, *later) == [2, 4, 6, 8, 10]
        assert gate.batches == [[1], [2, 3, 4, 5]]
        await batcher.close()

    run(scenario)


def test_a_batch_has_at_most_max_items_and_the_oldest_go_first():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 2)
        tasks = await submitted(batcher, 1, 2, 3, 4, 5)
        gate.let_through(3)
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
        assert gate.batches == [[1, 2], [3, 4], [5]]
        await batcher.close()

    run(scenario)


def test_batches_run_one_at_a_time_in_one_thread_beside_the_event_loop():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 1)
        tasks = await submitted(batcher, 1, 2)
        await gate.wait_for_batch()
        assert len(gate.batches) == 1
        gate.let_through(2)
        await asyncio.gather(*tasks)
        assert len(gate.threads) == 1 and threading.current_thread().name not in gate.threads
        await batcher.close()

    run(scenario)


def test_an_exception_in_an_items_place_is_raised_to_its_submitter_alone():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 8)
        tasks = await submitted(batcher, 1, -1, 2)
        gate.let_through()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[0] == 2 and answers[2] == 4
        assert isinstance(answers[1], ValueError) and str(answers[1]) == "-1 is negative"
        await batcher.close()

    run(scenario)


def test_a_cancelled_submitter_that_waits_is_left_out_of_the_batch():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 2)
        first = await submitted(batcher, 1)
        await gate.wait_for_batch()
        gone, *stay = await submitted(batcher, 2, 3, 4)
        gone.cancel()
        await asyncio.wait([gone])
        gate.let_through(2)
        assert await asyncio.gather(*first, *stay) == [2, 6, 8]
        assert gate.batches == [[1], [3, 4]]
        await batcher.close()

    run(scenario)


def test_a_submitter_cancelled_while_its_batch_runs_does_not_hurt_the_others():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 8)
        gone, stays = await submitted(batcher, 1, 2)
        await gate.wait_for_batch()
        gone.cancel()
        await asyncio.wait([gone])
        (later,) = await submitted(batcher, 3)
        gate.let_through(2)
        assert gone.cancelled() and await stays == 4 and await later == 6
        await batcher.close()

    run(scenario)


class Panic(BaseException):
    """As Rust's panics come to Python: no Exception."""


def panic(items: list[int]) -> list[int]:
    raise Panic("index out of bounds")


@pytest.mark.parametrize("broken, error", [(lambda items: 1 / 0, ZeroDivisionError),
                                           (lambda items: [], RuntimeError), (panic, RuntimeError)])
def test_of_a_batch_that_fails_only_the_item_to_blame_fails_and_the_next_one_runs(broken, error):
    async def scenario() -> None:
        batcher = batcher_of(lambda items: broken(items) if 1 in items else items, 2)
        tasks = await submitted(batcher, 1, 2, 3)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [error, int, int]
        assert await one(batcher, 4) == 4
        await batcher.close()

    run(scenario)


def test_a_batch_is_bounded_by_cost_and_one_item_that_costs_more_is_alone():
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, lambda item: item, 10, 100)
        call = asyncio.create_task(batcher.submit([4, 6, 1, 50, 9]))
        gate.let_through(4)
        assert await call == [8, 12, 2, 100, 18]
        assert gate.batches == [[4, 6], [1], [50], [9]]
        await batcher.close()

    run(scenario)


def test_a_call_gets_its_answers_in_order_though_they_come_in_several_batches():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 2)
        call = asyncio.create_task(batcher.submit([1, -1, 3]))
        gate.let_through(2)
        first, second, third = await call
        assert (first, third) == (2, 6) and isinstance(second, ValueError)
        assert await batcher.submit([]) == []
        await batcher.close()

    run(scenario)


def test_a_full_queue_refuses_a_call_at_once_and_takes_one_again_when_a_place_is_free():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 4, max_queue=3)
        tasks = await submitted(batcher, 1)
        await gate.wait_for_batch()
        tasks += await submitted(batcher, 2, 3)
        assert (batcher.waiting, batcher.backlog) == (2, 2)
        with pytest.raises(FullError):
            await batcher.submit([4])
        gate.let_through(2)
        assert await asyncio.gather(*tasks) == [2, 4, 6]
        gate.let_through()
        assert await one(batcher, 5) == 10
        await batcher.close()

    run(scenario)


def test_whoever_hangs_up_frees_its_place_whether_it_waits_or_runs():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 4, max_queue=3)
        gone = await submitted(batcher, 1)
        await gate.wait_for_batch()
        gone += await submitted(batcher, 2, 3)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        assert (batcher.waiting, batcher.backlog) == (0, 0)
        stay = await submitted(batcher, 4, 5, 6)
        gate.let_through(2)
        assert await asyncio.gather(*stay) == [8, 10, 12]
        assert gate.batches == [[1], [4, 5, 6]]
        await batcher.close()

    run(scenario)


def test_a_stream_tells_answers_in_order_as_they_come():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 2)
        stream = batcher.stream([1, 2, -3, 4, 5])
        gate.let_through()
        assert await anext(stream) == [2, 4]
        gate.let_through()
        (error, eight) = await anext(stream)
        assert isinstance(error, ValueError) and eight == 8
        gate.let_through()
        assert [part async for part in stream] == [[10]]
        assert [part async for part in batcher.stream([])] == []
        await batcher.close()

    run(scenario)


def test_a_stream_that_is_read_slowly_loses_nothing():
    async def scenario() -> None:
        batcher = batcher_of(lambda items: items, 2)
        found: list[int] = []
        async for part in batcher.stream(list(range(20))):
            found += part
            await asyncio.sleep(0.001)
        assert found == list(range(20))
        await batcher.close()

    run(scenario)


def test_what_a_closed_stream_waits_for_is_dropped():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 2)
        stream = batcher.stream([1, 2, 3, 4])
        gate.let_through(2)
        assert await anext(stream) == [2, 4]
        await gate.wait_for_batch()
        await stream.aclose()
        assert batcher.waiting == 0
        await batcher.close()
        assert 3 not in gate.batches[0]

    run(scenario)


def test_a_model_that_is_at_work_says_since_when():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 2)
        assert batcher.running_for == 0
        (task,) = await submitted(batcher, 1)
        await gate.wait_for_batch()
        assert batcher.running_for > 0
        gate.let_through()
        assert await task == 2 and batcher.running_for == 0
        await batcher.close()

    run(scenario)


def test_sizes_costs_and_times_of_batches_are_told():
    async def scenario() -> None:
        told: list[tuple[int, int, float]] = []
        batcher = Batcher(lambda items: items, lambda item: item, 10, 100, lambda *facts: told.append(facts))
        await batcher.submit([3, 4, 5])
        assert [facts[:2] for facts in told] == [(2, 7), (1, 5)] and all(seconds > 0 for _, _, seconds in told)
        await batcher.close()

    run(scenario)


def test_close_answers_those_that_wait_refuses_new_ones_and_ends_the_thread():
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, 1)
        tasks = await submitted(batcher, 1, 2)
        await gate.wait_for_batch()
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.submit([3])
        gate.let_through(2)
        await closing
        assert [task.result() for task in tasks] == [2, 4]
        assert not any(thread.is_alive() for thread in gate.threads)

    run(scenario)


def test_close_of_an_unused_batcher_returns_at_once():
    run(batcher_of(Gate(), 1).close)
