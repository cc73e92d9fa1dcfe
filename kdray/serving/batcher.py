"""Items of many calls become batches: collect while busy, never wait while idle.

Knows nothing about models or HTTP. There is no timer: an item that finds the model idle runs at once, items
that arrive meanwhile are the next batch. So batches grow with the load and with nothing else.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kdray.serving.lanes import Call, FullError, Lanes

__all__ = ["Batcher", "FullError"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(eq=False)
class _Asked(Call[T], Generic[T, R]):
    """A call, and the answers that have come: items of one call are answered in order."""

    answers: list[R | Exception] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)


class Batcher(Generic[T, R]):
    """Calls `run` on batches, one at a time, in a thread of its own.

    `run` returns an answer or an exception for each item, in order. A batch has items that cost `max_cost` together,
    or one that costs more. Where `run` raises, whatever it is, each item of the batch is run alone, so that only those
    which raise again fail. All methods belong to one event loop.
    """

    def __init__(self, run: Callable[[list[T]], list[R | Exception]], cost: Callable[[T], int], max_cost: int,
                 max_queue: int, saw: Callable[[int, int, float], None] = lambda size, cost, seconds: None):
        """`max_queue`: what small calls that wait or run may cost; `saw` is told each batch's size, cost and time."""
        self._run, self._cost, self._saw = run, cost, saw
        self._lanes: Lanes[T] = Lanes(max_cost, max_queue)
        self._work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self._began: float | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return self._lanes.items

    @property
    def backlog(self) -> int:
        """What the items that wait cost."""
        return self._lanes.cost

    @property
    def running_for(self) -> float:
        """Seconds for which the batch runs that is at work; 0 where none is."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    async def submit(self, items: list[T]) -> list[R | Exception]:
        """The answer or exception of each item. Raises FullError at once where there is no room.

        A caller that is cancelled takes its waiting items with it.
        """
        if not items:
            return []
        call = await self._enter(items, patient=False)
        try:
            while len(call.answers) < len(items):
                await call.came.wait()
                call.came.clear()
        finally:
            self._lanes.leave(call)
        return call.answers

    async def stream(self, items: list[T]) -> AsyncGenerator[list[R | Exception]]:
        """The answers in order, some at a time, as they come. Waits for room. Close it where it is not read to its end.

        What it waits for is dropped with it.
        """
        if not items:
            return
        call = await self._enter(items, patient=True)
        told = 0
        try:
            while told < len(items):
                await call.came.wait()
                call.came.clear()
                part = call.answers[told:]
                told += len(part)
                yield part
        finally:
            self._lanes.leave(call)

    async def close(self) -> None:
        """Refuses new items, answers those that wait, and ends the thread."""
        self._closed = True
        if self._work is not None:
            await self._work
        self._thread.shutdown()

    async def _enter(self, items: list[T], patient: bool) -> _Asked[T, R]:
        call: _Asked[T, R] = _Asked(items, [self._cost(item) for item in items], patient)
        if not self._closed:
            await self._lanes.enter(call)
        if self._closed:
            self._lanes.leave(call)
            raise RuntimeError("the batcher is closed")
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._work_off())
        return call

    async def _work_off(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._lanes.draw():
            self._began = time.monotonic()
            items = [call.items[place] for call, place in batch]
            answers = await loop.run_in_executor(self._thread, self._answers, items)
            self._saw(len(batch), sum(call.costs[place] for call, place in batch), self.running_for)
            self._began = None
            for (call, _), answer in zip(batch, answers, strict=True):
                call.answers.append(answer)  # type: ignore[attr-defined]  # all calls are asked by `_enter`
                call.came.set()  # type: ignore[attr-defined]

    def _answers(self, items: list[T]) -> list[R | Exception]:
        try:
            answers = self._run(items)
            if len(answers) != len(items):
                raise RuntimeError(f"{len(items)} items got {len(answers)} answers")
        except BaseException as error:  # Rust's panics, which tokenizers may have, are no Exception
            if len(items) == 1:
                return [error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")]
            return [answer for item in items for answer in self._answers([item])]
        return answers
