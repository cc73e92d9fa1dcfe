"""Each label by itself, on or off: a sigmoid a label."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdray.outputs.base import UNLABELLED, Single, Summary
from kdray.outputs.doubts import ENOUGH, constant, strange, unfit

if TYPE_CHECKING:
    from torch import Tensor

_BINS = 10
_SPREAD, _KAPPA = 0.01, 0.05
_LEAST = 1e-7
"""How near a mean of probabilities may come to 0 or 1, so that its logit is a number."""


class Flags(Single):
    """A label is on where its logit is above 0, which is a probability of a half, or above a tuned threshold."""

    losses: tuple[str, ...] = ("kl", "mse", "huber", "annealing")
    tempered: tuple[str, ...] = ("kl", "annealing")
    sure = True
    named = True
    unknown: float = UNLABELLED
    whole = True
    fewest = 1
    tunable = True

    def shape(self, labels: int) -> tuple[int, ...]:
        """A 1 or a 0 for each label."""
        return (labels,)

    def gold(self, said: Sequence[str], ids: Mapping[str, int], labels: int) -> list[float]:
        """1 for the labels of the row, which is one unit."""
        on = {ids[name] for name in said}
        return [int(index in on) for index in range(labels)]

    def known(self, gold: np.ndarray) -> np.ndarray:
        """Those that are ones and zeros."""
        return (gold != UNLABELLED).all(-1)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """Whether each logit is above 0; a target that the model does not see has none on."""
        return self.settle(logits, 0.0)

    def unsettled(self, logits: np.ndarray) -> np.ndarray:
        """The logits."""
        return logits

    def settle(self, unsettled: np.ndarray, threshold: float) -> np.ndarray:
        """Whether each is above the threshold."""
        return (unsettled > threshold).astype(np.int32)

    def moved(self, logits: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
        """With the threshold at 0."""
        return (logits.astype(np.float64) - threshold).astype(np.float32)

    def alike(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether all labels are the same."""
        return (one == other).all(-1)

    def told(self, decided: np.ndarray, labels: Sequence[str]) -> list[Any]:
        """The names of the labels that are on, as a list."""
        return [[label for label, on in zip(labels, row, strict=True) if on] for row in decided]

    def confidence(self, logits: np.ndarray) -> np.ndarray:
        """The probability of the least sure label's decision."""
        from scipy.special import expit

        return expit(np.abs(logits.astype(np.float64))).min(-1)

    def divergence(self, one: np.ndarray, other: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Of a coin a label, sigmoid(z / T)."""
        from scipy.special import expit, log_expit

        before, after = one.astype(np.float64) / temperature, other.astype(np.float64) / temperature
        on, off = log_expit(before) - log_expit(after), log_expit(-before) - log_expit(-after)
        return expit(before) * on + expit(-before) * off

    def mean(self, stack: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
        """T times the logit of the mean probability."""
        from scipy.special import expit, logit

        odds = (weights[:, None, None] * expit(stack.astype(np.float64) / temperature)).sum(0)
        return temperature * logit(odds.clip(_LEAST, 1 - _LEAST))

    def task_loss(self, logits: "Tensor", gold: "Tensor") -> "Tensor":
        """Binary cross-entropy, summed over labels."""
        from kdray.outputs.losses import binary_cross_entropy

        return binary_cross_entropy(logits, gold)

    def kl(self, student: "Tensor", teacher: "Tensor", temperature: "float | Tensor") -> "Tensor":
        """Of a coin a label, summed over labels."""
        from kdray.outputs.losses import binary_kl

        return binary_kl(student, teacher, temperature)

    def certainty(self, teacher: "Tensor") -> "Tensor":
        """Mean over labels of |2p - 1|."""
        return (2 * teacher.sigmoid() - 1).abs().mean(-1)

    def information(self, teacher: "Tensor") -> "Tensor":
        """1 - the mean over labels of the binary entropy over log 2."""
        import torch

        on = teacher.sigmoid()
        return 1 - (torch.special.entr(on) + torch.special.entr(1 - on)).mean(-1) / math.log(2)

    def breakdown(self, gold: np.ndarray, decided: np.ndarray, confidence: np.ndarray,
                  labels: Sequence[str]) -> dict[str, Any]:
        """`classes`: each label's precision, recall, F1 and support. There is no confusion: labels go together."""
        from kdray.outputs.classes import classes

        return {"classes": classes(gold, decided, labels)}

    def summary(self, logits: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> Summary:
        """Rows with the gold's labels and no other, labels a row, confidence; by label, F1 and how often it is on."""
        from kdray.outputs.classes import classes

        known, decided, sure = self.known(gold), self.decide(logits), self.confidence(logits)
        exact = {"rows with the labels exactly": float(self.alike(gold, decided)[known].mean())} if known.any() else {}
        counts, edges = np.histogram(sure, _BINS, (0, 1))
        lines = []
        if known.any():
            found = classes(gold[known], decided[known], labels)
            lines = [(one["label"], one["support"], (one["f1"], float(decided[:, place].mean())))
                     for place, one in enumerate(found)]
        return Summary({**exact, "labels a row": float(decided.sum(-1).mean()), "mean confidence": float(sure.mean())},
                       "confidence", edges.tolist(), counts.tolist(), ("F1", "share"), lines)

    def doubt(self, teacher: np.ndarray, gold: np.ndarray) -> str | None:
        """Constant probabilities, or labels that agree with the gold no better than chance."""
        from scipy.special import expit

        spread = np.ptp(expit(teacher.astype(np.float64)), 0).max()
        if spread < _SPREAD:
            return constant(f"{len(gold)} rows of train, no probability of the teacher differs by more than "
                            f"{spread:.2g}")
        kappa = _kappa(gold, self.decide(teacher))
        if kappa < _KAPPA:
            return strange(f"agree with the hard labels no better than chance: Cohen's kappa of labels is {kappa:.3f} "
                           f"over {len(gold)} rows of train")
        return None

    def check_teacher(self, gold: np.ndarray, unsettled: np.ndarray, labels: Sequence[str]) -> None:
        """By Cohen's kappa of all labels together; silent about fewer than 100 rows."""
        if len(gold) < ENOUGH:
            return
        kappa = _kappa(gold, self.decide(unsettled))
        if kappa < _KAPPA:
            raise unfit(f"the teacher is no better than chance: Cohen's kappa of its labels on the first {len(gold)} "
                        f"rows is {kappa:.3f}")


def _kappa(gold: np.ndarray, decided: np.ndarray) -> float:
    """Agreement beyond chance over all labels of all rows, where chance knows how often each label is on."""
    agreed = (gold == decided).mean()
    often, guessed = gold.mean(0), decided.mean(0)
    chance = (often * guessed + (1 - often) * (1 - guessed)).mean()
    return float((agreed - chance) / (1 - chance)) if chance < 1 else 0.0
