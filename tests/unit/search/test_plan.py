"""A plan's trials do not depend on how many run side by side, and a plan that is told all again is the same."""

import random
from typing import Any

import pytest

from kdray.config import Domain, SearchConfig, TrainingConfig
from kdray.search.describe import BASELINE
from kdray.search.plan import Plan
from kdray.search.points import Listed, learns, make_plans
from kdray.search.selection import best
from tests.simulated import Hill, Schedules, sweep

EPOCHS = 5
TRAINING = TrainingConfig(epochs=EPOCHS)


def make_plan(search: SearchConfig, training: TrainingConfig = TRAINING) -> Plan:
    return make_plans(search, training)["distilled"]


def quality(point: dict[str, Any], epoch: int) -> float:
    """A made-up validation metric that grows with the epochs."""
    return (1 - (point["alpha"] - 0.3)**2 - 0.01 * abs(point.get("temperature", 2) - 3)) * (1 - 0.5**epoch)


def run(plan: Plan, side_by_side: int, seed: int = 0) -> list[tuple[dict[str, Any], dict[int, float], str]]:
    """Runs a plan's trials, `side_by_side` at a time, whose epochs end in random order."""
    order, running, points = random.Random(seed), {}, {}
    while True:
        while plan.ready and len(running) < side_by_side:
            number, point = plan.propose()
            running[number], points[number] = 0, point
        if not running:
            return [(points[number], told.values, told.state) for number, told in enumerate(plan.told)]
        number = order.choice(list(running))
        running[number] += 1
        on = plan.goes_on(number, running[number], quality(points[number], running[number]))
        if not on or running[number] == EPOCHS:
            del running[number]
            plan.end(number, "finished" if on else "stopped")


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_what_is_found_does_not_depend_on_how_many_run_side_by_side(algorithm):
    search = SearchConfig(trials=40, algorithm=algorithm)
    alone = run(make_plan(search), 1)
    assert len(alone) == 40
    assert {state for _, _, state in alone} == {"finished", "stopped"}
    for side_by_side in (2, 7, 100):
        for seed in range(3):
            assert run(make_plan(search), side_by_side, seed) == alone


def test_tpe_learns_where_random_does_not():
    last = {}
    for algorithm in ("tpe", "random"):
        trials = run(make_plan(SearchConfig(trials=80, algorithm=algorithm)), 4)
        last[algorithm] = sum(quality(point, EPOCHS) for point, _, _ in trials[-20:])
    assert last["tpe"] > last["random"]


@pytest.mark.parametrize("trials, learning", [(5, []), (6, [5]), (8, [5, 6, 7]), (16, list(range(7, 16)))])
def test_what_trials_tell_changes_the_points_of_later_ones_also_in_small_searches(trials, learning):
    up, down = (proposed(make_plan(SearchConfig(trials=trials)), sign) for sign in (1, -1))
    assert [number for number in range(trials) if up[number] != down[number]] == learning
    assert learns(SearchConfig(trials=trials)) == bool(learning)


def proposed(plan: Plan, sign: int) -> list[dict[str, Any]]:
    """Points of trials that are the better the larger, or smaller, their alpha is."""
    points = []
    while plan.ready:
        number, point = plan.propose()
        plan.goes_on(number, EPOCHS, sign * point["alpha"])
        plan.end(number, "finished")
        points.append(point)
    return points


def test_tpe_finds_better_settings_than_random_more_often_than_not_in_16_trials():
    space = SearchConfig().searched(TRAINING)
    better = 0
    for seed in range(40):
        world, found = Hill(seed, space), []
        for number, algorithm in enumerate(("tpe", "random")):
            search = SearchConfig(trials=16, algorithm=algorithm, seed=2 * seed + number)
            found.append(world.quality(best(sweep(search, TRAINING, world), "distilled")["point"]))
        better += found[0] > found[1]
    assert better >= 24


def test_other_seeds_search_elsewhere():
    points = [[point for point, _, _ in run(make_plan(SearchConfig(trials=6, seed=seed)), 2)]
              for seed in (0, 1)]
    assert points[0][0] == points[1][0] and points[0][1:] != points[1][1:]


def test_a_grid_is_every_combination_and_what_trials_says_is_nothing_to_it():
    space = {"temperature": Domain(values=[1, 2, 4]), "alpha": Domain(values=[0.0, 0.5])}
    found = run(make_plan(SearchConfig(algorithm="grid", trials=1, space=space)), 2)
    assert [point for point, _, _ in found] == [
        {"temperature": t, "alpha": a} for t in (1, 2, 4) for a in (0.0, 0.5)]


def test_the_next_trial_waits_for_those_that_it_learns_from_and_for_no_other():
    plan = make_plan(SearchConfig(trials=8))
    for _ in range(4):
        assert plan.ready
        plan.propose()
    assert plan.ahead == 4 and not plan.ready
    plan.end(1, "finished")
    assert not plan.ready
    plan.end(0, "failed")
    assert plan.ready


