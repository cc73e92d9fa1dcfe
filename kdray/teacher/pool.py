"""Slots become shards: actors take leases as fast as they finish them; the dead are replaced.

As many actors are asked for as have work, up to a limit. Those without room wait in Ray's queue: they are what an
autoscaler sees, and they start when a node joins. An actor that takes far longer than shards take is ended as if it had
died. Knows nothing about teachers: an actor has `ready()` and `fill(slot)`. Invariant: `run` returns when every slot is
filled.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from kdray.cluster import living, may_grow
from kdray.errors import ClusterError, KdrayError
from kdray.metrics import LEASED_AGAIN, tell_actors
from kdray.progress import Progress, progress
from kdray.teacher.leases import Deadlines, Leases, Work

logger = logging.getLogger("kdray")

_PATIENCE = 60.0
"""Seconds without one actor before a warning."""
_LOOK = 5.0
"""Seconds between two looks at who is overdue."""


def most_wait(nodes: Sequence[dict[str, Any]]) -> float:
    """Seconds without one actor that end a run on these of `ray.nodes()`.

    Where an autoscaler adds nodes, a group may start empty, and one with a GPU takes a quarter of an hour to join.
    """
    return 3600.0 if may_grow(list(nodes)) else 600.0


class Pool:
    """Fills `slots` with at most `most` actors at a time."""

    def __init__(self, slots: Sequence[Work], start: Callable[[], Any], most: int, max_attempts: int,
                 record: Callable[[Any], None], who: str = "teacher"):
        """`start` makes an actor; `record` gets what `fill` returned for each slot, once; `who` is what fills them."""
        self.leases, self._who = Leases(slots, max_attempts), who
        self.most, self._max_attempts, self._new, self._record = most, max_attempts, start, record
        self.report: Progress = progress(who, sum(slot.rows for slot in slots))
        self.actors: dict[str, Any] = {}
        self.up: set[str] = set()
        """Actors that have started; the others wait for room."""
        self.flying: dict[Any, str] = {}
        self.deadlines = Deadlines()
        self.started = self.filled = 0
        self.stillborn = 0
        """Actors that died before they were up, since one came up."""
        self._looked = time.monotonic()
        self._roomless = 0.0
        """Seconds without an actor and without a sign of one."""

    def run(self) -> None:
        """Raises CacheError where a slot keeps failing, ClusterError where no actor can start."""
        try:
            while not self.leases.finished:
                while len(self.actors) < min(self.most, self.leases.unfinished):
                    self._start()
                tell_actors(len(self.up), len(self.actors) - len(self.up))
                for reference in self._ready():
                    self._settle(reference)
                self._end_overdue()
        finally:
            self.report.close()
            for actor in self.actors.values():
                ray.kill(actor)
            tell_actors(0, 0)

    def _start(self) -> None:
        name = f"actor-{self.started}"
        self.started += 1
        self.actors[name] = self._new()
        self.flying[self.actors[name].ready.remote()] = name

    def _ready(self) -> list[Any]:
        """What actors have sent; waits for something, but not for long."""
        began = time.monotonic()
        ready, _ = ray.wait(list(self.flying), num_returns=1, timeout=_LOOK)
        if ready:
            self._roomless = 0.0
            return ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)[0]
        if not self.up:
            self._wait_for_room(time.monotonic() - began)
        return []

    def _wait_for_room(self, seconds: float) -> None:
        """Warns now and then; raises ClusterError where no actor came up for too long."""
        before, self._roomless = self._roomless, self._roomless + seconds
        if self._roomless // _PATIENCE > before // _PATIENCE:
            logger.warning("no %s actor has found room for %.0f s; %d wait for it", self._who, self._roomless,
                           len(self.actors))
        if self._roomless >= most_wait(living()):
            raise ClusterError(f"no {self._who} actor found room in {self._roomless:.0f} s. What is finished is kept: "
                               "add nodes or lower its num_cpus or num_gpus, and run again")

    def _end_overdue(self) -> None:
        """Ends actors that hang: a driver, a disk or a GPU that does not answer may hold them for ever."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        for name, seconds, allowed in self.deadlines.overdue():
            logger.warning("%s %s hangs: %s take it %.0f s, and shards took so long until now that %.0f are allowed. "
                           "It is ended, its shard is leased again", self._who, name, self.leases.held(name), seconds,
                           allowed)
            self.flying = {reference: whose for reference, whose in self.flying.items() if whose != name}
            ray.kill(self.actors[name])
            self._drop(name, f"not done in {seconds:.0f} s")

    def _settle(self, reference: Any) -> None:
        name = self.flying.pop(reference)
        try:
            done = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, KdrayError):
                raise error.cause from None
            self.deadlines.dropped(name)
            self.leases.failed(name, str(error.cause))
            LEASED_AGAIN.add()
            logger.warning("%s %s failed, its shard is leased again: %s", self._who, name, error.cause)
            self._lease(name)
        except ray.exceptions.RayActorError as error:
            self._lost(name, error)
        else:
            self._arrived(name, done)

    def _arrived(self, name: str, done: Any) -> None:
        rows = 0
        if name in self.up:
            rows = self.leases.done(name).rows
            self.deadlines.done(name)
            self.filled += 1
            self._record(done)
        self.up.add(name)
        self.stillborn = 0
        self._lease(name)
        self.report.advance(rows, **({"actors": len(self.up), "leases": self.leases.leased} if self.up else {}))

    def _lost(self, name: str, error: ray.exceptions.RayActorError) -> None:
        if name not in self.up:
            del self.actors[name]
            self._not_loaded(name, error)
            return
        self._drop(name, f"its actor died ({type(error).__name__})")
        logger.warning("%s %s died, its shard is leased again", self._who, name)

    def _drop(self, name: str, cause: str) -> None:
        """An actor is gone with its lease."""
        del self.actors[name]
        self.up.discard(name)
        self.deadlines.dropped(name)
        self.leases.failed(name, cause)
        LEASED_AGAIN.add()

    def _not_loaded(self, name: str, error: ray.exceptions.RayActorError) -> None:
        """Raises ClusterError where none comes up, try after try; one lost node, which takes many, is no such case."""
        self.stillborn += 1
        raised = isinstance(error, ray.exceptions.ActorDiedError) and "__init__" in str(error)
        tries = self._max_attempts * (1 if raised else self.most)
        if (raised and not self.filled) or (self.stillborn >= tries and not self.up):
            raise ClusterError(f"the {self._who} could not be loaded in an actor: {error}") from error
        logger.warning("%s %s died before it was loaded: %s", self._who, name,
                       str(error).strip().splitlines()[-1].strip())

    def _lease(self, name: str) -> None:
        slot = self.leases.next(name)
        if slot is None:
            self.up.discard(name)
            ray.kill(self.actors.pop(name))
            return
        self.flying[self.actors[name].fill.remote(slot)] = name
        self.deadlines.began(name, slot.rows)
