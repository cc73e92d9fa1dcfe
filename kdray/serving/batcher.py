"""Single items become batches: collect while busy, never wait while idle.

Knows nothing about models or HTTP. There is no timer: an item that finds the model idle runs at once, items
that arrive meanwhile are the next batch. So batches grow with the load and with nothing else.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Calls `run` on batches of at most `max_items`, one at a time, in a thread of its own.

    `run` returns an answer or an exception for each item, in order. All methods belong to one event loop.
    """

    def __init__(self, run: Callable[[list[T]], list[R | Exception]], max_items: int):
        self._run, self._max_items = run, max_items
        self._queue: deque[tuple[T, asyncio.Future[R | Exception]]] = deque()
        self._work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self._closed = False

    async def submit(self, item: T) -> R:
        """The answer to `item`; raises what `run` gave or raised for it."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: asyncio.Future[R | Exception] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._work_off())
        answer = await future
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """Refuses new items, answers those that wait, and ends the thread."""
        self._closed = True
        if self._work is not None:
            await self._work
        self._thread.shutdown()

    async def _work_off(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._draw():
            answers = await loop.run_in_executor(self._thread, self._answers, [item for item, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def _draw(self) -> list[tuple[T, asyncio.Future[R | Exception]]]:
        batch: list[tuple[T, asyncio.Future[R | Exception]]] = []
        while self._queue and len(batch) < self._max_items:
            item, future = self._queue.popleft()
            if not future.cancelled():
                batch.append((item, future))
        return batch

    def _answers(self, items: list[T]) -> list[R | Exception]:
        try:
            answers = self._run(items)
            if len(answers) != len(items):
                raise RuntimeError(f"{len(items)} items got {len(answers)} answers")
        except Exception as error:
            return [error] * len(items)
        return answers
