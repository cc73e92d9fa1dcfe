"""The fastest backend is advised, if it answers as the one of today does, and for a lead that is more than noise."""

import pytest

from kdray.serving.choice import advise, table
from kdray.serving.compare import Comparison, Contender, Measure


def measure(name: str, bulk: float, alike: int = 1000, p50: float = 5.0, **options) -> Measure:
    return Measure(Contender(name, name, **options), bulk, p50, 2 * p50, alike, 10**6)


def compared(*measures: Measure, absent: tuple[str, ...] = ()) -> Comparison:
    return Comparison(list(measures), list(absent), texts=1000, labels=1000)


@pytest.mark.parametrize("others, setting", [
    ([], "serve.backend=onnx-int8, as these settings do"),
    ([measure("onnx", 104)], "serve.backend=onnx-int8, as these settings do"),
    ([measure("onnx", 120)], "serve.backend=onnx: 1.20 times the texts/s of onnx-int8"),
    ([measure("onnx", 120, alike=988)], "serve.backend=onnx: "),
    ([measure("onnx", 500, alike=987)], "serve.backend=onnx-int8, as these settings do"),
    ([measure("torch float32", 500, servable=False)], "serve.backend=onnx-int8, as these settings do"),
    ([measure("onnx", 120), measure("torch", 130)], "serve.backend=torch: "),
    ([measure("torch", 900, num_gpus=1)], "serve.backend=torch serve.num_gpus=1: 9.00 times"),
])
def test_the_fastest_that_answers_as_today_is_advised(others, setting):
    first, *_ = advise(compared(measure("onnx-int8", 100, alike=990), *others), None)
    assert first.startswith(f"use {setting}")


def test_a_floor_rules_out_what_is_below_it_and_today_too():
    found = compared(measure("onnx-int8", 100, alike=990), measure("onnx", 50))
    assert advise(found, 0.995)[0].startswith("use serve.backend=onnx: 0.50 times")
    assert advise(found, 0.5)[0].startswith("use serve.backend=onnx-int8")
    (none,) = advise(compared(measure("onnx-int8", 100, alike=990)), 1.0)
    assert "as often as 100.00%" in none and "--agreement" in none


def test_another_that_is_quicker_alone_is_named_too():
    slow = measure("onnx-int8", 100, p50=9.0)
    first, second = advise(compared(slow, measure("openvino", 90, p50=3.0)), None)
    assert first.startswith("use serve.backend=onnx-int8")
    assert "serve.backend=openvino is quicker: p50 3.0 ms, onnx-int8 takes 9.0" in second
    assert len(advise(compared(slow, measure("openvino", 90, p50=8.8)), None)) == 1


def test_the_table_has_the_fastest_first_with_ratios_to_today():
    lines = table(compared(measure("onnx-int8", 100, alike=990), measure("onnx", 150),
                           measure("torch float32", 50, servable=False), absent=("openvino: not installed",)))
    heads, fast, today, slow, absent = lines.splitlines()
    assert "agreement" in heads and fast.startswith("onnx ") and "(1.50x)" in fast and "100.00%" in fast
    assert today.endswith("<- now") and "(1.00x)" in today and "99.00%" in today
    assert slow.endswith("reference") and absent == "without openvino: not installed"
