"""Items of many calls become batches: collect while busy, never wait while idle.

Knows nothing about models or HTTP. There is no timer: an item that finds the model idle runs at once, items
that arrive meanwhile are the next batch. So batches grow with the load and with nothing else.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class FullError(Exception):
    """The queue has no room for a call."""


@dataclass
class _Call(Generic[R]):
    """The items that were submitted together, and the answers that have come."""

    answers: list[R | Exception | None]
    left: int
    done: asyncio.Future[None]


class Batcher(Generic[T, R]):
    """Calls `run` on batches, one at a time, in a thread of its own.

    `run` returns an answer or an exception for each item, in order. A batch has items that cost `max_cost` together,
    or one that costs more. Where `run` raises, each item of the batch is run alone, so that only those which raise
    again fail. All methods belong to one event loop.
    """

    def __init__(self, run: Callable[[list[T]], list[R | Exception]], cost: Callable[[T], int], max_cost: int,
                 max_queue: int, saw: Callable[[int], None] = lambda size: None):
        """`max_queue`: items that may wait or run at most; `saw` is told the size of each batch."""
        self._run, self._cost, self._max_cost, self._max_queue, self._saw = run, cost, max_cost, max_queue, saw
        self._queue: deque[tuple[T, _Call[R], int]] = deque()
        self._running = 0
        self._work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether not one more item may come."""
        return len(self._queue) + self._running >= self._max_queue

    async def submit(self, items: list[T]) -> list[R | Exception]:
        """The answer or exception of each item. Raises FullError at once where they do not all fit the queue.

        A caller that is cancelled takes its waiting items with it.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        if self._queue and len(self._queue) + self._running + len(items) > self._max_queue:
            raise FullError
        if not items:
            return []
        call: _Call[R] = _Call([None] * len(items), len(items), asyncio.get_running_loop().create_future())
        self._queue.extend((item, call, place) for place, item in enumerate(items))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._work_off())
        await call.done
        return call.answers  # type: ignore[return-value]  # none is None when the call is done

    async def close(self) -> None:
        """Refuses new items, answers those that wait, and ends the thread."""
        self._closed = True
        if self._work is not None:
            await self._work
        self._thread.shutdown()

    async def _work_off(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._draw():
            self._running = len(batch)
            answers = await loop.run_in_executor(self._thread, self._answers, [item for item, _, _ in batch])
            self._running = 0
            self._saw(len(batch))
            for (_, call, place), answer in zip(batch, answers, strict=True):
                call.answers[place] = answer
                call.left -= 1
                if not call.left and not call.done.done():
                    call.done.set_result(None)

    def _draw(self) -> list[tuple[T, _Call[R], int]]:
        batch: list[tuple[T, _Call[R], int]] = []
        left = self._max_cost
        while self._queue:
            item, call, _ = self._queue[0]
            if not call.done.done():
                left -= self._cost(item)
                if batch and left < 0:
                    break
                batch.append(self._queue[0])
            self._queue.popleft()
        return batch

    def _answers(self, items: list[T]) -> list[R | Exception]:
        try:
            answers = self._run(items)
            if len(answers) != len(items):
                raise RuntimeError(f"{len(items)} items got {len(answers)} answers")
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [answer for item in items for answer in self._answers([item])]
        return answers
