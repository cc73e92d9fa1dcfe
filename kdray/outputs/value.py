"""Numbers: a score, or all of a vector. A logit is the number itself; no probability, no temperature.

What is a KL elsewhere is half a squared distance here: the KL of two normal distributions of unit variance, which no
temperature changes once it is multiplied by T^2.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdray.outputs.base import Single, Summary
from kdray.outputs.doubts import ENOUGH, constant, strange, unfit

if TYPE_CHECKING:
    from torch import Tensor

_BINS = 10
_NEAR = 0.05
"""Two numbers are alike where they differ by no more than this and this share of the first."""
_SPREAD, _CORRELATION = 1e-4, 0.05
_POINTS = 1000
"""Points of a scatter at most."""


class Value(Single):
    """The logits are what is said."""

    losses: tuple[str, ...] = ("kl", "mse", "huber")
    tempered: tuple[str, ...] = ()
    sure = False
    named = False
    unknown = float("nan")
    whole = False
    fewest = 2

    def shape(self, labels: int) -> tuple[int, ...]:
        """A number a label."""
        return (labels,)

    def gold(self, said: Sequence[str], ids: Mapping[str, int], labels: int) -> list[float]:
        """The numbers."""
        return [float(number) for number in said]

    def known(self, gold: np.ndarray) -> np.ndarray:
        """Those that are numbers."""
        return ~np.isnan(gold).any(-1)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """The logits."""
        return logits

    def alike(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether they are apart by no more than 0.05, and 0.05 times how far the first is from 0."""
        one, other = one.astype(np.float64), other.astype(np.float64)
        return np.linalg.norm(one - other, axis=-1) <= _NEAR * (1 + np.linalg.norm(one, axis=-1))

    def told(self, decided: np.ndarray, labels: Sequence[str]) -> list[Any]:
        """A number; a list of them where there are several."""
        return [row[0] if len(row) == 1 else row for row in decided.tolist()]

    def told_alike(self, one: Any, other: Any) -> bool:
        """Whether they are as near as decisions that are alike."""
        return bool(self.alike(np.array([one]).reshape(1, -1), np.array([other]).reshape(1, -1))[0])

    def confidence(self, logits: np.ndarray) -> np.ndarray:
        """Not known."""
        return np.full(len(logits), np.nan)

    def divergence(self, one: np.ndarray, other: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Half the squared distance over T^2."""
        return (one.astype(np.float64) - other) ** 2 / (2 * temperature**2)

    def mean(self, stack: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
        """The mean."""
        return (weights[:, None, None] * stack).sum(0)

    def task_loss(self, logits: "Tensor", gold: "Tensor") -> "Tensor":
        """Mean squared error."""
        from kdray.outputs.losses import squared_error

        return squared_error(logits, gold)

    def kl(self, student: "Tensor", teacher: "Tensor", temperature: "float | Tensor") -> "Tensor":
        """Half the squared distance."""
        return (student - teacher).square().sum(-1) / 2

    def certainty(self, teacher: "Tensor") -> "Tensor":
        """There is none: configs that ask for it are refused."""
        raise TypeError("numbers have no certainty")

    def information(self, teacher: "Tensor") -> "Tensor":
        """There is none: configs that ask for it are refused."""
        raise TypeError("numbers have no entropy")

    def breakdown(self, gold: np.ndarray, decided: np.ndarray, confidence: np.ndarray,
                  labels: Sequence[str]) -> dict[str, Any]:
        """`scatter`: what is true and what was said of at most 1,000 units, evenly spaced; of one number alone."""
        if len(labels) != 1:
            return {}
        chosen = np.unique(np.linspace(0, len(gold) - 1, min(len(gold), _POINTS)).astype(int))
        return {"scatter": {"truth": gold[chosen, 0].tolist(), "said": decided[chosen, 0].tolist()}}

    def summary(self, logits: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> Summary:
        """Correlation with the gold and distance from it; mean and spread of the numbers, or of vectors' lengths."""
        known, facts = self.known(gold), dict[str, float]()
        if known.any():
            facts["correlation with the scores"] = _correlation(gold[known], logits[known])
            facts["distance from the scores"] = float(np.sqrt(((gold - logits)[known] ** 2).mean()))
        alone = len(labels) == 1
        shown = logits[:, 0] if alone else np.linalg.norm(logits, axis=-1)
        counts, edges = np.histogram(shown, _BINS)
        return Summary({**facts, "mean": float(shown.mean()), "deviation": float(shown.std())},
                       "number" if alone else "length", edges.tolist(), counts.tolist(), (), [])

    def doubt(self, teacher: np.ndarray, gold: np.ndarray) -> str | None:
        """Constant numbers, or ones that do not go with the gold."""
        spread = teacher.std(0).max()
        if spread < _SPREAD:
            return constant(f"{len(gold)} rows of train, what the teacher says deviates by {spread:.2g}")
        found = _correlation(gold, teacher)
        if found < _CORRELATION:
            return strange(f"do not go with the scores: their correlation is {found:.3f} over {len(gold)} rows of "
                           "train")
        return None

    def check_teacher(self, gold: np.ndarray, unsettled: np.ndarray, labels: Sequence[str]) -> None:
        """By the correlation; silent about fewer than 100 rows, and of gold that does not vary."""
        if len(gold) < ENOUGH or gold.std() < _SPREAD:
            return
        found = _correlation(gold, unsettled)
        if found < _CORRELATION:
            raise unfit(f"what the teacher says does not go with the scores: their correlation on the first "
                        f"{len(gold)} rows is {found:.3f}")


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, over all numbers; 0 where either does not vary."""
    if one.std() < _SPREAD or other.std() < _SPREAD:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
