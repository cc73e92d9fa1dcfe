import os
import signal
import time
from collections.abc import Callable

import pytest

from kdray.console import guarded
from kdray.errors import ConfigError


def end(number: int) -> Callable[[], None]:
    def act() -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    return act


def swallowed() -> None:
    """Ray raises a KeyboardInterrupt of its own where a signal interrupts its waiting."""
    try:
        end(signal.SIGTERM)()
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None


def refuse() -> None:
    raise ConfigError("no such thing")


@pytest.mark.parametrize("act, status, said", [
    (lambda: None, 0, ""),
    (lambda: 7, 7, ""),
    (refuse, 1, "kdray: no such thing\n"),
    (end(signal.SIGINT), 130, "kdray: interrupted; the same command goes on from here\n"),
    (end(signal.SIGTERM), 143, "kdray: stopped; the same command, or submission, goes on from here\n"),
    (swallowed, 143, "kdray: stopped; the same command, or submission, goes on from here\n"),
])
def test_how_a_command_ends_and_what_it_says(act: Callable[[], int | None], status: int, said: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert guarded(act) == status
    assert capsys.readouterr().err == said
    assert signal.getsignal(signal.SIGTERM) is before
