"""What happens to trials becomes the table of a running sweep, and how long it still takes.

Plain state: events and a clock's seconds in, rows out. Knows nothing about Ray, nor how the table is shown.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from kdray.search.describe import TOTAL_EPOCHS

State = Literal["waiting", "running", "finished", "found", "stopped", "failed"]
"""found: the student was there before."""
STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("finished", "found", "stopped", "failed")


@dataclass(frozen=True)
class Row:
    """A trial of the table."""

    number: int
    """In the order of proposal, from 0."""
    config: dict[str, Any]
    """The trial's configuration."""
    state: State = "waiting"
    epoch: int = 0
    """Epochs done."""
    best: float | None = None
    begun: float = 0.0
    """Clock when the trial last began."""
    begun_epoch: int = 0
    """Epochs that were done then."""
    at: float = 0.0
    """Clock at the last change."""

    @property
    def epochs(self) -> int:
        """Epochs that it is to take."""
        return int(self.config[TOTAL_EPOCHS])

    @property
    def pace(self) -> float | None:
        """Seconds an epoch since the trial last began; None before it did one."""
        done = self.epoch - self.begun_epoch
        return (self.at - self.begun) / done if done > 0 else None

    @property
    def seconds(self) -> float | None:
        """How long an ended trial ran; None where it failed, or ran in part or not at all here."""
        return self.at - self.begun if self.state in ("finished", "stopped") and self.begun_epoch == 0 else None


class Trials:
    """The trials of a sweep of `total`."""

    def __init__(self, total: int):
        self.total = total
        self.rows: dict[str, Row] = {}

    def proposed(self, trial: str, config: dict[str, Any]) -> None:
        """A trial is there; nothing changes where it was."""
        if trial not in self.rows:
            self.rows[trial] = Row(len(self.rows), config)

    def began(self, trial: str, now: float) -> None:
        """A trial begins, or begins again from its last epoch."""
        row = self.rows[trial]
        self.rows[trial] = replace(row, state="running", begun=now, begun_epoch=row.epoch, at=now)

    def epoch_ended(self, trial: str, epoch: int, best: float | None, now: float) -> None:
        """An epoch ended; where epochs before it were not told, they were not done here."""
        row = self.rows[trial]
        begun_epoch = epoch if epoch > row.epoch + 1 else min(row.begun_epoch, epoch - 1)
        self.rows[trial] = replace(row, epoch=epoch, best=best, begun_epoch=begun_epoch, at=now)

    def waits(self, trial: str) -> None:
        """A trial failed and will begin again."""
        self.rows[trial] = replace(self.rows[trial], state="waiting")

    def ended(self, trial: str, state: State, now: float) -> None:
        """A trial ended; one that finished without an epoch done here was found."""
        row = self.rows[trial]
        found = state == "finished" and row.begun_epoch == row.epoch > 0
        self.rows[trial] = replace(row, state="found" if found else state, at=now)

    def inside(self, *states: State) -> list[Row]:
        """The rows in one of `states`, in the order of proposal."""
        return [row for row in list(self.rows.values()) if row.state in states]

    def row_left(self, row: Row, now: float) -> float | None:
        """Seconds that a running trial still takes if it is not stopped; None where nothing tells."""
        if row.pace is not None:
            return max(0.0, row.pace * (row.epochs - row.epoch) - (now - row.at))
        whole = self._whole()
        return None if whole is None else max(0.0, whole - (now - row.begun))

    def left(self, now: float) -> float | None:
        """Seconds that the sweep still takes, with as many trials side by side as now; None where nothing tells."""
        running, whole = self.inside("running"), self._whole()
        if whole is None:
            return None
        rest = [self.row_left(row, now) or 0.0 for row in running]
        waiting = max(0, self.total - len(self.inside(*ENDED)) - len(running))
        return max([(sum(rest) + waiting * whole) / max(1, len(running)), *rest])

    def _whole(self) -> float | None:
        """Mean seconds of the trials that ran here, early stops included; before one ended, what the pace promises."""
        ended = [row.seconds for row in list(self.rows.values()) if row.seconds is not None]
        promised = [row.pace * row.epochs for row in self.inside("running") if row.pace is not None]
        known = ended or promised
        return sum(known) / len(known) if known else None


def rank(row: Row) -> tuple[bool, float, int]:
    """Sorts rows by metric, the largest first, then those without one, and failed ones last."""
    return row.state == "failed", -(row.best if row.best is not None else float("-inf")), row.number


def chosen(trials: Trials, room: int) -> list[Row]:
    """At most `room` rows: the running ones, then the best of those that ended, with the last of them."""
    ended = sorted(trials.inside(*ENDED), key=rank)
    running = trials.inside("running")[:max(1, room - min(len(ended), 3))]
    kept = ended[:max(0, room - len(running))]
    last = max(ended, key=lambda row: row.at, default=None)
    if last is not None and len(kept) > 1 and last not in kept:
        kept[-1] = last
    return [*running, *kept]
