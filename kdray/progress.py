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

    def advance(self, count: int, **facts: float) -> None:
        """`count` more units are done; `facts` are numbers that say how it goes, by name."""

    def close(self) -> None:
        """Work has ended."""


class Lines:
    """One log line at most every `seconds`, and one at the end."""

    def __init__(self, label: str, total: int, unit: str, seconds: float = 10.0, done: int = 0, ago: float = 0.0):
        self.label, self.total, self.unit, self.seconds = label, total, unit, seconds
        self.done, self.facts, self._resumed = done, dict[str, float](), done
        self._logged = -1
        self.last = time.monotonic()
        self.started = self.last - ago

    def advance(self, count: int, **facts: float) -> None:
        """Counts, and logs when the last line is old enough."""
        self.done, self.facts = self.done + count, facts or self.facts
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
        note = f" | {told(self.facts)}" if self.facts else ""
        logger.info("%s: %d/%d %s | %.0f %s/s | %s left%s", self.label, self.done, self.total, self.unit,
                    rate, self.unit, duration(left), note)


class Bar:
    """A tqdm bar on standard error."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0, ago: float = 0.0):
        self._bar = tqdm(desc=label, total=total, initial=done, unit=f" {unit}", leave=True, dynamic_ncols=True)
        self._bar.start_t -= ago
        self._bar.last_print_t -= ago

    def advance(self, count: int, **facts: float) -> None:
        """Moves the bar."""
        if facts:
            self._bar.set_postfix_str(told(facts), refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """Leaves the bar on the terminal."""
        self._bar.close()


def progress(label: str, total: int, unit: str = "rows", done: int = 0, ago: float = 0.0) -> Progress:
    """A bar where standard error is a terminal, plain lines elsewhere.

    `done` units were there before the work began, `ago` seconds before now.
    """
    if sys.stderr.isatty():
        return Bar(label, total, unit, done, ago)
    return Lines(label, total, unit, done=done, ago=ago)


def told(facts: dict[str, float]) -> str:
    """`{"actors": 3, "loss": 0.25}` becomes `actors 3, loss 0.2500`."""
    return ", ".join(f"{name} {value}" if isinstance(value, int) else f"{name} {value:.4f}"
                     for name, value in facts.items())


def duration(seconds: float) -> str:
    """`75.2` becomes `1:15`, `4000` becomes `1:06:40`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
