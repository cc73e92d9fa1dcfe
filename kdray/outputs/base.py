"""The interface that every output fills: gold, losses, decisions, confidence, and how far two models are apart.

A target has a vector of logits, as many as there are labels. An output knows what they mean, and nothing of texts,
tasks, files or models. NumPy arrays come in and go out, tensors where a loss has a gradient; torch is imported there
alone, since configs know tasks and tasks know outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

UNLABELLED = -100
"""Id of a label that is not known, which torch's cross-entropy takes to weigh nothing."""


@dataclass(frozen=True)
class Summary:
    """What a teacher says of some targets, for people."""

    facts: dict[str, float]
    """What there is to say of all targets, by its name."""
    axis: str
    """What the histogram is of."""
    edges: list[float]
    """(bins + 1,): where its bins begin and end."""
    counts: list[int]
    """(bins,): targets in each."""
    columns: tuple[str, ...]
    """Names of the numbers of each label."""
    lines: Sequence[tuple[str, int, tuple[float, ...]]]
    """By label, where labels are known: its name, its targets and its numbers."""


class Output(Protocol):
    """What logits (targets, labels) mean."""

    losses: tuple[str, ...]
    """Soft losses that there are for it."""
    tempered: tuple[str, ...]
    """Those in which a temperature acts."""
    sure: bool
    """Whether a model is more or less sure of a target."""
    named: bool
    """Whether what rows say are names of labels."""
    unknown: float
    """What stands for gold that is not known."""
    whole: bool
    """Whether gold are whole numbers."""
    fewest: int
    """Labels that there must be, so that there is something to learn."""

    def shape(self, labels: int) -> tuple[int, ...]:
        """Shape of the gold of one unit."""

    def gold(self, said: Sequence[str], ids: Mapping[str, int], labels: int) -> list[float]:
        """The gold of all units of a row, flat, from what the row says of them and the id of each of so many labels."""

    def known(self, gold: np.ndarray) -> np.ndarray:
        """Which gold (targets, *shape) is known: boolean (targets,)."""

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """The decision for each target: (targets, *shape)."""

    def alike(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Which decisions are the same: boolean (targets,)."""

    def told(self, decided: np.ndarray, labels: Sequence[str]) -> list[Any]:
        """Each decision as JSON has it: a name, several, or numbers."""

    def told_alike(self, one: Any, other: Any) -> bool:
        """Whether two decisions that were told are the same."""

    def confidence(self, logits: np.ndarray) -> np.ndarray:
        """How sure the model is of each decision, 0 to 1: (targets,); NaN where it cannot say."""

    def divergence(self, one: np.ndarray, other: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """What each label adds to KL(one || other) in nats at T, from logits: float64 (targets, labels)."""

    def mean(self, stack: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
        """Logits (targets, labels) whose probabilities at T are the weighted mean of those of `stack`.

        `stack` is (models, targets, labels), `weights` (models,), whose sum is 1.
        """

    def related(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Whether logits of two models for the same targets mean the same, number by number, so that they have a mean.
        """

    def task_loss(self, logits: "Tensor", gold: "Tensor") -> "Tensor":
        """Loss on the gold (targets, *shape): (targets,), 0 where that is not known."""

    def kl(self, student: "Tensor", teacher: "Tensor", temperature: "float | Tensor") -> "Tensor":
        """T^2 * KL(teacher || student) at T, a number or (targets,): (targets,)."""

    def certainty(self, teacher: "Tensor") -> "Tensor":
        """How sure the teacher is of each target, rescaled so that chance is 0 and certainty 1: (targets,)."""

    def information(self, teacher: "Tensor") -> "Tensor":
        """1 minus the entropy of each target over the largest there can be: (targets,)."""

    def breakdown(self, gold: np.ndarray, decided: np.ndarray, confidence: np.ndarray,
                  labels: Sequence[str]) -> dict[str, Any]:
        """What one number hides, as plain data; the report draws the parts that it knows by their names."""

    def summary(self, logits: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> Summary:
        """What a teacher says of targets, at least one, some of whose gold may be known."""

    def doubt(self, teacher: np.ndarray, gold: np.ndarray) -> str | None:
        """What is wrong with soft targets, from a sample whose gold is known; None where nothing is."""

    def check_teacher(self, gold: np.ndarray, decided: np.ndarray, labels: Sequence[str]) -> None:
        """Raises ModelError where a teacher's decisions for a sample are no better than chance, or of other labels."""
