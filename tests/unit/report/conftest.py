"""The content of a report.json of made-up numbers."""

from typing import Any

import pytest

from kdray.config import Config, DataConfig, TeacherConfig
from kdray.report.facts import VERSION
from tests.sweeps import made_up_sweep

MODELS = ("teacher", "baseline", "winner")


@pytest.fixture
def facts() -> dict[str, Any]:
    """Two labels, 12 trials over three students."""
    labels = ["bad", "good"]
    config = Config(data=DataConfig(source="rows.csv"), teacher=TeacherConfig(model="large"))
    score = {"value": 0.9, "low": 0.85, "high": 0.95}
    bins = [{"count": 0, "confidence": None, "accuracy": None}] * 14 + [
        {"count": 9, "confidence": 0.97, "accuracy": 0.8}]
    part = {"classes": [{"label": label, "precision": 0.8, "recall": 0.7, "f1": 0.75, "support": 5}
                        for label in labels],
            "confusion": [[4, 1], [0, 5]], "calibration": {"ece": 0.17, "bins": bins}}
    speed = {name: {"examples_per_second": rate, "p50": 100 / rate, "p99": 300 / rate}
             for name, rate in zip((*MODELS, "served"), (10.0, 30.0, 30.0, 60.0), strict=True)}
    numbers = {
        "metric": "accuracy", "rows": 10, "test": {name: {"accuracy": score} for name in (*MODELS, "served")},
        "validation": {name: {"accuracy": 0.9} for name in ("baseline", "winner")},
        "parameters": {"teacher": 9e6, "baseline": 3e6, "winner": 3e6, "served": 3e6},
        "bytes": {"teacher": 36e6, "baseline": 12e6, "winner": 12e6, "served": 3e6}, "speed": speed,
        "backend": "onnx-int8", "refused": {}, "timed_rows": 10, "threads": 2,
        "mcnemar": {"both": 8, "winner": 1, "baseline": 0, "neither": 1, "p": 1.0},
        "seeds": {"asked": 1, "pairs": [{"seed": 7, "winner": 0.9, "baseline": 0.8}],
                  "winner": {"mean": 0.9, "deviation": None}, "baseline": {"mean": 0.8, "deviation": None},
                  "difference": {"mean": 0.1, "deviation": None, "low": None, "high": None}}}
    example = {"row": 3, "parts": ["What a film."], "mark": None, "divergence": 0.5, "truth": "good",
               "teacher": {"label": "good", "confidence": 0.9}, "winner": {"label": "bad", "confidence": 0.6}}
    return {"version": VERSION, "name": "films", "task": "sequence-classification", "labels": labels,
            "rows": {"train": 80, "validation": 10, "test": 10}, "numbers": numbers,
            "breakdown": dict.fromkeys(MODELS, part), "examples": [example], "teacher_seconds": 50.0,
            "lineage": {"corpus": "c0ffee"}, "config": config.model_dump(mode="json"), "versions": {"kdray": "0.1"},
            **made_up_sweep(12)}
