"""Threads share processors with other processes: how long those of OpenMP spin, and how long a process's threads wait.

Threads that share an operation's work wait for each other at its end, by spinning: 300,000 turns, some milliseconds,
in GNU OpenMP, which torch computes with on a CPU. Where another process has one of the processors, all spin until the
last of them has had its turn there, and what they burn is taken from it. Knows nothing about what is computed.
"""

import contextlib
import logging
import os
import time
from pathlib import Path

logger = logging.getLogger("kdray")
_SPIN, _POLICY = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
_TURNS = "1000"
"""Some 20 microseconds: on a machine without other work about as fast as the default."""
WAITED = "waited"
"""What a share of waiting is called among facts and metrics."""
NICENESS = "RAY_worker_niceness"
"""Environment variable that Ray, where it starts, takes for the niceness of its workers."""
STARVED = 0.2
"""Share of its time for which a process that computes waits for a processor, above which it is said."""
_ENOUGH, _OFTEN = 5.0, 1.0
"""Seconds of running and waiting, over all threads, from which a share says something, and between two looks."""


def bound_spin() -> None:
    """Bounds how long OpenMP's threads spin in this process, and in those that it starts; what the user has set stays.

    OpenMP looks when it is loaded, with torch. Every process of a run imports kdray before that.
    """
    if _POLICY not in os.environ:
        os.environ.setdefault(_SPIN, _TURNS)


class Waits:
    """What share of their time this process's threads wait for a processor, since this was made."""

    def __init__(self) -> None:
        self._before, self._looked, self._share = _times(), time.monotonic(), 0.0

    def share(self) -> float:
        """As it was a second ago at most; 0 while that is too little to tell, and where the system keeps no account."""
        if time.monotonic() - self._looked >= _OFTEN:
            now = _times()
            ran, waited = (sum(now[thread][kind] - self._before.get(thread, (0.0, 0.0))[kind] for thread in now)
                           for kind in (0, 1))
            self._share = waited / (ran + waited) if ran + waited >= _ENOUGH else 0.0
            self._looked = time.monotonic()
        return self._share


class Starvation:
    """Tells a person once that `who`, whose processors `setting` says, is starved."""

    def __init__(self, who: str, setting: str):
        self._who, self._setting, self._said = who, setting, False

    def see(self, share: float) -> None:
        """The share of its time for which it waits."""
        if share > STARVED and not self._said:
            self._said = True
            logger.warning(starved(share, self._who, self._setting))


def starved(share: float, who: str, setting: str) -> str:
    """What to tell a person where `who`, whose processors `setting` says, waits for that share of its time."""
    niceness = os.environ.get(NICENESS, "15")
    later = f", or set {NICENESS}=0: Ray's workers have niceness {niceness}, others come first"
    return (f"{who} waits for {share:.0%} of its time for a processor that other processes have. End what runs beside "
            f"it, give it fewer processors ({setting}){later if niceness != '0' else ''}")


def _times() -> dict[str, tuple[float, float]]:
    """Seconds that each thread has run, and waited to run while it could have, by its number."""
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # the thread has ended, or the system keeps no account
            ran, waited, _ = map(float, path.read_text().split())
            found[path.parent.name] = ran / 1e9, waited / 1e9
    return found
