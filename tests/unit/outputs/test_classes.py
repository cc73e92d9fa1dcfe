"""Classes, confusion and calibration, against counts by hand and scikit-learn."""

import numpy as np
import pytest

from kdray.outputs import Choice
from kdray.outputs.classes import calibration, classes

LABELS = ["a", "b", "c"]


def test_classes_are_counted_by_unit():
    found = {row.pop("label"): row for row in classes(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), LABELS)}
    assert found["a"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert found["b"] == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert found["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_calibration_is_the_mean_gap_by_hand():
    confidence = np.array([0.95, 0.97, 0.99, 0.5, 0.52])
    right = np.array([True, True, False, True, False])
    found = calibration(confidence, right)
    upper, middle = abs(2 / 3 - 0.97), abs(0.5 - 0.51)
    assert found["ece"] == pytest.approx(3 / 5 * upper + 2 / 5 * middle)
    assert [part["count"] for part in found["bins"]] == [0] * 7 + [2] + [0] * 6 + [3]
    assert found["bins"][14] == pytest.approx({"count": 3, "confidence": 0.97, "accuracy": 2 / 3})
    assert found["bins"][0] == {"count": 0, "confidence": None, "accuracy": None}


@pytest.mark.parametrize("confidence, place", [(1.0, 14), (1 / 15, 0), (1 / 15 + 1e-6, 1), (0.0, 0)])
def test_a_bin_holds_its_upper_edge(confidence, place):
    bins = calibration(np.array([confidence]), np.array([True]))["bins"]
    assert [index for index, part in enumerate(bins) if part["count"]] == [place]


def test_a_model_that_is_as_right_as_it_is_sure_has_no_error():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 1, 200_000)
    assert calibration(confidence, random.random(200_000) < confidence)["ece"] < 0.01
    assert calibration(confidence, random.random(200_000) < confidence - 0.2)["ece"] == pytest.approx(0.2, abs=0.01)


def test_units_that_the_model_does_not_see_count_in_all_but_calibration():
    parts = Choice().breakdown(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0.9, np.nan, 0.7]), ["a", "b"])
    assert parts["confusion"] == [[1, 1], [0, 1]]
    assert sum(row["support"] for row in parts["classes"]) == 3
    assert sum(part["count"] for part in parts["calibration"]["bins"]) == 2
    assert parts["calibration"]["ece"] == pytest.approx((0.1 + 0.3) / 2)
