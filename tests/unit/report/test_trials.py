"""Trials get the settings they had, the words that fit them, and axes for numbers, ratios and words."""

import pytest

from kdray.report.trials import axes, axis, looks_logarithmic, names, role, setting

TRAINING = {"temperature": 2.0, "alpha": 0.5, "finetune": None, "deepspeed": {"zero": {"stage": 1}}}


def trial(point: dict, **more) -> dict:
    return {"point": point, "baseline": False, "student": None, "state": "finished", "best": 0.5, **more}


def test_a_setting_is_the_points_else_the_configured_one():
    assert setting(trial({"alpha": 0.1}), "alpha", TRAINING) == 0.1
    assert setting(trial({"alpha": 0.1}), "temperature", TRAINING) == 2.0
    assert setting(trial({}), "deepspeed.zero.stage", TRAINING) == 1
    assert setting(trial({}), "finetune.epochs", TRAINING) is None


def test_a_role_is_what_people_look_for_else_the_state():
    assert role(trial({}, student="w", baseline=True), "w") == "baseline"
    assert role(trial({}, student="w"), "w") == "winner"
    assert role(trial({}, state="stopped"), "w") == "stopped"


def test_names_are_in_the_order_of_their_first_trials():
    assert names([trial({}), trial({}, name="b"), trial({}, name="a"), trial({}, name="b")]) == ["b", "a"]


@pytest.mark.parametrize("values, places", [
    ([0, 1, 4], [0, 0.25, 1]), ([1, 10, 100], [0, 0.5, 1]), ([3, 3], [0, 0]),
    (["kl", "mse", "huber"], [0.5, 1, 0]), ([None, 2], [1, 0]), ([True, False], [1, 0])])
def test_an_axis_spreads_numbers_by_size_or_ratio_and_words_evenly(values, places):
    found = axis("x", values)
    assert found.places == pytest.approx(places)
    assert all(0 <= place <= 1 for place, _ in found.ticks)


def test_numbers_look_logarithmic_by_where_most_of_them_are():
    assert looks_logarithmic([1e-5, 1e-4, 1e-3])
    assert not looks_logarithmic([0.01, 0.5, 0.6, 1.0])
    assert not looks_logarithmic([0, 1, 1000])
    assert not looks_logarithmic([1, 1.5, 3])


def test_axes_are_of_what_differs():
    trials = [trial({"alpha": 0.1, "loss": "kl"}, name="a"), trial({"alpha": 0.2, "loss": "kl"}, name="b")]
    assert [found.name for found in axes(trials, TRAINING)] == ["student", "alpha"]
    assert [found.name for found in axes([row | {"name": "a"} for row in trials], TRAINING)] == ["alpha"]
    assert axes(trials[:1], TRAINING) == []
