"""What a model does is measured by what it could do in full batches, not by how long it is busy."""

import pytest

from kdray.serving.pace import Pace


def taught(seconds, costs, most: int = 1000) -> Pace:
    made = Pace(most)
    for cost in costs:
        made.add(cost, seconds(cost))
    made.done()
    return made


@pytest.mark.parametrize("start, each, cost", [(0.0, 1e-4, 100), (0.005, 1e-5, 100), (0.005, 0.0, 10)])
def test_work_counts_as_long_as_it_takes_in_full_batches(start, each, cost):
    pace = taught(lambda cost: start + each * cost, [10, 50, 30, 200] * 20)
    pace.add(cost, start + each * cost)
    assert pace.done() == pytest.approx(cost * (start + 1000 * each) / 1000, rel=0.01)
    assert pace.done() == 0


def test_what_is_only_known_from_batches_of_one_size_counts_as_long_as_it_takes():
    pace = taught(lambda cost: 0.01, [20] * 5)
    pace.add(20, 0.01)
    assert pace.done() == pytest.approx(0.01)


@pytest.mark.parametrize("seconds", [lambda cost: 0.02 - 1e-4 * cost, lambda cost: 1e-6 * cost**2])
def test_no_line_falls_or_rises_more_than_what_each_costs(seconds):
    pace = taught(seconds, [10, 50, 100] * 10)
    pace.add(100, seconds(100))
    assert 0 < pace.done() <= 100 * max(seconds(cost) / cost for cost in (10, 50, 100))


def test_a_model_that_has_become_slower_is_known_by_its_last_batches():
    pace = taught(lambda cost: 1e-4 * cost, [10, 100] * 50)
    for cost in [10, 100] * 500:
        pace.add(cost, 3e-4 * cost)
    pace.done()
    pace.add(100, 0.03)
    assert pace.done() == pytest.approx(0.03, rel=0.02)
