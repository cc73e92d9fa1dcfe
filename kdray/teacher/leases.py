"""Which actor computes which shard, and how long it may: plain state machines, status in, decision out.

Knows nothing about Ray. Invariant: a slot is waiting, leased to one actor, or done; it is done once.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kdray.errors import CacheError

_TIMES, _FLOOR = 20.0, 300.0
"""A shard may take so many times as long as the slowest one took, and so many seconds at least."""
_UNKNOWN = 10.0
"""Seconds a row that shards may take before one is done: far more than the largest teacher on a slow processor."""


class Work(Protocol):
    """What is leased, named by its rows as text: a slot of a cache's plan, or other rows to be worked on."""

    @property
    def key(self) -> str:
        """Its own among all that are leased, or that of what is the same."""

    @property
    def rows(self) -> int:
        """Number of rows."""


class Leases:
    """Hands out slots to actors, and takes back those that failed or whose actor died."""

    def __init__(self, slots: Sequence[Work], max_attempts: int):
        self._waiting = deque(slots)
        self._leased: dict[str, Work] = {}
        self._failures: Counter[str] = Counter()
        self._max_attempts = max_attempts

    @property
    def finished(self) -> bool:
        """Whether every slot is done."""
        return not self._waiting and not self._leased

    @property
    def leased(self) -> int:
        """Slots that an actor works on."""
        return len(self._leased)

    @property
    def unfinished(self) -> int:
        """Slots that are not done."""
        return len(self._waiting) + len(self._leased)

    @property
    def waiting(self) -> int:
        """Slots that nobody works on."""
        return len(self._waiting)

    def next(self, actor: str) -> Work | None:
        """Leases a slot to `actor`; None where none waits. An actor holds one lease at a time."""
        if actor in self._leased:
            raise AssertionError(f"actor {actor} holds a lease already")
        if not self._waiting:
            return None
        slot = self._waiting.popleft()
        self._leased[actor] = slot
        return slot

    def held(self, actor: str) -> Work:
        """What the actor works on."""
        return self._leased[actor]

    def done(self, actor: str) -> Work:
        """The actor's slot is in the cache."""
        return self._leased.pop(actor)

    def failed(self, actor: str, cause: str) -> None:
        """The actor could not compute its slot, or died: the slot waits again.

        Raises CacheError with the slot's rows when it has failed `max_attempts` times.
        """
        slot = self._leased.pop(actor, None)
        if slot is None:
            return
        self._failures[slot.key] += 1
        if self._failures[slot.key] >= self._max_attempts:
            raise CacheError(f"{slot} failed {self._failures[slot.key]} times, last: {cause}. What is "
                             "finished is kept: mend the cause and run again")
        self._waiting.appendleft(slot)


class Deadlines:
    """How long actors have worked on their shards, and may, from what shards took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._since: dict[str, tuple[float, int]] = {}
        self._slowest: tuple[int, float] | None = None
        """Rows and seconds of the slowest of the largest shards that are done."""

    def began(self, actor: str, rows: int) -> None:
        """The actor works on a shard with so many rows."""
        self._since[actor] = self._clock(), rows

    def done(self, actor: str) -> None:
        """The actor has finished its shard."""
        began, rows = self._since.pop(actor)
        self._slowest = max(self._slowest or (0, 0.0), (rows, self._clock() - began))

    def dropped(self, actor: str) -> None:
        """The actor, or its shard, failed: that says nothing about how long shards take."""
        self._since.pop(actor, None)

    def overdue(self) -> Iterator[tuple[str, float, float]]:
        """Actors that have worked for too long: for how many seconds, and how many they may."""
        for actor, (began, rows) in list(self._since.items()):
            seconds, allowed = self._clock() - began, self._allowed(rows)
            if seconds > allowed:
                yield actor, seconds, allowed

    def _allowed(self, rows: int) -> float:
        if self._slowest is None:
            return max(_FLOOR, _UNKNOWN * rows)
        most, seconds = self._slowest
        return max(_FLOOR, _TIMES * seconds * max(1.0, rows / most))
