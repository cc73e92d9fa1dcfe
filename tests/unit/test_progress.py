"""Progress is plain lines where no terminal is, and a bar where one is."""

import io
import logging

import pytest

from kdray import progress as module
from kdray.progress import Bar, Lines, duration, progress


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(module.logger, "info", lambda text, *values: found.append(text % values))
    return found


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("seconds, text", [
    (0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (75.2, "1:15"), (3599.7, "1:00:00"), (4000, "1:06:40")])
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text


def test_a_line_comes_when_the_last_is_old_enough_and_at_the_end(lines, clock):
    shown = Lines("teacher", 100, "rows", seconds=10)
    for second in range(1, 26):
        clock[0] = float(second)
        shown.advance(2, **({"loss": 0.5} if second == 3 else {}))
    shown.close()
    assert lines == ["teacher: 20/100 rows | 2 rows/s | 0:40 left | loss 0.5000",
                     "teacher: 40/100 rows | 2 rows/s | 0:30 left | loss 0.5000",
                     "teacher: 50/100 rows | 2 rows/s | 0:25 left | loss 0.5000"]


def test_work_done_before_does_not_count_in_the_rate(lines, clock):
    shown = Lines("epoch", 100, "rows", done=60)
    clock[0] = 10.0
    shown.advance(20)
    assert lines == ["epoch: 80/100 rows | 2 rows/s | 0:10 left"]


def test_the_end_does_not_repeat_the_line_that_told_it(lines, clock):
    shown = Lines("teacher", 20, "rows", seconds=10)
    clock[0] = 10.0
    shown.advance(20)
    shown.close()
    assert lines == ["teacher: 20/20 rows | 2 rows/s | 0:00 left"]


def test_no_work_at_all_is_no_division_by_zero(lines, clock):
    Lines("empty", 0, "rows").close()
    assert lines == ["empty: 0/0 rows | 0 rows/s | 0:00 left"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream, kind", [(Terminal, Bar), (io.StringIO, Lines)])
def test_a_terminal_gets_a_bar_and_a_job_log_gets_lines(monkeypatch, stream, kind):
    monkeypatch.setattr(module.sys, "stderr", stream())
    shown = progress("x", 10)
    assert isinstance(shown, kind)
    shown.advance(10, actors=3)
    shown.close()


def test_a_bar_shows_label_count_and_facts(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(module.sys, "stderr", terminal)
    shown = progress("epoch 1/2", 10, done=4)
    shown.advance(6, loss=0.25, actors=3)
    shown.close()
    assert all(part in terminal.getvalue() for part in ("epoch 1/2", "10/10", "loss 0.2500, actors 3"))


def test_lines_go_to_the_kdray_logger():
    assert module.logger is logging.getLogger("kdray")
