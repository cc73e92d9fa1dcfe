"""Counts of work done become a bar on a terminal, or a plain line now and then in a job log.

Knows nothing about what is counted.
"""

import logging
import sys
import time
from typing import Protocol

from tqdm import tqdm

logger = logging.getLogger("kdray")


class Progress(Protocol):
    """Something that is told how far work has come."""

    def advance(self, count: int, note: str = "") -> None:
        """`count` more units are done; `note` says how it goes."""

    def close(self) -> None:
        """Work has ended."""


class Lines:
    """One log line at most every `seconds`, and one at the end."""

    def __init__(self, label: str, total: int, unit: str, seconds: float = 10.0, done: int = 0):
        self.label, self.total, self.unit, self.seconds = label, total, unit, seconds
        self.done, self.note, self._resumed = done, "", done
        self._logged = -1
        self.started = self.last = time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        """Counts, and logs when the last line is old enough."""
        self.done, self.note = self.done + count, note or self.note
        if time.monotonic() - self.last >= self.seconds:
            self._log()

    def close(self) -> None:
        """Logs the last count, where it has not been."""
        if self._logged != self.done:
            self._log()

    def _log(self) -> None:
        self.last, self._logged = time.monotonic(), self.done
        rate = (self.done - self._resumed) / max(self.last - self.started, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        note = f" | {self.note}" if self.note else ""
        logger.info("%s: %d/%d %s | %.0f %s/s | %s left%s", self.label, self.done, self.total, self.unit,
                    rate, self.unit, duration(left), note)


class Bar:
    """A tqdm bar on standard error."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0):
        self._bar = tqdm(desc=label, total=total, initial=done, unit=f" {unit}", leave=True, dynamic_ncols=True)

    def advance(self, count: int, note: str = "") -> None:
        """Moves the bar."""
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """Leaves the bar on the terminal."""
        self._bar.close()


def progress(label: str, total: int, unit: str = "rows", done: int = 0) -> Progress:
    """A bar where standard error is a terminal, plain lines elsewhere. `done` units were there before."""
    if sys.stderr.isatty():
        return Bar(label, total, unit, done)
    return Lines(label, total, unit, done=done)


def duration(seconds: float) -> str:
    """`75.2` becomes `1:15`, `4000` becomes `1:06:40`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