def told_all(grace: int, values: list[list[float]], epochs: int = 9) -> list[bool]:
    """Whether each trial of a grid went on at its last value; trials run one after another."""
    space = {"alpha": Domain(values=[0.1 * place for place in range(len(values))])}
    plan = make_plan(SearchConfig(algorithm="grid", space=space, grace=grace), TrainingConfig(epochs=epochs))
    found = []
    for told in values:
        number, _ = plan.propose()
        found.append([plan.goes_on(number, epoch, value) for epoch, value in enumerate(told, 1)][-1])
        plan.end(number, "finished" if found[-1] else "stopped")
    return found


def test_a_trial_below_the_median_of_those_it_may_know_stops_and_one_at_it_goes_on():
    assert told_all(1, [[0.1], [0.2], [0.3], [0.4], [0.05], [0.2], [0.14]]) == [
        True, True, True, True, False, True, False]


@pytest.mark.parametrize("grace, epochs, rungs", [(1, 9, [1, 2, 4, 8]), (3, 9, [3, 6]), (2, 4, [2]), (4, 4, [])])
def test_trials_are_judged_at_the_grace_and_its_doublings_before_their_last_epoch(grace, epochs, rungs):
    good = [[1.0] * epochs] * 4
    stops = [epoch for epoch in range(1, epochs + 1)
             if told_all(grace, [*good, [1.0] * (epoch - 1) + [0.0]], epochs) != [True] * 5]
    assert stops == rungs


def judged(epochs: list[int], values: list[list[float]], grace: int = 1) -> Plan:
    """A plan of trials with these schedules that have told these values, finished where they are all."""
    plan = Plan(Listed([{"epochs": number} for number in epochs]), TRAINING, grace)
    plan.ahead = 1
    for told in values:
        number, _ = plan.propose()
        assert all(plan.goes_on(number, epoch, value) for epoch, value in enumerate(told, 1))
        plan.end(number, "finished")
    return plan


def test_a_trial_is_compared_with_others_when_as_large_a_share_of_their_epochs_was_done():
    """By epochs, the last would stop: its first is below the end of two others, its second below the end of all."""
    plan = judged([1, 2, 2, 1, 8], [[0.9], [0.5, 0.9], [0.6, 0.9], [0.9]])
    number, _ = plan.propose()
    assert [plan.goes_on(number, epoch, value) for epoch, value in ((1, 0.1), (2, 0.2), (4, 0.55))] == [True] * 3
    assert not plan.goes_on(number, 4, 0.54)


def test_a_trial_that_its_patience_ended_stays_where_it_was():
    plan = judged([8, 8], [[0.5, 0.6]])
    number, _ = plan.propose()
    assert plan.goes_on(number, 4, 0.6) and not plan.goes_on(number, 4, 0.59)


def test_where_longer_is_better_the_longest_schedule_is_chosen():
    space = {"lr": Domain(values=[1e-4, 2e-4, 5e-4, 1e-3]), "epochs": Domain(values=[1, 2, 4, 8])}
    for seed in range(10):
        rows = sweep(SearchConfig(algorithm="grid", space=space), TRAINING, Schedules(seed))
        assert best(rows, "distilled")["point"]["epochs"] == 8
        assert any(row["state"] == "stopped" for row in rows)


def test_a_space_that_a_student_without_a_teacher_does_not_feel_has_no_baseline_to_search():
    space = {"temperature": Domain(min=1, max=8), "alpha": Domain(min=0, max=1), "loss": Domain(values=["kl", "mse"])}
    assert make_plans(SearchConfig(trials=5, space=space), TRAINING).keys() == {"distilled"}


def test_what_a_student_without_a_teacher_feels_is_searched_for_the_baseline_as_for_the_distilled():
    space = {"lr": Domain(min=1e-5, max=1e-3, log=True), "temperature": Domain(min=1, max=8)}
    found = run(make_plans(SearchConfig(trials=8, space=space), TRAINING)["baseline"], 2)
    assert len(found) == 8 and found[0][0] == {**BASELINE, "lr": TRAINING.lr}
    assert all(point.keys() == {"alpha", "lr"} for point, _, _ in found) and len({p["lr"] for p, _, _ in found}) == 8
    values = {"lr": Domain(values=[1e-4, 1e-3]), "alpha": Domain(values=[0, 0.5]), "dropout": Domain(values=[0, 0.1])}
    plan = make_plans(SearchConfig(algorithm="grid", space=values), TRAINING)["baseline"]
    assert [plan.propose()[1] for _ in range(len(plan))] == [
        {"alpha": 1.0, "lr": lr, "dropout": dropout} for lr in (1e-4, 1e-3) for dropout in (0, 0.1)]


def test_a_trial_that_failed_before_its_first_epoch_is_learned_from_as_failed():
    plan = make_plan(SearchConfig(trials=30))
    for _ in range(30):
        number, _ = plan.propose()
        plan.end(number, "failed")
    assert len(plan.told) == 30
