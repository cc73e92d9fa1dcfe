"""Another user of this machine, for real: needs root."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user too")


@contextmanager
def another_user(act: Callable[[], object]) -> Iterator[None]:
    """After `act` by another user, whose process lives on with what `act` returned, such as an open socket."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            kept = act()
            os.write(there, b"done")
            signal.pause()
            del kept
        finally:
            os._exit(1)
    os.close(there)
    try:
        assert os.read(here, 4) == b"done", "the other user could not do it"
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(here)


def does(act: Callable[[], object]) -> None:
    """Another user has done `act`."""
    with another_user(act):
        pass


@pytest.fixture
def everybodys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that all users share, as /tmp is."""
    folder = Path(tempfile.mkdtemp(prefix="everybodys-", dir="/tmp"))
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)
