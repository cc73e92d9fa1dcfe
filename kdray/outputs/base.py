"""The interface that every output fills: gold, losses, decisions, confidence, and how far two models are apart.

A target has a vector of logits, as many as there are labels. An output knows what they mean, and nothing of texts,
tasks, files or models. NumPy arrays come in and go out, tensors where a loss has a gradient. Configs know tasks
and tasks know outputs, so that what takes long to import (torch, SciPy) is imported where it is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

UNLABELLED = -100
"""Id of a label that is not known, which torch's cross-entropy takes to weigh nothing."""


Said = tuple[np.ndarray, np.ndarray]
"""Targets of a row, (targets,), and what a model says of them: logits (targets, labels)."""
AllSaid = tuple[list[np.ndarray], list[np.ndarray]]
"""The same of several rows."""


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
    """Labels, or different numbers, that there must be, so that there is something to learn."""
    tunable: bool
    """Whether a threshold settles its decisions, which is tuned on validation."""

    def among(self, targets: np.ndarray) -> "Output":
        """The same for logits of these targets, (targets,), which say what belongs together; mostly nothing does.

        Decisions, and what there is one of for each, are then those of `targets`: as many as there are, or fewer.
        """

    def units(self, targets: Sequence[int]) -> int:
        """How many units a row with these targets has at least."""

    def counted(self, targets: np.ndarray) -> int:
        """As how many these targets count where losses are averaged."""

    def seen(self, gold: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Gold of what is decided of a row's targets, from that of its units: (decisions, *shape)."""

    def taught(self, gold: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """What the loss on the gold takes for a row's targets, from the gold of its units: (targets, ...)."""

    def matched(self, targets: np.ndarray, theirs: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits of `theirs`, targets of the same row as another model sees it, at `targets`.

        (targets, labels), and which of them have logits: boolean (targets,).
        """

    def common(self, found: "Sequence[Said]") -> tuple[np.ndarray, np.ndarray]:
        """Targets of a row that all models see, and their logits, (models, targets, labels)."""

    def confidences(self, counts: np.ndarray, said: "AllSaid", labels: int) -> np.ndarray:
        """`confidence` for each of the units of some rows, `counts` of each: (units,); NaN where one is not seen."""

    def compared(self, counts: np.ndarray, first: "AllSaid", said: "AllSaid", labels: int) -> tuple[np.ndarray, float]:
        """KL(first || said) of each unit, NaN where either does not see it; largest difference of a logit."""

    def moved(self, logits: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
        """Logits of a row as they have to be for decisions at a tuned threshold; the same ones where there is none."""

    def unsettled(self, logits: np.ndarray) -> np.ndarray:
        """What a threshold is to `settle`, of each target; decisions where there is none."""

    def settle(self, unsettled: np.ndarray, threshold: float) -> np.ndarray:
        """Decisions (targets, *shape) at a threshold."""

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

    def check_teacher(self, gold: np.ndarray, unsettled: np.ndarray, labels: Sequence[str]) -> None:
        """Raises ModelError where a teacher's decisions for a sample are no better than chance, or of other labels.

        They are `unsettled`: nobody has tuned a threshold for it.
        """


class Usual:
    """What most outputs say alike."""

    def told_alike(self, one: Any, other: Any) -> bool:
        """Whether they are equal."""
        return bool(one == other)

    def related(self, one: np.ndarray, other: np.ndarray) -> bool:
        """They do: each label has a meaning of its own."""
        return True


class Single(Usual):
    """Every target is a unit, and is decided by itself: what outputs of that kind say alike."""

    tunable = False

    def among(self, targets: np.ndarray) -> Any:
        """The same output, whatever the targets."""
        return self

    def units(self, targets: Sequence[int]) -> int:
        """Up to the last target."""
        return max(targets, default=-1) + 1

    def counted(self, targets: np.ndarray) -> int:
        """Each as one."""
        return len(targets)

    def seen(self, gold: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """That of each target."""
        return gold[targets]

    def taught(self, gold: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """That of each target."""
        return gold[targets]

    def matched(self, targets: np.ndarray, theirs: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the same units; 0 where there are none."""
        found, known = np.zeros((len(targets), logits.shape[-1]), np.float32), np.zeros(len(targets), bool)
        _, ours, others = np.intersect1d(targets, theirs, return_indices=True)
        found[ours], known[ours] = logits[others], True
        return found, known

    def common(self, found: Sequence[Said]) -> tuple[np.ndarray, np.ndarray]:
        """Units that are among each model's."""
        units = found[0][0]
        for others, _ in found[1:]:
            units = units if np.array_equal(units, others) else np.intersect1d(units, others)
        return units, np.stack([logits[np.searchsorted(own, units)] for own, logits in found])

    def confidences(self: Any, counts: np.ndarray, said: AllSaid, labels: int) -> np.ndarray:
        """That of each target at its unit."""
        return self.confidence(_placed(counts, said, labels))

    def compared(self: Any, counts: np.ndarray, first: AllSaid, said: AllSaid, labels: int) -> tuple[np.ndarray, float]:
        """Unit by unit."""
        one, other = _placed(counts, first, labels), _placed(counts, said, labels)
        seen = _seen(counts, first) & _seen(counts, said)
        return self.divergence(one, other).sum(-1), float(np.abs(other - one)[seen].max(initial=0.0))

    def moved(self, logits: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
        """As they are."""
        return logits

    def unsettled(self: Any, logits: np.ndarray) -> np.ndarray:
        """The decisions."""
        return self.decide(logits)

    def settle(self, unsettled: np.ndarray, threshold: float) -> np.ndarray:
        """As they are."""
        return unsettled


def _places(counts: np.ndarray, targets: list[np.ndarray]) -> np.ndarray:
    before = np.repeat(np.cumsum(counts) - counts, [len(part) for part in targets])
    return before + np.concatenate(targets)


def _placed(counts: np.ndarray, said: AllSaid, labels: int) -> np.ndarray:
    """Logits of every unit of some rows, (units, labels): NaN for one that the model does not see."""
    placed = np.full((counts.sum(), labels), np.nan, np.float32)
    placed[_places(counts, said[0])] = np.concatenate(said[1])
    return placed


def _seen(counts: np.ndarray, said: AllSaid) -> np.ndarray:
    """Which units of some rows the model sees."""
    seen = np.zeros(counts.sum(), bool)
    seen[_places(counts, said[0])] = True
    return seen
