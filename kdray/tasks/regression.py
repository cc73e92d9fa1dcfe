"""Single texts or pairs of texts become a number a row."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdray.outputs import Output, Value
from kdray.tasks.base import Row
from kdray.tasks.texts import TEXTS, Texts


class Regression(Texts):
    """A score for a text, or for a pair of texts."""

    name = "regression"
    output: Output = Value()
    shown = "number"
    problem: str | None = "regression"
    names: tuple[str, ...] = ("score",)
    columns = {**TEXTS, "score": True}
    label_column = "score"
    metrics: tuple[str, ...] = ("spearman", "pearson")
    routes: tuple[str, ...] = ("rerank",)

    def complaint(self, row: Row) -> str | None:
        """Texts must not be empty; the score must be a number."""
        return self.text_complaint(row) or (score_complaint(row["score"]) if "score" in row else None)

    def labels(self, row: Row) -> list[str]:
        """The score."""
        return [str(row["score"])]

    def stratum(self, row: Row) -> str:
        """The whole number below the score."""
        return str(math.floor(float(row["score"])))

    def tally(self, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str]) -> "Numbers":
        """The scores themselves: ranks do not add up."""
        return Numbers(*(np.concatenate(values)[:, 0].astype(np.float64) for values in (gold, predicted)))

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """The score, as it is."""
        return self.ranking(logits[0][0], labels, parameters, "none")


@dataclass(frozen=True)
class Numbers:
    """A tally of scores."""

    truth: np.ndarray
    """(rows,)."""
    said: np.ndarray
    """(rows,)."""

    def rates(self, weights: np.ndarray) -> dict[str, float]:
        """Spearman's and Pearson's correlation, 0 where either side does not vary; root of the mean squared error."""
        error = float(weights @ (self.truth - self.said) ** 2 / weights.sum())
        return {"spearman": pearson(ranks(self.truth, weights), ranks(self.said, weights), weights),
                "pearson": pearson(self.truth, self.said, weights), "rmse": math.sqrt(error)}

    def beside(self, other: "Numbers") -> "Numbers":
        """Rows of both."""
        return Numbers(np.concatenate([self.truth, other.truth]), np.concatenate([self.said, other.said]))


def ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The rank of each of `values` among all, each of which is there `weights` times; ties share their mean."""
    distinct, place = np.unique(values, return_inverse=True)
    there = np.bincount(place, weights, len(distinct))
    return (np.cumsum(there) - (there - 1) / 2)[place]


def pearson(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    """Pearson's correlation of values that are there `weights` times; 0 where either side does not vary."""
    total = weights.sum()
    one, other = one - weights @ one / total, other - weights @ other / total
    spread = math.sqrt((weights @ one**2) * (weights @ other**2))
    return float(weights @ (one * other) / spread) if spread > 1e-12 else 0.0


def score_complaint(score: Any) -> str | None:
    """What is wrong with a score, None where nothing is."""
    if score in (None, ""):
        return "score is missing"
    try:
        number = float(score)
    except (TypeError, ValueError):
        return f"score {score!r:.40} is no number"
    return None if math.isfinite(number) else f"score {score!r} is not finite"
