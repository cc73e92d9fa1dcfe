"""What a machine keeps of remote storage stays within a limit: what nobody has used for longest goes first.

Two kinds of things lie in the machine's folder. A file in `copies` may go at any moment: who has it mapped keeps it. A
folder in `artefacts` stays as long as a process lives that was given it, for it may be read at any time; what is in use
does not count. Knows nothing about where they come from.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdray.errors import StorageError

LIMIT = "KDRAY_LOCAL_GIB"
"""Environment variable: GiB that a machine keeps."""
COPIES, ARTEFACTS = "copies", "artefacts"
LOCK = ".lock"
"""File beside an artefact that is locked while it is made or removed."""
PARTIAL = ".tmp-"
"""What the names of files begin with that are not whole yet."""
_DEFAULT_GIB = "10"
_SLACK = 0.05
"""Share of the limit that is free after something was removed, so that it is not looked for at every turn."""
_DEAD_SECONDS = 3600
"""Age of a partial file, which is there for as long as it takes to write what is downloaded, that nobody works on."""
_USE = ".use"
"""File beside an artefact that those who use it have locked, together."""
_used: dict[Path, int] = {}
"""Open files, never closed, of what this process uses, by its place."""


@dataclass(frozen=True)
class _Kept:
    """Something that may go."""

    when: int
    """When it was used last, in nanoseconds since 1970."""
    bytes: int
    remove: Callable[[], bool]
    """False where somebody began to use it."""


def limit() -> float:
    """Bytes that a machine keeps. Raises StorageError where KDRAY_LOCAL_GIB is no number."""
    text = os.environ.get(LIMIT, _DEFAULT_GIB)
    try:
        return float(text) * 2**30
    except ValueError as error:
        raise StorageError(f"the environment variable {LIMIT} = {text!r} is not a number") from error


def rarely(draw: float, size: int) -> bool:
    """Whether to look at all that is kept after `size` bytes came: on average once a twentieth of the limit.

    `draw` is any number that is as likely to be anywhere from 0 to 1.
    """
    return draw * limit() * _SLACK <= size


def use(place: Path) -> None:
    """Keeps the artefact at `place` from now on until this process ends; its lock must be held."""
    if place not in _used:
        _used[place] = os.open(place / _USE, os.O_RDWR | os.O_CREAT)
        fcntl.flock(_used[place], fcntl.LOCK_SH)
    now = time.time_ns()  # the system's own stamps are milliseconds apart
    os.utime(place / _USE, ns=(now, now))


def evict(folder: Path) -> None:
    """Removes from a machine's folder what nobody uses until it is within the limit, and what killed processes left."""
    found = [*_files(folder / COPIES), *_unused(folder / ARTEFACTS)]
    total = sum(kept.bytes for kept in found)
    for kept in sorted(found, key=lambda kept: kept.when):
        if total <= limit() * (1 - _SLACK):
            return
        if kept.remove():
            total -= kept.bytes


def _files(folder: Path) -> Iterator[_Kept]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                facts = entry.stat()
                if not entry.name.startswith("."):
                    yield _Kept(facts.st_mtime_ns, facts.st_size, _unlinks(entry.path))
                elif entry.name.startswith(PARTIAL) and facts.st_mtime < time.time() - _DEAD_SECONDS:
                    os.unlink(entry.path)


def _unlinks(path: str) -> Callable[[], bool]:
    def remove() -> bool:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return True

    return remove


def _unused(folder: Path) -> Iterator[_Kept]:
    for place in folder.glob("*"):
        with _alone(place) as alone:
            if alone:
                yield _Kept((place / _USE).stat().st_mtime_ns, _size(place), _empties(place))


def _empties(place: Path) -> Callable[[], bool]:
    def remove() -> bool:
        with _alone(place) as alone:
            for child in place.iterdir() if alone else ():
                if child.is_dir():
                    shutil.rmtree(child, ignore_errors=True)
            return alone

    return remove


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Whether nobody makes, removes or uses an artefact, and nobody does before the context ends."""
    with open(place / LOCK, "a") as lock, open(place / _USE, "a") as users:
        try:
            for file in (lock, users):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _size(place: Path) -> int:
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
