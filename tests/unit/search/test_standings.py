"""Events of trials become rows, and an honest guess of the time left."""

import pytest

from kdray.search.describe import TOTAL_EPOCHS
from kdray.search.standings import ENDED, Trials, chosen, rank


def begun(total: int = 4, epochs: int = 4, count: int = 1) -> Trials:
    """`count` trials that began at 0."""
    trials = Trials(total)
    for number in range(count):
        trials.proposed(str(number), {"alpha": number / 10, TOTAL_EPOCHS: epochs})
        trials.began(str(number), 0.0)
    return trials


def test_a_trial_waits_runs_and_finishes():
    trials = Trials(1)
    trials.proposed("a", {"alpha": 0.5, TOTAL_EPOCHS: 2})
    assert trials.rows["a"].state == "waiting"
    trials.began("a", 10.0)
    trials.proposed("a", {"alpha": 0.5})
    trials.epoch_ended("a", 1, 0.8, 13.0)
    row = trials.rows["a"]
    assert (row.state, row.epoch, row.best, row.pace) == ("running", 1, 0.8, 3.0)
    trials.epoch_ended("a", 2, 0.9, 15.0)
    trials.ended("a", "finished", 16.0)
    assert trials.rows["a"].state == "finished" and trials.rows["a"].seconds == 6.0


def test_a_student_that_was_there_is_found_and_says_nothing_about_time():
    trials = begun()
    trials.epoch_ended("0", 4, 0.9, 0.1)
    trials.ended("0", "finished", 0.2)
    assert trials.rows["0"].state == "found" and trials.rows["0"].seconds is None
    assert trials.left(1.0) is None


def test_a_trial_that_failed_for_now_begins_again_from_its_last_epoch():
    trials = begun()
    trials.epoch_ended("0", 1, 0.7, 10.0)
    trials.waits("0")
    assert trials.rows["0"].state == "waiting"
    trials.began("0", 100.0)
    assert trials.rows["0"].pace is None
    trials.epoch_ended("0", 2, 0.8, 120.0)
    assert trials.rows["0"].pace == 20.0
    trials.ended("0", "finished", 120.0)
    assert trials.rows["0"].state == "finished" and trials.rows["0"].seconds is None


def test_a_trial_that_lost_its_checkpoint_is_timed_from_its_second_begin():
    trials = begun()
    trials.epoch_ended("0", 1, 0.7, 10.0)
    trials.epoch_ended("0", 2, 0.7, 20.0)
    trials.began("0", 100.0)
    trials.epoch_ended("0", 1, 0.7, 107.0)
    assert trials.rows["0"].pace == 7.0


def test_time_left_of_a_trial_falls_between_epochs():
    trials = begun()
    trials.epoch_ended("0", 1, 0.7, 10.0)
    row = trials.rows["0"]
    assert [trials.row_left(row, now) for now in (10.0, 14.0, 60.0)] == [30.0, 26.0, 0.0]


def test_nothing_is_promised_before_an_epoch_ended():
    assert begun().left(5.0) is None and Trials(3).left(0.0) is None


def test_time_left_counts_waiting_trials_side_by_side():
    trials = begun(total=6, count=2)
    for name in ("0", "1"):
        trials.epoch_ended(name, 1, 0.7, 10.0)
    # 2 running with 30 s each, 4 more of 40 s: 220 s of work for two.
    assert trials.left(10.0) == pytest.approx(110.0)


def test_early_stops_shorten_what_is_expected():
    trials = begun(total=3, count=2)
    trials.epoch_ended("0", 1, 0.7, 10.0)
    trials.ended("0", "stopped", 10.0)
    # One running that takes 10 s as the one before, one waiting.
    assert trials.left(10.0) == pytest.approx(10.0)


def test_a_sweep_lasts_as_long_as_its_longest_trial():
    trials = begun(total=2, count=2)
    trials.epoch_ended("0", 1, 0.7, 10.0)
    trials.epoch_ended("1", 3, 0.7, 10.0)
    assert trials.left(10.0) == 30.0


def test_rank_is_by_metric_and_failed_ones_come_last():
    trials = begun(count=4)
    for name, best, state in [("0", 0.7, "finished"), ("1", 0.95, "failed"), ("2", 0.9, "stopped"),
                              ("3", None, "found")]:
        if best is not None:
            trials.epoch_ended(name, 1, best, 1.0)
        trials.ended(name, state, 2.0)
    assert [row.number for row in sorted(trials.inside(*ENDED), key=rank)] == [2, 0, 3, 1]


def test_a_hundred_trials_fit_any_room_with_the_running_the_best_and_the_last():
    trials = begun(total=100, count=90)
    for number in range(85):
        trials.epoch_ended(str(number), 1, 0.5 + number % 17 / 100, number)
        trials.ended(str(number), "stopped", number)
    for room in range(1, 95):
        rows = chosen(trials, room)
        assert len(rows) == min(room, 90)
        if room >= 8:
            assert [row.number for row in rows[:5]] == [85, 86, 87, 88, 89]
            assert rows[5].best == 0.66 and 84 in [row.number for row in rows]


def test_many_running_trials_leave_room_for_the_best():
    trials = begun(total=100, count=60)
    for number in range(10):
        trials.epoch_ended(str(number), 1, number / 10, 1.0)
        trials.ended(str(number), "stopped", 1.0)
    rows = chosen(trials, 12)
    assert [row.state for row in rows] == ["running"] * 9 + ["stopped"] * 3 and rows[9].number == 9
