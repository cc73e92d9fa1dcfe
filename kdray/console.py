"""What a command says and how it ends: log lines on standard error, errors without a trace, exit statuses.

With KDRAY_LOG=json every line on standard error is one JSON object: `time` (RFC 3339), `level`, `run`, `stage`,
`student` where one is at work, `message` and, after a bug, `exception`. Results on standard output stay as they are.
"""

import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from kdray.errors import ConfigError, KdrayError

FORMAT = "KDRAY_LOG"
FORMATS = ("text", "json")
logger = logging.getLogger("kdray")
_labels = {"run": "", "stage": "", "student": ""}


def label(**changes: str) -> None:
    """Says whose work this process does from now on: `run`, `stage`, `student`."""
    _labels.update(changes)


def labels() -> dict[str, str]:
    """`run`, `stage` and `student` of this process's work, empty where it has none."""
    return dict(_labels)


def log_to_stderr(worker: bool = False) -> None:
    """Time and message of everything that kdray says; a worker's lines say for which run and stage too.

    Raises ConfigError where KDRAY_LOG is neither text nor json.
    """
    found = os.environ.get(FORMAT) or FORMATS[0]
    if found not in FORMATS:
        raise ConfigError(f"the environment variable {FORMAT} = {found!r} must be {' or '.join(FORMATS)}")
    if found == "json" and not isinstance(sys.stderr, _Lines):
        sys.stderr = _Lines(sys.stderr)
        sys.excepthook = _tell_bug
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if found == "json" else _Text(worker))
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


def work_for(whose: dict[str, str]) -> None:
    """Makes this process, which somebody's Ray started, one that works for a driver with these labels."""
    label(**whose)
    log_to_stderr(worker=True)


def guarded(act: Callable[[], int | None]) -> int:
    """Runs `act` and says what went wrong; returns the exit status.

    0 done or what `act` returned, 1 an error, 130 interrupted (Ctrl-C), 143 stopped (SIGTERM).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with sigterm_as_ctrl_c() as came:
        try:
            log_to_stderr()
            return act() or 0
        except KdrayError as error:
            _tell_end(str(error))
            return 1
        except KeyboardInterrupt:
            said = "stopped; the same command, or submission," if came else "interrupted; the same command"
            _tell_end(f"{said} goes on from here")
            return 143 if came else 130


class _Text(logging.Formatter):
    """`12:00:00 message`, and in a worker `12:00:00 run/stage message`."""

    def __init__(self, worker: bool):
        super().__init__("%(asctime)s %(whose)s%(message)s", "%H:%M:%S")
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        record.whose = "/".join(filter(None, _labels.values())) + " " if self._worker else ""
        return super().format(record)


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        trace = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return _entry(record.levelname, record.getMessage(), record.created, **trace)


class _Lines:
    """Standard error on which what is no JSON object, such as another library's remark, becomes one, line by line."""

    def __init__(self, stream: Any):
        self._stream, self._rest = stream, ""

    def write(self, text: str) -> int:
        *whole, self._rest = re.split(r"[\r\n]", self._rest + text)
        for line in filter(str.strip, whole):
            self._stream.write((line if _is_object(line) else _entry("INFO", line)) + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        """It is for a machine, wherever it goes: no bars, no live table."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _entry(level: str, message: str, at: float | None = None, **more: str) -> str:
    when = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    time = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    whose = {name: value for name, value in _labels.items() if value or name != "student"}
    return json.dumps({"time": time, "level": level, **whose, "message": message, **more}, ensure_ascii=False)


def _tell_end(text: str) -> None:
    if isinstance(sys.stderr, _Lines):
        logger.error(text)
    else:
        print(f"kdray: {text}", file=sys.stderr)


def _tell_bug(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    print(_entry("CRITICAL", f"{kind.__name__}: {error}",
                 exception="".join(traceback.format_exception(kind, error, trace))), file=sys.stderr)
