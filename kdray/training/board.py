"""Progress of a worker process becomes a bar, or lines, of the driver.

Workers tell an actor how far they are; a thread of the driver asks it. Nothing of a worker's own output
is needed for that, so Ray's and DeepSpeed's remarks stay in their log files.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from kdray.progress import Progress, progress

_POLL = 1.0
_TELL = 0.5


@dataclass
class Count:
    """Work under one label."""

    label: str
    total: int
    done: int
    start: int
    note: str = ""
    closed: bool = False


class Board:
    """Counts by their place in order of appearance."""

    def __init__(self) -> None:
        self._counts: list[Count] = []

    def open(self, label: str, total: int, done: int) -> int:
        """A new count; returns its place."""
        self._counts.append(Count(label, total, done, done))
        return len(self._counts) - 1

    def tell(self, place: int, done: int, note: str, closed: bool) -> None:
        """Where a count is."""
        count = self._counts[place]
        count.done, count.note, count.closed = done, note, closed

    def read(self) -> list[Count]:
        """All counts."""
        return self._counts


class Told:
    """A worker's progress, told to the board twice a second at most."""

    def __init__(self, board: Any, label: str, total: int, done: int):
        self._board, self._done, self._note, self._last = board, done, "", time.monotonic()
        self._place = ray.get(board.open.remote(label, total, done))

    def advance(self, count: int, note: str = "") -> None:
        """Counts, and tells the board where the last time is old enough."""
        self._done, self._note = self._done + count, note or self._note
        if time.monotonic() - self._last >= _TELL:
            self._last = time.monotonic()
            self._board.tell.remote(self._place, self._done, self._note, False)

    def close(self) -> None:
        """Tells the board the end, and waits until it knows."""
        ray.get(self._board.tell.remote(self._place, self._done, self._note, True))


class Silent:
    """Shows nothing."""

    def advance(self, count: int, note: str = "") -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@contextlib.contextmanager
def watched(prefix: str) -> Iterator[Any]:
    """A board whose counts are shown by this process until the end of the block."""
    board, ended = ray.remote(num_cpus=0)(Board).remote(), threading.Event()
    thread = threading.Thread(target=_show, args=(board, prefix, ended), daemon=True)
    thread.start()
    try:
        yield board
    finally:
        ended.set()
        thread.join()
        ray.kill(board)  # type: ignore[arg-type]


def _show(board: Any, prefix: str, ended: threading.Event) -> None:
    shown: list[Progress] = []
    seen: list[int] = []
    last = False
    while not last:
        last = ended.wait(_POLL)
        try:
            counts: list[Count] = ray.get(board.read.remote())
        except ray.exceptions.RayError:
            return
        for place, count in enumerate(counts):
            if place == len(shown):
                shown.append(progress(f"{prefix} {count.label}", count.total, done=count.start))
                seen.append(count.start)
            if seen[place] >= 0:
                shown[place].advance(count.done - seen[place], count.note)
                seen[place] = count.done
            if count.closed and seen[place] >= 0:
                shown[place].close()
                seen[place] = -1
