"""A package says how its student answered some inputs in PyTorch; whoever loads it says the same, or is refused.

Knows nothing about Ray or HTTP.
"""

import json
from pathlib import Path
from typing import Any

from kdray.errors import ModelError
from kdray.serving.predictor import Prediction, Predictor
from kdray.tasks import Task

FILE = "parity.json"
INPUTS = 64
_CHANCE, _SHARE = 2, 0.05
"""Labels that may differ: two, and one in twenty, for int8 is not float32."""


def write_parity(folder: Path, predictor: Predictor, items: list[Any]) -> None:
    """Writes what `predictor` says of `items`, inputs of the inference protocol."""
    labels = [_said(prediction) for prediction in predictor.predict([(item, {}) for item in items])]
    (folder / FILE).write_text(json.dumps({"inputs": items, "labels": labels}, ensure_ascii=False), encoding="utf-8")


def check_parity(folder: Path, predictor: Predictor, task: Task) -> None:
    """Raises ModelError where `predictor` does not say what the package of a task in `folder` says.

    A package without a sample is asked for one answer.
    """
    file = folder / FILE
    sample: dict[str, list[Any]] = {"inputs": [task.example], "labels": [None]}
    if file.exists():
        sample = json.loads(file.read_text(encoding="utf-8"))
    found = [_said(prediction) for prediction in predictor.predict([(item, {}) for item in sample["inputs"]])]
    pairs = [(one, two) for wanted, got in zip(sample["labels"], found, strict=True) if wanted is not None
             for one, two in zip(wanted, got, strict=True)]
    wrong = sum(not task.output.told_alike(one, two) for one, two in pairs)
    if wrong > _CHANCE + _SHARE * len(pairs):
        raise ModelError(f"{folder} does not answer like its student: {wrong} of {len(pairs)} labels of its parity "
                         "sample differ. Export it again, or choose another `serve.backend`")


def _said(prediction: Prediction | Exception) -> list[Any]:
    if isinstance(prediction, Exception):
        raise prediction
    return prediction.said
