"""Names become students that answer: loaded beside those that serve, checked, and switched to in one step.

Knows nothing about Ray or HTTP. Invariant: a name that has been served keeps a student that passed its check, whatever
is asked for later and whatever storage does; whoever uses a student has it until done.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kdray.errors import KdrayError, ModelError, StorageError, first_line
from kdray.serving import metrics
from kdray.serving.batcher import Batcher
from kdray.serving.pace import Pace
from kdray.serving.parity import check_parity
from kdray.serving.predictor import Item, Prediction, Predictor, load_predictor, read_package, texts_in
from kdray.storage import artefact
from kdray.tasks import TASKS

logger = logging.getLogger("kdray")

DEFAULT = "default"
_CHARACTERS_PER_TOKEN = 4
_BATCHES = 2
"""Batches of the model that are drawn from the queue together: sorted by length, they hold less padding."""
_TOKENS_PER_INPUT = 32
"""What `serve.max_queue` means by an input."""


class Slot(BaseModel):
    """What a name serves: a package, and beside it another for a share of the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str = Field(description="Folder or URI of a package")
    canary: str | None = Field(None, description="Folder or URI of the package on trial")
    share: float = Field(0.0, ge=0, le=1, description="Share of the requests that the canary answers")
    previous: str | None = Field(None, description="What --back returns to")

    @property
    def packages(self) -> list[str]:
        """The packages that answer, that which answers most first."""
        answering = [(1 - self.share, self.package), *([(self.share, self.canary)] if self.canary else [])]
        return [uri for share, uri in sorted(answering, key=lambda one: -one[0]) if share > 0]


@dataclass(eq=False)
class Student:
    """A package that is loaded."""

    uri: str
    manifest: dict[str, Any]
    batcher: Batcher[Item, Prediction]
    pace: Pace
    users: int = 0


@dataclass(frozen=True)
class Engine:
    """How students are run."""

    backend: str
    num_gpus: float
    threads: int
    batch_tokens: int
    max_queue: int

    @property
    def batch(self) -> int:
        """Tokens that are drawn from the queue together."""
        return _BATCHES * self.batch_tokens

    @property
    def room(self) -> int:
        """Tokens of the small calls that may wait or run."""
        return _TOKENS_PER_INPUT * self.max_queue


