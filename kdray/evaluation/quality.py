"""Predictions become metrics with bootstrap intervals.

Knows nothing about models: decisions for each row's units are enough.
"""

from typing import Any

import numpy as np

from kdray.tasks import Task

_RESAMPLES = 1000
Scores = dict[str, float]


def interval_scores(task: Task, gold: list[Any], predicted: list[np.ndarray], labels: list[str],
                    seed: int = 0) -> dict[str, Any]:
    """Each metric as {value, low, high}: the 95 % percentile interval of 1,000 bootstrap resamples of rows.

    Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    (value,), samples = resampled(task, gold, [predicted], labels, seed)
    return {name: {"value": value[name], **percentiles([sample[name] for (sample,) in samples])} for name in value}


def resampled(task: Task, gold: list[Any], models: list[list[np.ndarray]], labels: list[str],
              seed: int = 0) -> tuple[list[Scores], list[list[Scores]]]:
    """Metrics of each of `models` on all rows, and on each of 1,000 resamples of rows, the same for all models."""
    tallies = [task.tally(gold, predicted, labels) for predicted in models]
    random, rows = np.random.default_rng(seed), len(gold)

    def rated(weight: np.ndarray) -> list[Scores]:
        return [tally.rates(weight) for tally in tallies]

    samples = [rated(np.bincount(random.integers(0, rows, rows), minlength=rows)) for _ in range(_RESAMPLES)]
    return rated(np.ones(rows)), samples


def percentiles(samples: list[float]) -> dict[str, float]:
    """The middle 95 % of `samples` as {low, high}."""
    low, high = np.percentile(samples, (2.5, 97.5))
    return {"low": float(low), "high": float(high)}
