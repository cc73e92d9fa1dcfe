"""A sweep is a table that fits the terminal, or a line a change."""

import io
import logging
import os
import pickle
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from kdray.search.describe import BASELINE, NAME, NUMBER, ROLE, TOTAL_EPOCHS
from kdray.search.live import SweepProgress, draw
from kdray.search.records import Record
from kdray.search.standings import Trials

OWN = {NAME: "small", ROLE: "distilled", NUMBER: 1, TOTAL_EPOCHS: 3}
PLAIN = {**OWN, ROLE: "baseline", **BASELINE}


def shown(trials: Trials, width: int, height: int, students: bool = False, now: float = 10.0) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    console.print(draw(trials, students, now, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def sweep(count: int, points: list[dict[str, Any]] | None = None, running: int = 2) -> Trials:
    """`count` of 100 trials: the baseline first, the last `running` still running."""
    trials = Trials(100)
    for number in range(count):
        point = points[number] if points else {
            **OWN, NUMBER: number, TOTAL_EPOCHS: 4, "temperature": 1 + number / 7, "alpha": number / 200}
        trials.proposed(str(number), PLAIN if number == 0 and not points else point)
        trials.began(str(number), 0.0)
        trials.epoch_ended(str(number), 1, 0.5 + number / 1000, 5.0)
        if number < count - running:
            trials.ended(str(number), "stopped" if number % 2 else "finished", 6.0)
    return trials


@pytest.mark.parametrize("width, height", [(80, 24), (120, 40), (60, 15), (50, 10), (40, 8)])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_a_sweep_fits_the_terminal(width, height, count):
    names = [{**OWN, NAME: "a-rather-long-name", NUMBER: 7, "temperature": 1.234567, "alpha": 0.0123456,
              "lr": 1e-4 / 3}] * count
    for points in (None, names):
        lines = shown(sweep(count, points), width, height, students=bool(points))
        assert len(lines) < height and max(map(cell_len, lines)) <= width


def test_a_table_says_what_is_known_of_each_trial():
    lines = shown(sweep(4), 80, 24)
    assert lines[0] == "sweep: 2/100 trials | 2 running | 4:58 left"
    assert lines[1].split() == ["trial", "temperature", "alpha", "best", "state", "left"]
    assert [line.split() for line in lines[3:]] == [
        ["2", "1.29", "0.01", "0.5020", "epoch", "2/4", "0:10"],
        ["3", "1.43", "0.015", "0.5030", "epoch", "2/4", "0:10"],
        ["1", "1.14", "0.005", "0.5010", "stopped", "1/4"], ["baseline", "1", "0.5000", "finished"]]


def test_students_and_other_settings_have_columns_where_there_are_any():
    trials = sweep(2, [{**OWN, "temperature": 2.0, "alpha": 0.5, "loss": "kl"}, {**PLAIN, NAME: "tiny"}])
    lines = shown(trials, 100, 24, students=True)
    assert lines[1].split() == ["trial", "student", "temperature", "alpha", "settings", "best", "state", "left"]
    assert lines[3].split()[:6] == ["1", "small", "2", "0.5", "loss", "kl"]
    assert lines[4].split()[:3] == ["baseline", "tiny", "1"]


def test_what_does_not_fit_is_counted():
    lines = shown(sweep(100), 80, 24)
    assert lines[-1] == "and 81 more" and len(lines) == 23


def test_a_trial_without_a_metric_and_a_failed_one_are_shown():
    trials = Trials(2)
    for name, number in (("0", 1), ("1", 2)):
        trials.proposed(name, {**OWN, NUMBER: number, "alpha": 0.5})
        trials.began(name, 0.0)
    trials.ended("1", "failed", 1.0)
    lines = shown(trials, 80, 24)
    assert lines[0] == "sweep: 1/2 trials | 1 running | 1 failed"
    assert [line.split() for line in lines[3:]] == [["1", "0.5", "epoch", "1/3"], ["2", "0.5", "failed"]]


@dataclass
class Trial:
    """What is asked of Tune's trial."""

    trial_id: str
    config: dict[str, Any]
    last_result: dict[str, Any] | None = None


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, "kdray")
    return caplog


def test_a_job_log_gets_a_line_a_change(said):
    trial, other = Trial("a", {**OWN, "temperature": 2.0, "alpha": 0.5}), Trial("b", PLAIN)
    with SweepProgress(2, ["small"]) as progress:
        progress.setup()
        progress.on_step_begin(0, [trial])
        progress.on_trial_start(0, [], trial)
        progress.on_trial_result(0, [], trial, {"step": 10})
        progress.on_trial_result(0, [], trial, {"epoch": 1, "loss": 0.5, "best": 0.875})
        progress.on_trial_recover(0, [], trial)
        progress.on_trial_complete(0, [], trial)
        progress.on_trial_start(0, [], other)
        progress.on_trial_error(0, [], other)
        progress.on_trial_complete(0, [], Trial("b", PLAIN, last_result={"fault": "the loss is nan"}))
    assert said.messages == [
        "sweep: temperature 2, alpha 0.5 begins",
        "sweep: temperature 2, alpha 0.5 | epoch 1 | loss 0.5000 | best 0.8750",
        "sweep: temperature 2, alpha 0.5 failed and will begin again",
        "sweep: temperature 2, alpha 0.5 ends | 1/2 trials",
        "sweep: baseline (alpha 1) begins",
        "sweep: baseline (alpha 1) failed",
        "sweep: baseline (alpha 1) failed"]


def test_trials_of_before_a_sweep_was_resumed_count(said):
    def record(number: int, state: Any, epoch: int, best: float) -> Record:
        return Record({**OWN, NUMBER: number, "alpha": 0.1}, [{"epoch": epoch, "best": best}], state)

    again = Trial("c", {**OWN, NUMBER: 4, "alpha": 0.2})
    progress = SweepProgress(4, [])
    progress.take_in({"done": record(1, "finished", 3, 0.9), "early": record(2, "stopped", 1, 0.7),
                      "bad": Record({**OWN, NUMBER: 3}, [], "failed"), "again": record(4, None, 2, 0.8)})
    assert [(row.state, row.epoch) for row in progress._trials.rows.values()] == [
        ("found", 3), ("stopped", 1), ("failed", 0)]
    progress.on_step_begin(0, [again])
    progress.on_trial_start(0, [], again)
    progress.on_trial_complete(0, [], again)
    assert said.messages[-1] == "sweep: alpha 0.2 ends | 4/4 trials"


def test_a_line_says_whose_trial_it_is_where_there_are_several_students(said):
    progress = SweepProgress(4, ["small", "tiny"])
    progress.on_trial_start(0, [], Trial("a", {**PLAIN, NAME: "tiny"}))
    assert said.messages == ["sweep: tiny: baseline (alpha 1) begins"]


def test_what_tune_keeps_of_it_is_how_it_was_made():
    progress = pickle.loads(pickle.dumps(SweepProgress(5, ["a", "b"])))
    assert (progress._trials.total, progress._names) == (5, ["a", "b"])


SCRIPT = """
import logging, sys
from kdray.console import guarded
from kdray.search.live import SweepProgress
from tests.unit.search.test_live import OWN, Trial

def act():
    with SweepProgress(2, []) as progress:
        progress.setup()
        progress.on_trial_start(0, [], Trial("a", {**OWN, "alpha": 0.5}))
        logging.getLogger("kdray").warning("a line of the log")
        progress._screen._live.refresh()
        raise KeyboardInterrupt

sys.exit(guarded(act))
"""


def test_a_terminal_is_whole_after_an_interrupt_and_log_lines_are_above_the_table():
    main, side = pty.openpty()
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdin=side, stderr=side, stdout=subprocess.PIPE, timeout=60,
                          cwd=Path(__file__).parents[3], env={**os.environ, "TERM": "xterm", "COLUMNS": "80"})
    os.close(side)
    text = os.read(main, 100_000).decode()
    os.close(main)
    assert done.returncode == 130 and done.stdout == b""
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is hidden"
    line = next(part for part in text.splitlines() if "a line of the log" in part)
    assert "sweep:" not in line and text.rindex("sweep: 0/2 trials") > text.index("a line of the log")
    assert text.rindex("kdray: interrupted") > text.rindex("sweep: 0/2 trials")


def test_a_sweep_says_once_that_its_trials_are_starved(caplog):
    trial = Trial("a", OWN)
    with caplog.at_level(logging.WARNING, "kdray"), SweepProgress(2, ["small"]) as progress:
        progress.on_trial_start(0, [], trial)
        for epoch in (1, 2):
            progress.on_trial_result(0, [], trial, {"epoch": epoch, "loss": 0.5, "best": 0.5, "waited": 0.471})
    (said,) = caplog.messages
    assert said.startswith("sweep: a trial waits for 47% of its time for a processor") and "training.num_cpus" in said
