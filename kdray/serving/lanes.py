"""Calls become the next batch: small ones in the order in which they came, large ones in turn, within a share of it.

So who asks for one text waits for the batch that runs and for its own, whatever others ask for; and a large call always
moves on. What counts is what items cost, not how many they are. Knows nothing about models, threads or HTTP.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

LARGE, SHARE = 0.25, 0.125
"""Of a batch: what a call costs at least that is a large one, as is one that can wait for room, whatever it costs; and
what large calls have together while small ones come."""
_TURNS = 8
"""Large calls that take turns; others wait for a place among them, or find no room."""
_LATELY_SECONDS = 1.0


class FullError(Exception):
    """There is no room for a call."""


@dataclass(eq=False)
class Call(Generic[T]):
    """Items that were asked for together, and what each costs."""

    items: list[T]
    costs: list[int]
    patient: bool = False
    """Whether it waits for room."""
    drawn: int = 0
    """Items that have been in a batch."""


class Lanes(Generic[T]):
    """Calls that wait. Belongs to one event loop."""

    def __init__(self, most: int, room: int):
        """`most`: cost of a batch; `room`: cost of the small calls that may wait or run."""
        self._most, self._room = most, room
        self._large_from, self._share = max(1, int(most * LARGE)), max(1, int(most * SHARE))
        self._small: deque[Call[T]] = deque()
        self._large: deque[Call[T]] = deque()
        self._inside: dict[Call[T], deque[Call[T]]] = {}
        """Lanes of the calls that wait or run."""
        self._held = 0
        """Cost of the small calls that wait or run."""
        self._places = asyncio.Semaphore(_TURNS)
        self._small_came = -_LATELY_SECONDS
        self.items = self.cost = 0
        """What waits."""

    async def enter(self, call: Call[T]) -> None:
        """Lets a call wait for its batches. Raises FullError where there is no room, and it is not patient."""
        cost = sum(call.costs)
        if call.patient or cost > self._large_from:
            if self._places.locked() and not call.patient:
                raise FullError
            await self._places.acquire()
            lane = self._large
        else:
            self._hold(cost)
            lane = self._small
        lane.append(call)
        self._inside[call] = lane
        self.items, self.cost = self.items + len(call.items), self.cost + cost

    def leave(self, call: Call[T]) -> None:
        """Frees the place of a call that has its answers, or is gone."""
        lane = self._inside.pop(call, None)
        if lane is None:
            return
        if call.drawn < len(call.items):
            lane.remove(call)
            self.items -= len(call.items) - call.drawn
            self.cost -= sum(call.costs[call.drawn:])
        if lane is self._small:
            self._held -= sum(call.costs)
        else:
            self._places.release()

    def draw(self) -> list[tuple[Call[T], int]]:
        """The next batch, as calls and places in them; at least one item where any waits."""
        batch: list[tuple[Call[T], int]] = []
        left = self._most - (self._share if self._large else 0)
        while self._small and (not batch or self._next(self._small) <= left):
            left -= self._next(self._small)
            self._take(self._small, batch)
        lately = bool(batch) or time.monotonic() - self._small_came < _LATELY_SECONDS
        left = self._share if lately else self._most
        while self._large and (not batch or self._next(self._large) <= left):
            left -= self._next(self._large)
            if self._take(self._large, batch):
                self._large.rotate(-1)
        return batch

    def _next(self, lane: deque[Call[T]]) -> int:
        return lane[0].costs[lane[0].drawn]

    def _take(self, lane: deque[Call[T]], batch: list[tuple[Call[T], int]]) -> bool:
        """Moves an item from a lane to the batch; whether its call has more."""
        call = lane[0]
        batch.append((call, call.drawn))
        self.items, self.cost = self.items - 1, self.cost - call.costs[call.drawn]
        call.drawn += 1
        if call.drawn < len(call.items):
            return True
        lane.popleft()
        return False

    def _hold(self, cost: int) -> None:
        if self._held and self._held + cost > self._room:
            raise FullError
        self._held += cost
        self._small_came = time.monotonic()
