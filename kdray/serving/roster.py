"""Names become students that answer: loaded beside those that serve, checked, and switched to in one step.

Knows nothing about Ray or HTTP. Invariant: a name that has been served keeps a student that passed its check, whatever
is asked for later; whoever uses a student has it until done.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kdray.errors import KdrayError, ModelError
from kdray.serving.batcher import Batcher
from kdray.serving.parity import check_parity
from kdray.serving.predictor import Item, Prediction, Predictor, load_predictor, read_package
from kdray.storage import artefact

logger = logging.getLogger("kdray")

DEFAULT = "default"
_CHARACTERS_PER_TOKEN = 4
_BATCHES = 2
"""Batches of the model that are drawn from the queue together: sorted by length, they hold less padding."""


class Slot(BaseModel):
    """What a name serves: a package, and beside it another for a share of the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str = Field(description="Folder or URI of a package")
    canary: str | None = Field(None, description="Folder or URI of the package on trial")
    share: float = Field(0.0, ge=0, le=1, description="Share of the requests that the canary answers")
    previous: str | None = Field(None, description="What --back returns to")

    @property
    def packages(self) -> list[str]:
        """The packages that answer."""
        return [uri for uri in (self.package, self.canary) if uri]


@dataclass
class Student:
    """A package that is loaded."""

    uri: str
    manifest: dict[str, Any]
    batcher: Batcher[Item, Prediction]
    users: int = 0


@dataclass(frozen=True)
class Engine:
    """How students are run."""

    backend: str
    num_gpus: float
    threads: int
    batch_tokens: int
    max_queue: int


class Roster:
    """Students by name. Belongs to one event loop."""

    def __init__(self, engine: Engine, saw: Callable[[int], None] = lambda size: None):
        """`saw` is told the size of each batch."""
        self._engine, self._saw = engine, saw
        self._loaded: dict[str, Student] = {}
        self.slots: dict[str, Slot] = {}
        self.refused: dict[str, str] = {}
        """Names whose wanted package did not pass, and why."""
        self._lock = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._retiring: set[asyncio.Task[None]] = set()

    async def apply(self, wanted: dict[str, Slot]) -> None:
        """Serves what is wanted. A name whose package cannot be loaded, or fails its check, stays as it is.

        Raises KdrayError where such a name serves nothing yet.
        """
        async with self._lock:
            slots, refused = {}, {}
            for name, slot in wanted.items():
                try:
                    for uri in slot.packages:
                        await self._load(uri)
                    slots[name] = slot
                except KdrayError as error:
                    if name not in self.slots:
                        raise
                    logger.error("%s stays as it is: %s", name, error)
                    slots[name], refused[name] = self.slots[name], str(error)
            self.slots, self.refused = slots, refused
            self._retire({uri for slot in slots.values() for uri in slot.packages})

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

    def manifest(self, name: str) -> dict[str, Any]:
        """Manifest of the package that `name`, one of `slots`, serves."""
        return self._loaded[self.slots[name].package].manifest

    @property
    def waiting(self) -> int:
        """Items in all queues."""
        return sum(student.batcher.waiting for student in self._loaded.values())

    @property
    def full(self) -> bool:
        """Whether no student has room for another input."""
        return all(student.batcher.full for student in self._loaded.values())

    async def close(self) -> None:
        """Answers what waits, and ends."""
        for student in self._loaded.values():
            await student.batcher.close()
        await asyncio.gather(*self._retiring)
        self._loader.shutdown()

    async def _load(self, uri: str) -> None:
        if uri in self._loaded:
            return
        loop = asyncio.get_running_loop()
        manifest, predictor = await loop.run_in_executor(self._loader, load_checked, uri, self._engine)
        self._loaded[uri] = Student(uri, manifest, Batcher(
            predictor.predict, tokens_of(manifest["max_length"]), _BATCHES * self._engine.batch_tokens,
            self._engine.max_queue, self._saw))

    def _retire(self, kept: set[str]) -> None:
        for uri in [uri for uri in self._loaded if uri not in kept]:
            task = asyncio.create_task(_leave(self._loaded.pop(uri)))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


def load_checked(uri: str, engine: Engine) -> tuple[dict[str, Any], Predictor]:
    """Manifest and predictor of the package at `uri`, warm. Raises KdrayError where it fails its own parity sample."""
    folder = fetch_package(uri)
    try:
        predictor = load_predictor(folder, engine.backend, engine.num_gpus, engine.threads, engine.batch_tokens)
        check_parity(folder, predictor)
    except KdrayError:
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise ModelError(f"{uri} cannot be run with backend {engine.backend}: {said}. Export it again, or choose "
                         "another `serve.backend`") from error
    return read_package(folder), predictor


def fetch_package(uri: str) -> Path:
    """The package's folder on this machine; `uri` names an artefact in storage, or is a folder."""
    found = artefact(uri, "packages")
    return found[0].fetch("packages", found[1]) if found else Path(uri)


def tokens_of(max_length: int) -> Callable[[Item], int]:
    """Tokens of an item, roughly: a batch is drawn before anything is tokenised."""

    def cost(item: Item) -> int:
        texts = item[0].values() if isinstance(item[0], dict) else [item[0]]
        return min(max_length, 2 + sum(len(text) for text in texts if isinstance(text, str)) // _CHARACTERS_PER_TOKEN)

    return cost


async def _leave(student: Student) -> None:
    while student.users:
        await asyncio.sleep(0.05)
    await student.batcher.close()
