"""Progress of a worker process becomes a bar, or lines, of the driver.

Workers tell an actor how far they are; the driver asks it while it waits. Nothing of a worker's own output
is needed for that, so Ray's and DeepSpeed's remarks stay in their log files.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdray.metrics import TRAINED_ROWS
from kdray.progress import Progress, progress
from kdray.threads import WAITED, Starvation

logger = logging.getLogger("kdray")
T = TypeVar("T")
_POLL = 1.0
_TELL = 0.5


@dataclass
class Count:
    """Work under one label."""

    label: str
    total: int
    done: int
    start: int
    seconds: float = 0.0
    """For how long it had been counted when it was last told."""
    facts: dict[str, float] = field(default_factory=dict)
    closed: bool = False


class Board:
    """Counts by their place in order of appearance."""

    def __init__(self) -> None:
        self._counts: list[Count] = []

    def open(self, label: str, total: int, done: int) -> int:
        """A new count; returns its place."""
        self._counts.append(Count(label, total, done, done))
        return len(self._counts) - 1

    def tell(self, place: int, done: int, seconds: float, facts: dict[str, float], closed: bool) -> None:
        """Where a count is."""
        count = self._counts[place]
        count.done, count.seconds, count.facts, count.closed = done, seconds, facts, closed

    def read(self) -> list[Count]:
        """All counts."""
        return self._counts


class Told:
    """A worker's progress, told to the board twice a second at most."""

    def __init__(self, board: Any, label: str, total: int, done: int):
        self._board, self._done, self._facts = board, done, dict[str, float]()
        self._begun = self._last = time.monotonic()
        self._place = ray.get(board.open.remote(label, total, done))

    def advance(self, count: int, **facts: float) -> None:
        """Counts, and tells the board where the last time is old enough."""
        self._done, self._facts = self._done + count, facts or self._facts
        if time.monotonic() - self._last >= _TELL:
            self._last = time.monotonic()
            self._tell(closed=False)

    def close(self) -> None:
        """Tells the board the end, and waits until it knows."""
        ray.get(self._tell(closed=True))

    def _tell(self, closed: bool) -> ray.ObjectRef:
        return self._board.tell.remote(self._place, self._done, time.monotonic() - self._begun, self._facts, closed)


class Silent:
    """Shows nothing."""

    def advance(self, count: int, **facts: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def watch(prefix: str, work: Callable[[Any], T]) -> T:
    """`work(board)`, run in a thread of its own, while this thread shows what the board is told.

    So Ctrl-C reaches this thread at once, whatever Ray does with signals in the thread that waits for workers. The
    board is on this machine, so that it is not lost with another.
    """
    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board: Any = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=beside).remote()
    future: Future[T] = Future()
    threading.Thread(target=_fulfil, args=(future, work, board), daemon=True).start()
    shown = Shown(prefix)
    try:
        while not future.done():
            wait([future], _POLL)
            shown.update(ray.get(board.read.remote()))
    finally:
        ray.kill(board)
    return future.result()


def _fulfil(future: "Future[T]", work: Callable[[Any], T], board: Any) -> None:
    try:
        future.set_result(work(board))
    except BaseException as error:
        future.set_exception(error)


class Shown:
    """The board's counts, as this process shows them; says once where their process is starved."""

    def __init__(self, prefix: str):
        self._prefix, self._starvation = prefix, Starvation(f"the training of the {prefix}", "num_cpus")
        self._shown: list[Progress | None] = []
        self._seen: list[int] = []

    def update(self, counts: list[Count]) -> None:
        """Shows what is new."""
        for place, count in enumerate(counts):
            if place == len(self._shown):
                self._shown.append(progress(f"{self._prefix} {count.label}", count.total, done=count.start,
                                            ago=count.seconds))
                self._seen.append(count.start)
            shown = self._shown[place]
            if shown is None:
                continue
            self._starvation.see(count.facts.get(WAITED, 0.0))
            shown.advance(count.done - self._seen[place], **count.facts)
            TRAINED_ROWS.add(count.done - self._seen[place])
            self._seen[place] = count.done
            if count.closed:
                shown.close()
                self._shown[place] = None
