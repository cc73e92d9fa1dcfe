"""What a command says and how it ends: log lines on standard error, errors without a trace, exit statuses."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kdray.errors import KdrayError


def log_to_stderr() -> None:
    """Time and message of everything that kdray says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("kdray")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[list[int]]:
    """SIGTERM ends what runs here as Ctrl-C does: with a KeyboardInterrupt, and notes itself in the list.

    A subclass of KeyboardInterrupt would not say which it was: where Ray waits, it raises one of its own instead.
    """
    came: list[int] = []

    def end(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def guarded(act: Callable[[], int | None]) -> int:
    """Runs `act` and says what went wrong; returns the exit status.

    0 done or what `act` returned, 1 an error, 130 interrupted (Ctrl-C), 143 stopped (SIGTERM).
    """
    log_to_stderr()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with sigterm_as_ctrl_c() as came:
        try:
            return act() or 0
        except KdrayError as error:
            print(f"kdray: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            said = "stopped; the same command, or submission," if came else "interrupted; the same command"
            print(f"kdray: {said} goes on from here", file=sys.stderr)
            return 143 if came else 130
