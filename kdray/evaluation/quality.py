"""Predictions on the test split become metrics with bootstrap intervals.

Knows nothing about how models were found: selection is over before this is called.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kdray.cache.ensemble import Ensemble
from kdray.cache.reader import SoftTargets
from kdray.corpus.rows import Rows
from kdray.models.forward import decisions, predict
from kdray.models.load import count_parameters, load_model
from kdray.tasks import Task

_RESAMPLES = 1000
_TOKENS = 8192


def cached_predictions(task: Task, soft: SoftTargets | Ensemble, rows: Rows, labels: list[str]) -> list[np.ndarray]:
    """The teacher's label ids of every row's units, from its cached logits."""
    found = []
    for row in range(len(rows)):
        targets, logits = soft[row]
        found.append(task.decide(logits, targets, len(rows.labels[row]), labels))
    return found


def model_predictions(task: Task, folder: Path, rows: Rows, labels: list[str],
                      pad_token_id: int) -> tuple[list[np.ndarray], int]:
    """Label ids of every row's units from the model in `folder` in float32, and its number of parameters."""
    model = load_model(task, folder, labels).eval()
    logits = predict(model, task, rows, np.arange(len(rows)), pad_token_id, _TOKENS)
    return decisions(task, rows, np.arange(len(rows)), logits, labels), count_parameters(model)


def interval_scores(task: Task, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str],
                    seed: int = 0) -> dict[str, Any]:
    """Each metric as {value, low, high}: the 95 % percentile interval of 1,000 bootstrap resamples of rows.

    Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    tally = task.tally(gold, predicted, labels)
    random = np.random.default_rng(seed)
    rows = len(gold)
    samples = [task.rates(np.bincount(random.integers(0, rows, rows), minlength=rows) @ tally, labels)
               for _ in range(_RESAMPLES)]
    value = task.rates(tally.sum(0), labels)
    low, high = ({name: float(np.percentile([sample[name] for sample in samples], q)) for name in value}
                 for q in (2.5, 97.5))
    return {name: {"value": value[name], "low": low[name], "high": high[name]} for name in value}
