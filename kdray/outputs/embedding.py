"""A vector: what counts is where it points. A logit is one of its numbers; gold is how alike a pair should be.

Nobody but a teacher says what a vector should be, so that there are no hard labels. What is a KL elsewhere is half a
squared distance, as of all numbers: of vectors of length 1, that is 1 minus their cosine.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdray.outputs.base import Summary
from kdray.outputs.value import Value

if TYPE_CHECKING:
    from torch import Tensor

_BINS = 10
_ALIKE = 0.95
"""Cosine from which on two vectors are alike: 18 degrees."""
_RELATED = 0.3
"""Mean cosine below which vectors are of two spaces."""
_SAME, _LEAST = 1e-4, 1e-12


class Embedding(Value):
    """The logits are the vector."""

    tempered: tuple[str, ...] = ("similarity",)
    losses: tuple[str, ...] = ("kl", "cosine", "mse", "huber", "similarity")
    fewest = 0

    def shape(self, labels: int) -> tuple[int, ...]:
        """Of the gold: how alike a text and the next one should be."""
        return (1,)

    def gold(self, said: Sequence[str], ids: Mapping[str, int], labels: int) -> list[float]:
        """The score, where there is one."""
        return [float(said[0]) if said else self.unknown]

    def alike(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether their cosine is 0.95 or more."""
        return cosines(one, other) >= _ALIKE

    def related(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Whether they point the same way at all: dimensions of models that were not trained from one are unrelated."""
        return bool(cosines(one, other).mean() >= _RELATED)

    def task_loss(self, logits: "Tensor", gold: "Tensor") -> "Tensor":
        """Nothing: no gold says what a vector should be."""
        return logits.sum(-1) * 0

    def breakdown(self, gold: np.ndarray, decided: np.ndarray, confidence: np.ndarray,
                  labels: Sequence[str]) -> dict[str, Any]:
        """Nothing."""
        return {}

    def summary(self, logits: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> Summary:
        """How long vectors are, and how alike those of texts that have nothing to do with each other."""
        lengths = np.linalg.norm(logits.astype(np.float64), axis=-1)
        found = cosines(logits[:-1], logits[1:]) if len(logits) > 1 else np.ones(1)
        counts, edges = np.histogram(found, _BINS)
        facts = {"length": float(lengths.mean()), "deviation of the length": float(lengths.std()),
                 "cosine of two rows": float(found.mean())}
        return Summary(facts, "cosine of a row and the next", edges.tolist(), counts.tolist(), (), [])

    def doubt(self, teacher: np.ndarray, gold: np.ndarray) -> str | None:
        """Vectors that all point the same way."""
        found = cosines(teacher, teacher.mean(0, keepdims=True))
        if found.min() > 1 - _SAME:
            return (f"the soft targets are constant: over {len(teacher)} texts of train, no vector of the teacher's is "
                    f"further from their mean than a cosine of {found.min():.6f}. There is nothing to distil; check "
                    "teacher.model")
        return None

    def check_teacher(self, gold: np.ndarray, unsettled: np.ndarray, labels: Sequence[str]) -> None:
        """Nothing to check: a single vector is neither right nor wrong."""


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of each vector (vectors, width) and the other in its place: float64 (vectors,); 0 where one is 0."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / np.maximum(lengths, _LEAST)
