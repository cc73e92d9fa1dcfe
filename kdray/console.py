"""What a command says and how it ends: log lines on standard error, errors without a trace, exit statuses."""

import logging
import os
import sys
from collections.abc import Callable

from kdray.errors import KdrayError


def log_to_stderr() -> None:
    """Time and message of everything that kdray says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("kdray")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def guarded(act: Callable[[], None]) -> int:
    """Runs `act` and says what went wrong; returns the exit status: 0 done, 1 an error, 130 interrupted."""
    log_to_stderr()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        act()
    except KdrayError as error:
        print(f"kdray: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kdray: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0
