"""Models and the test split become predictions, and predictions become metrics with bootstrap intervals.

Knows nothing about how models were found: selection is over before this is called.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import hstack
from scipy.special import log_softmax

from kdray.cache.ensemble import Ensemble
from kdray.cache.reader import SoftTargets
from kdray.corpus.rows import Rows
from kdray.models.forward import predict
from kdray.models.load import count_parameters, load_model
from kdray.tasks import Task

_RESAMPLES = 1000
Scores = dict[str, float]


@dataclass(frozen=True)
class Predictions:
    """What a model says of every row of a split."""

    ids: list[np.ndarray]
    """(units,) of each row: the label decided for."""
    logs: list[np.ndarray]
    """(units, labels) of each row: log-probabilities, NaN for a unit that the model does not see."""

    @property
    def confidence(self) -> list[np.ndarray]:
        """(units,) of each row: probability of the likeliest label, NaN for a unit that the model does not see."""
        return [np.exp(part.max(-1)) for part in self.logs]


def cached_predictions(task: Task, soft: SoftTargets | Ensemble, rows: Rows, labels: list[str]) -> Predictions:
    """The teacher's, from its cached logits."""
    return _predictions(task, rows, (soft[row] for row in range(len(rows))), labels)


def model_predictions(task: Task, folder: Path, rows: Rows, labels: list[str],
                      pad_token_id: int) -> tuple[Predictions, int]:
    """Those of the model in `folder`, in float32, and its number of parameters."""
    model = load_model(task, folder, labels).eval()
    logits = predict(model, task, rows, np.arange(len(rows)), pad_token_id)
    found = zip((rows.targets[row] for row in range(len(rows))), logits, strict=True)
    return _predictions(task, rows, found, labels), count_parameters(model)


def _predictions(task: Task, rows: Rows, found: Iterable[tuple[np.ndarray, np.ndarray]],
                 labels: list[str]) -> Predictions:
    ids, logs = [], []
    for row, (targets, logits) in enumerate(found):
        units = len(rows.labels[row])
        ids.append(task.decide(logits, targets, units, labels))
        logs.append(np.full((units, len(labels)), np.nan, np.float32))
        logs[-1][targets] = log_softmax(logits.astype(np.float64), -1)
    return Predictions(ids, logs)


def divergences(one: Predictions, other: Predictions) -> list[np.ndarray]:
    """(units,) of each row: KL(one || other) in nats, NaN where either does not see the unit."""
    return [(np.exp(a) * (a - b)).sum(-1) for a, b in zip(one.logs, other.logs, strict=True)]


def interval_scores(task: Task, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str],
                    seed: int = 0) -> dict[str, Any]:
    """Each metric as {value, low, high}: the 95 % percentile interval of 1,000 bootstrap resamples of rows.

    Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    (value,), samples = resampled(task, gold, [predicted], labels, seed)
    return {name: {"value": value[name], **percentiles([sample[name] for (sample,) in samples])} for name in value}


def resampled(task: Task, gold: list[np.ndarray], models: list[list[np.ndarray]], labels: list[str],
              seed: int = 0) -> tuple[list[Scores], list[list[Scores]]]:
    """Metrics of each of `models` on all rows, and on each of 1,000 resamples of rows, the same for all models."""
    tallies = hstack([task.tally(gold, predicted, labels) for predicted in models], format="csr")
    random, rows = np.random.default_rng(seed), len(gold)

    def rated(weight: np.ndarray) -> list[Scores]:
        return [task.rates(counts, labels) for counts in np.split(weight @ tallies, len(models))]

    samples = [rated(np.bincount(random.integers(0, rows, rows), minlength=rows)) for _ in range(_RESAMPLES)]
    return rated(np.ones(rows)), samples


def percentiles(samples: list[float]) -> dict[str, float]:
    """The middle 95 % of `samples` as {low, high}."""
    low, high = np.percentile(samples, (2.5, 97.5))
    return {"low": float(low), "high": float(high)}
