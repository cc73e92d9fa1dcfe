"""A running sweep becomes one live table on a terminal, a log line a change elsewhere.

Knows nothing about how trials are proposed or trained.
"""

import logging
import sys
import time
from collections import Counter
from typing import Any, Self

from ray import tune
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdray.metrics import BEST, EPOCHS, TRIALS, TRIALS_ASKED
from kdray.progress import duration
from kdray.search.describe import NAME, NUMBER, ROLE, TOTAL_EPOCHS, describe, point_of
from kdray.search.records import Record
from kdray.search.standings import ENDED, STATES, Row, State, Trials, chosen, rank
from kdray.threads import WAITED, Starvation
from kdray.training.health import warning_of

logger = logging.getLogger("kdray")
_OWN = (NAME, ROLE, NUMBER, TOTAL_EPOCHS, "temperature", "alpha")
"""Parts of a trial's configuration with a column of their own."""
_STYLES = {"running": "cyan", "failed": "red", "stopped": "dim"}
_WIDTHS = {"trial": 8, "temperature": 11, "alpha": 7, "best": 6, "state": 11, "left": 7}
"""Columns of a fixed width, so that the table does not jump; `student` and `settings` share what is left."""
_GAP = 2
_AROUND = 5
"""Lines of a table that are no row: the heading, the columns' names and a rule, `and 83 more`, the cursor's."""
_NARROW, _WIDE = 72, 90


def draw(trials: Trials, students: bool, now: float, width: int, height: int) -> Group:
    """Heading and table in at most `height` lines of `width` columns at the clock's `now`.

    `students`: whether a column says which student a trial trains.
    """
    rows, names = chosen(trials, max(1, height - _AROUND)), _columns(trials, students, width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0),
                  header_style="bold")
    free = [name for name in names if name not in _WIDTHS]
    share = (width - sum(_GAP + _WIDTHS.get(name, 0) for name in names)) // max(1, len(free))
    for name in names:
        table.add_column(name, justify="left" if name in ("trial", "state", *free) else "right", no_wrap=True,
                         min_width=_WIDTHS.get(name), max_width=None if name in _WIDTHS else max(7, share))
    best = min(trials.inside("finished", "found", "stopped"), key=rank, default=None)
    for row in rows:
        cells = _cells(row, trials, now)
        table.add_row(*(cells[name] for name in names), style="bold green" if row is best else _STYLES.get(row.state))
    others = len(trials.rows) - len(rows)
    return Group(_heading(trials, now), table, *([Text(f"and {others} more", style="dim")] if others else []))


def _columns(trials: Trials, students: bool, width: int) -> list[str]:
    """Those that hold something and fit: a narrow terminal does without `left`, then without `settings`."""
    settings = width >= _WIDE and any(set(row.config) - set(_OWN) for row in list(trials.rows.values()))
    return ["trial", *["student"] * students, "temperature", "alpha", *["settings"] * settings, "best", "state",
            *["left"] * (width >= _NARROW)]


def _cells(row: Row, trials: Trials, now: float) -> dict[str, str]:
    left = trials.row_left(row, now) if row.state == "running" else None
    state = {"running": f"epoch {min(row.epoch + 1, row.epochs)}/{row.epochs}",
             "stopped": f"stopped {row.epoch}/{row.epochs}"}.get(row.state, row.state)
    config, rest = row.config, {name: value for name, value in row.config.items() if name not in _OWN}
    return {"trial": "baseline" if config[ROLE] == "baseline" else str(config[NUMBER]), "student": config[NAME],
            "temperature": _number(config.get("temperature")), "alpha": _number(config.get("alpha")),
            "settings": describe(rest), "best": "" if row.best is None else f"{row.best:.4f}", "state": state,
            "left": "" if left is None else duration(left)}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _heading(trials: Trials, now: float) -> Text:
    ended, failed, left = len(trials.inside(*ENDED)), len(trials.inside("failed")), trials.left(now)
    parts = [f"sweep: {ended}/{trials.total} trials", f"{len(trials.inside('running'))} running",
             f"{failed} failed" if failed else "",
             f"{duration(left)} left" if left is not None and ended < trials.total else ""]
    return Text(" | ".join(part for part in parts if part), style="bold", no_wrap=True, overflow="ellipsis")