class Roster:
    """Students by name. Belongs to one event loop."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._loaded: dict[str, Student] = {}
        self.slots: dict[str, Slot] = {}
        self.refused: dict[str, str] = {}
        """Names whose wanted package did not pass, and why."""
        self._lock = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._retiring: dict[Student, asyncio.Task[None]] = {}
        """Students that nobody is to ask any more, until those who do have their answers."""
        self._asked = time.monotonic()

    async def prepare(self, name: str, uri: str) -> None:
        """Loads what `name` may be asked to serve, until `release` or what `apply` wants without it.

        Raises KdrayError where it cannot be loaded, fails its check or does not fit what `name` serves.
        """
        async with self._lock:
            try:
                await self._load(uri, name)
            except KdrayError:
                self._retire_others()
                raise

    async def release(self) -> None:
        """Lets go what was prepared and is not served."""
        async with self._lock:
            self._retire_others()

    async def apply(self, wanted: dict[str, Slot]) -> None:
        """Serves what is wanted. A name whose package cannot be loaded, or fails its check, stays as it is.

        Raises KdrayError where such a name serves nothing yet.
        """
        async with self._lock:
            slots, refused = {}, {}
            for name, slot in wanted.items():
                try:
                    for uri in slot.packages:
                        await self._load(uri, name)
                    slots[name] = slot
                except KdrayError as error:
                    if name not in self.slots:
                        raise
                    logger.error("%s stays as it is: %s", name, error)
                    slots[name], refused[name] = self.slots[name], str(error)
            self.slots, self.refused = slots, refused
            self._retire_others()

    @contextmanager
    def using(self, name: str) -> Iterator[Student]:
        """The student that answers this request to `name`, which must be one of `slots`."""
        slot = self.slots[name]
        uri = slot.canary if slot.canary and random.random() < slot.share else slot.package
        student = self._loaded[uri]
        student.users += 1
        try:
            yield student
        finally:
            student.users -= 1

    def manifests(self, name: str) -> list[dict[str, Any]]:
        """Manifests of the packages that `name`, one of `slots`, serves, that which answers most first."""
        return [self._loaded[uri].manifest for uri in self.slots[name].packages]

    @property
    def waiting(self) -> int:
        """Items in all queues."""
        return sum(student.batcher.waiting for student in self._loaded.values())

    @property
    def running_for(self) -> float:
        """Seconds for which the oldest batch runs."""
        return max((one.batcher.running_for for one in (*self._loaded.values(), *self._retiring)), default=0.0)

    def load(self) -> float:
        """Share of what this replica can do that it has done since the last call; 1 at least where a batch waits."""
        now = time.monotonic()
        seconds, self._asked = now - self._asked, now
        done = sum(student.pace.done() for student in self._loaded.values())
        late = any(student.batcher.backlog >= self._engine.batch for student in self._loaded.values())
        return max(done / seconds if seconds else 0.0, float(late))

    async def close(self) -> None:
        """Answers what waits, and ends."""
        for student in self._loaded.values():
            await student.batcher.close()
        await asyncio.gather(*self._retiring.values())
        self._loader.shutdown()

    async def _load(self, uri: str, name: str) -> None:
        if uri not in self._loaded:
            loop = asyncio.get_running_loop()
            manifest, predictor = await loop.run_in_executor(self._loader, load_checked, uri, self._engine)
            pace = Pace(self._engine.batch)

            def saw(size: int, cost: int, seconds: float) -> None:
                metrics.BATCHES.observe(size)
                pace.add(cost, seconds)

            self._loaded[uri] = Student(uri, manifest, Batcher(
                predictor.predict, tokens_of(manifest["max_length"]), self._engine.batch, self._engine.room, saw), pace)
        if name in self.slots:
            check_fit(uri, self._loaded[uri].manifest, name, self.manifests(name)[0])

    def _retire_others(self) -> None:
        """Lets go what no name serves, each when nobody uses it any more."""
        kept = {uri for slot in self.slots.values() for uri in slot.packages}
        for uri in [uri for uri in self._loaded if uri not in kept]:
            student = self._loaded.pop(uri)
            self._retiring[student] = asyncio.create_task(self._retire(student))

    async def _retire(self, student: Student) -> None:
        while student.users:
            await asyncio.sleep(0.05)
        await student.batcher.close()
        del self._retiring[student]


def check_fit(uri: str, manifest: dict[str, Any], name: str, served: dict[str, Any]) -> None:
    """Raises ModelError where a package is not of the task and the labels of what `name` serves."""
    for what, new, old in (("task", manifest["task"], served["task"]),
                           ("labels", sorted(manifest["labels"]), sorted(served["labels"]))):
        if new != old:
            raise ModelError(f"{uri} has the {what} {_brief(new)}, and {name} answers with {_brief(old)}: who asks it "
                             "would not know what it gets. Serve it under a name of its own (serve.students), or start "
                             "the service again with it")


def load_checked(uri: str, engine: Engine) -> tuple[dict[str, Any], Predictor]:
    """Manifest and predictor of the package at `uri`, warm.

    Raises KdrayError where it cannot be fetched or run, or fails its own parity sample.
    """
    try:
        folder = fetch_package(uri)
    except KdrayError:
        raise
    except Exception as error:
        raise StorageError(f"{uri} cannot be fetched: {_said(error)}. Check the storage, and whether the package is "
                           "there") from error
    try:
        predictor = load_predictor(folder, engine.backend, engine.num_gpus, engine.threads, engine.batch_tokens)
        check_parity(folder, predictor, TASKS[read_package(folder)["task"]])
        return read_package(folder), predictor
    except KdrayError:
        raise
    except Exception as error:
        raise ModelError(f"{uri} cannot be run with backend {engine.backend}: {_said(error)}. Export it again, or "
                         "choose another `serve.backend`") from error


def fetch_package(uri: str) -> Path:
    """The package's folder on this machine; `uri` names an artefact in storage, or is a folder."""
    found = artefact(uri, "packages")
    return found[0].fetch("packages", found[1]) if found else Path(uri)


def tokens_of(max_length: int) -> Callable[[Item], int]:
    """Tokens of an item, roughly: what it costs is known before anything is tokenised."""

    def cost(item: Item) -> int:
        if isinstance(item[0], dict) and any(isinstance(part, list) for part in item[0].values()):
            return sum(cost((text, {})) for text in texts_in(item[0]))  # each is read by itself
        return min(max_length, 2 + sum(map(len, texts_in(item[0]))) // _CHARACTERS_PER_TOKEN)

    return cost


def _said(error: Exception) -> str:
    return first_line(error) or type(error).__name__


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value[:8]) + (", ..." if len(value) > 8 else "")
