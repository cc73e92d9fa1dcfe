"""Which actor computes which shard: a plain state machine, status in, decision out.

Knows nothing about Ray. Invariant: a slot is waiting, leased to one actor, or done; it is done once.
"""

from collections import Counter, deque
from collections.abc import Sequence

from kdray.cache.plan import Slot
from kdray.errors import CacheError


class Leases:
    """Hands out slots to actors, and takes back those that failed or whose actor died."""

    def __init__(self, slots: Sequence[Slot], max_attempts: int):
        self._waiting = deque(slots)
        self._leased: dict[str, Slot] = {}
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

    def next(self, actor: str) -> Slot | None:
        """Leases a slot to `actor`; None where none waits. An actor holds one lease at a time."""
        if actor in self._leased:
            raise AssertionError(f"actor {actor} holds a lease already")
        if not self._waiting:
            return None
        slot = self._waiting.popleft()
        self._leased[actor] = slot
        return slot

    def done(self, actor: str) -> Slot:
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
            raise CacheError(f"{slot} failed {self._failures[slot.key]} times, last: {cause}. Finished shards are "
                             "kept: mend the cause and run again")
        self._waiting.appendleft(slot)