class Screen:
    """The live table on standard error; log lines, and what is printed to a terminal, appear above it."""

    def __init__(self, trials: Trials, students: bool):
        console, self._stream = Console(stderr=True), sys.stderr
        self._handlers = [handler for handler in _stream_handlers() if vars(handler).get("stream") is self._stream]
        self._live = Live(
            console=console, refresh_per_second=4, redirect_stdout=sys.stdout.isatty(),
            get_renderable=lambda: draw(trials, students, time.monotonic(), console.width, console.height))
        self._live.start()
        for handler in self._handlers:
            handler.setStream(sys.stderr)

    def close(self) -> None:
        """Leaves the last table and gives the terminal back."""
        for handler in self._handlers:
            handler.setStream(self._stream)
        self._live.stop()


def _stream_handlers() -> list[logging.StreamHandler]:
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    return [handler for item in known if isinstance(item, logging.Logger) for handler in item.handlers
            if isinstance(handler, logging.StreamHandler)]


def tell(trials: Trials) -> None:
    """The sweep's metrics."""
    states = Counter(row.state for row in trials.rows.values())
    for state in STATES:
        TRIALS.set(states[state], state=state)
    TRIALS_ASKED.set(trials.total)
    best: dict[tuple[str, str], float] = {}
    for row in trials.rows.values():
        whose = row.config[NAME], row.config[ROLE]
        if row.best is not None and row.state != "failed":
            best[whose] = max(row.best, best.get(whose, row.best))
    for (student, role), value in best.items():
        BEST.set(value, student=student, role=role)


class SweepProgress(tune.Callback):
    """Shows a sweep of `total` trials of the students `names`.

    A context that gives the terminal back, whatever ends the sweep.
    """

    def __init__(self, total: int, names: list[str]):
        self._names, self._trials = names, Trials(total)
        self._screen: Screen | None = None
        self._stopped: set[str] = set()
        self._starvation = Starvation("sweep: a trial", "training.num_cpus")

    def __reduce__(self) -> tuple[type["SweepProgress"], tuple[int, list[str]]]:
        return SweepProgress, (self._trials.total, self._names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._screen is not None:
            self._screen.close()
        self._screen = None

    def setup(self, *args: Any, **info: Any) -> None:
        """The sweep begins."""
        if sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal:
            self._screen = Screen(self._trials, len(self._names) > 1)

    def take_in(self, records: dict[str, Record]) -> None:
        """Takes in trials that had ended before the sweep was resumed, by place."""
        for place, record in records.items():
            if record.state is None:
                continue
            self._trials.proposed(place, record.config)
            if record.history:
                self._trials.epoch_ended(place, record.history[-1]["epoch"], record.best, time.monotonic())
            self._trials.ended(place, record.state, time.monotonic())

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Takes in trials that are proposed."""
        new = [trial for trial in trials if trial.trial_id not in self._trials.rows]
        for trial in new:
            self._trials.proposed(trial.trial_id, trial.config)
        if new:
            tell(self._trials)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or begins again."""
        self._trials.proposed(trial.trial_id, trial.config)
        self._trials.began(trial.trial_id, time.monotonic())
        tell(self._trials)
        self._say("%s begins", self._describe(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any],
                        **info: Any) -> None:
        """An epoch ended, or a trial reports in mid-epoch. Tune has marked the result where it stops the trial."""
        if result.get("done"):
            self._stopped.add(trial.trial_id)
        if "epoch" in result:
            self._trials.epoch_ended(trial.trial_id, result["epoch"], result["best"], time.monotonic())
            EPOCHS.add()
            tell(self._trials)
            self._say("%s | epoch %d | loss %.4f | best %.4f", self._describe(trial), result["epoch"], result["loss"],
                      result["best"])
            if warning := warning_of(result):
                logger.warning("sweep: %s: %s", self._describe(trial), warning)
            self._starvation.see(result.get(WAITED, 0.0))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial finished, was stopped, or reported a fault as its last."""
        if "fault" in (trial.last_result or {}):
            self.on_trial_error(iteration, trials, trial)
            return
        state: State = "stopped" if trial.trial_id in self._stopped else "finished"
        self._trials.ended(trial.trial_id, state, time.monotonic())
        tell(self._trials)
        self._say("%s ends | %d/%d trials", self._describe(trial), len(self._trials.inside(*ENDED)),
                  self._trials.total)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for now."""
        self._trials.waits(trial.trial_id)
        tell(self._trials)
        self._say("%s failed and will begin again", self._describe(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self._trials.ended(trial.trial_id, "failed", time.monotonic())
        tell(self._trials)
        self._say("%s failed", self._describe(trial), level=logging.WARNING)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The sweep ended."""
        self.__exit__()

    def _describe(self, trial: Any) -> str:
        return describe(point_of(trial.config), trial.config[NAME] if len(self._names) > 1 else "")

    def _say(self, text: str, *values: Any, level: int = logging.INFO) -> None:
        if self._screen is None:
            logger.log(level, "sweep: " + text, *values)
