"""The best finished trial of each role on validation is chosen, and a baseline is never the winner."""

from typing import Any

import numpy as np
import pytest

from kdray.config import SearchConfig, TrainingConfig
from kdray.errors import TrainingError
from kdray.search.selection import best, choose, finalists, kept, mark, of_student, paired_points, pairs_of
from tests.simulated import Level, pairs, sweep


def row(value: float | None, state: str = "finished", is_baseline: bool = False, error: str | None = None,
        student: str | None = "s") -> dict[str, Any]:
    return {"best": value, "state": state, "baseline": is_baseline, "error": error, "student": student}


def test_winner_and_baseline_are_the_best_that_finished():
    rows = [row(0.97, is_baseline=True), row(0.99, is_baseline=True), row(0.8), row(0.95, "stopped"), row(0.9),
            row(None, "failed", error="x"), row(0.7)]
    assert best(rows, "distilled") is rows[4]
    assert best(rows, "baseline") is rows[1]


def test_the_earlier_of_two_equals_wins():
    rows = [row(0.9, student="first"), row(0.9, student="second")]
    assert best(rows, "distilled")["student"] == "first"


@pytest.mark.parametrize("rows, cause", [
    ([row(0.9, is_baseline=True)], "all stopped early"),
    ([row(0.9, is_baseline=True), row(0.8, "stopped")], "all stopped early"),
    ([row(0.9, is_baseline=True), row(None, "failed", error="out of memory")], "out of memory"),
])
def test_without_a_finished_distilled_trial_there_is_no_winner(rows, cause):
    with pytest.raises(TrainingError, match=f"no distilled trial finished.*{cause}"):
        best(rows, "distilled")


def test_without_a_finished_baseline_there_is_nothing_to_compare_with():
    with pytest.raises(TrainingError, match=r"no baseline trial finished.*not a number"):
        best([row(0.9), row(None, "failed", is_baseline=True, error="not a number")], "baseline")


def trial(value: float | None, is_baseline: bool, **point: Any) -> dict[str, Any]:
    """A trial that failed where it has no value; its student is called after its side and seed."""
    name = f"{'plain' if is_baseline else 'won'}{point.get('seed', '')}"
    found = row(value, "failed" if value is None else "finished", is_baseline, "nan" if value is None else None, name)
    return {**found, "point": point, "name": "only"}


def test_the_pairs_have_the_settings_of_the_best_trials_and_seeds_that_the_sweep_has_not_seen():
    rows = [trial(0.7, True, alpha=1.0, lr=1e-3), trial(0.8, True, alpha=1.0, lr=1e-4), trial(0.9, False, alpha=0.5),
            trial(0.8, False, alpha=0.1), {**trial(0.99, False, alpha=0.2), "name": "other"}]
    settings = finalists(of_student(rows, "only"))
    assert settings == {"winner": rows[2], "baseline": rows[1]}
    assert paired_points(settings, 7, 2) == {
        "distilled": [{"alpha": 0.5, "seed": 8}, {"alpha": 0.5, "seed": 9}],
        "baseline": [{"alpha": 1.0, "lr": 1e-4, "seed": 8}, {"alpha": 1.0, "lr": 1e-4, "seed": 9}]}


def test_a_baseline_that_was_not_searched_is_as_configured():
    settings = finalists([trial(0.9, False, alpha=0.5)])
    assert settings["baseline"] is None
    assert paired_points(settings, 0, 1)["baseline"] == [{"alpha": 1.0, "seed": 1}]


def test_a_baseline_whose_trials_all_failed_is_not_taken_for_one_that_was_not_searched():
    with pytest.raises(TrainingError, match="no baseline trial finished; first cause: nan"):
        finalists([trial(None, True, alpha=1.0), trial(0.9, False, alpha=0.5)])


def test_of_winners_and_of_baselines_the_best_on_validation_is_kept_each_by_itself():
    plain, won = (0.7, 0.9, 0.8, None), (0.8, 0.8, 0.9, 1.0)
    rows = [trial(value, side, seed=seed) for side, values in ((True, plain), (False, won))
            for seed, value in enumerate(values, 1)]
    pairs = pairs_of(rows)
    assert [(pair["seed"], pair["plain"], pair["best"]) for pair in pairs] == [
        (1, 0.7, 0.8), (2, 0.9, 0.8), (3, 0.8, 0.9)]
    assert kept(pairs) == {"winner": "won3", "baseline": "plain2"}


def test_where_no_seed_has_both_there_is_no_pair_and_the_cause_is_said():
    rows = [trial(None, True, seed=1), trial(0.9, True, seed=2), trial(0.9, False, seed=1), trial(None, False, seed=2)]
    with pytest.raises(TrainingError, match=r"finished on no seed .* first cause: nan.*search\.seeds"):
        pairs_of(rows)


def test_where_nothing_is_to_gain_nothing_is_gained_but_by_the_best_of_many_over_one():
    """40 sweeps of 8 trials whose students differ by chance alone, 0.6 points."""
    gains, lucky, shown = [], [], []
    for seed in range(40):
        world = Level(seed, rows=4000)
        rows = sweep(SearchConfig(seed=seed), TrainingConfig(epochs=3), world)
        found = pairs(rows, TrainingConfig(), 3, world)
        accuracy = {name: [world.accuracy(pair[name]) for pair in found] for name in ("winner", "baseline")}
        gains.append(np.mean(accuracy["winner"]) - np.mean(accuracy["baseline"]))
        shown.append(world.accuracy(kept(found)["winner"]) - world.accuracy(kept(found)["baseline"]))
        lucky.append(world.accuracy(best(rows, "distilled")["student"]) - accuracy["baseline"][0])
    assert abs(np.mean(gains)) < 2 * np.std(gains) / 40**0.5 and abs(np.mean(shown)) < 2 * np.std(shown) / 40**0.5
    assert np.mean(lucky) > 3 * np.std(lucky) / 40**0.5


FAMILY = {"small": {"best": 0.8, "milliseconds": 2.0, "bytes": 10e6},
          "large": {"best": 0.9, "milliseconds": 6.0, "bytes": 40e6}}


@pytest.mark.parametrize("limits, name", [
    ({}, "large"), ({"max_ms": 6.0}, "large"), ({"max_ms": 5.9}, "small"), ({"max_mb": 40.0}, "large"),
    ({"max_mb": 39.9}, "small"), ({"max_ms": 10.0, "max_mb": 20.0}, "small")])
def test_the_best_within_the_limits_is_chosen(limits, name):
    found, constraint = choose(FAMILY, limits)
    assert found == name
    assert constraint is None if not limits else constraint["met"] and constraint["excess"] == {}


def test_where_none_is_within_it_is_the_nearest_and_by_how_much_is_said():
    name, constraint = choose(FAMILY, {"max_ms": 1.0, "max_mb": 8.0})
    assert name == "small" and constraint["met"] is False
    assert constraint["excess"] == pytest.approx({"max_ms": 1.0, "max_mb": 0.25})
    assert (constraint["max_ms"], constraint["max_mb"]) == (1.0, 8.0)


def test_the_winner_is_marked_and_its_baseline_where_there_are_several():
    rows = [row(0.8, is_baseline=True, student="p"), row(0.7, is_baseline=True, student="q"), row(0.9, student="w"),
            row(0.8, student="p"), row(None, "failed", is_baseline=True, student=None)]
    assert [mark(one, rows, "w", "p") for one in rows] == ["baseline", "", "winner", "", ""]
    assert [mark(one, rows[1:3], "w", "q") for one in rows[1:3]] == ["", "winner"]
