"""One of the labels: a softmax over them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdray.outputs.base import UNLABELLED, Single, Summary
from kdray.outputs.doubts import constant, strange

if TYPE_CHECKING:
    from torch import Tensor

_BINS = 10
_SPREAD, _KAPPA = 0.01, 0.05


class Choice(Single):
    """The largest logit is the label."""

    losses: tuple[str, ...] = ("kl", "mse", "huber", "annealing")
    tempered: tuple[str, ...] = ("kl", "annealing")
    sure = True
    named = True
    unknown: float = UNLABELLED
    whole = True
    fewest = 2

    def shape(self, labels: int) -> tuple[int, ...]:
        """An id."""
        return ()

    def gold(self, said: Sequence[str], ids: Mapping[str, int], labels: int) -> list[float]:
        """The id of each unit's label."""
        return [ids[name] for name in said]

    def known(self, gold: np.ndarray) -> np.ndarray:
        """Those that are ids."""
        return gold != UNLABELLED

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """The id of the largest logit."""
        return logits.argmax(-1)

    def alike(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether they are the same label."""
        return one == other

    def told(self, decided: np.ndarray, labels: Sequence[str]) -> list[Any]:
        """The labels' names."""
        return [labels[index] for index in decided]

    def confidence(self, logits: np.ndarray) -> np.ndarray:
        """The largest probability."""
        return np.exp(_likely(logits, 1.0).max(-1))

    def divergence(self, one: np.ndarray, other: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Of softmax(z / T)."""
        before, after = _likely(one, temperature), _likely(other, temperature)
        return np.exp(before) * (before - after)

    def mean(self, stack: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
        """T times the logarithm of the mean probability."""
        from scipy.special import log_softmax, logsumexp

        likely = log_softmax(stack / temperature, -1)
        return temperature * logsumexp(likely, 0, b=np.broadcast_to(weights[:, None, None], likely.shape))

    def task_loss(self, logits: "Tensor", gold: "Tensor") -> "Tensor":
        """Cross-entropy."""
        from kdray.outputs.losses import cross_entropy

        return cross_entropy(logits, gold)

    def kl(self, student: "Tensor", teacher: "Tensor", temperature: "float | Tensor") -> "Tensor":
        """Of the softmax over labels."""
        from kdray.outputs.losses import kl

        return kl(student, teacher, temperature)

    def certainty(self, teacher: "Tensor") -> "Tensor":
        """The largest probability, rescaled."""
        chance = 1 / teacher.shape[-1]
        return (teacher.softmax(-1).amax(-1) - chance) / (1 - chance)

    def information(self, teacher: "Tensor") -> "Tensor":
        """1 - H(softmax(z)) / log K, with K labels.

        Kwon et al. 2020 (Adaptive knowledge distillation based on entropy, ICASSP) prefer low entropy among several
        teachers; here it is among the targets of one. EA-KD (arXiv 2311.13621) prefers high entropy instead.
        """
        import torch

        return 1 - torch.special.entr(teacher.softmax(-1)).sum(-1) / math.log(teacher.shape[-1])

    def breakdown(self, gold: np.ndarray, decided: np.ndarray, confidence: np.ndarray,
                  labels: Sequence[str]) -> dict[str, Any]:
        """`classes`, `confusion` and `calibration`, all by unit."""
        from sklearn.metrics import confusion_matrix

        from kdray.outputs.classes import calibration, classes

        seen = ~np.isnan(confidence)
        return {"classes": classes(gold, decided, labels),
                "confusion": confusion_matrix(gold, decided, labels=range(len(labels))).tolist(),
                "calibration": calibration(confidence[seen], (gold == decided)[seen])}

    def summary(self, logits: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> Summary:
        """Agreement with the labels, entropy in nats and confidence; by label, agreement and confidence."""
        likely, known = _likely(logits, 1.0), self.known(gold)
        sure, right = np.exp(likely.max(-1)), likely.argmax(-1) == gold
        agreement = {"agreement with the labels": float(right[known].mean())} if known.any() else {}
        counts, edges = np.histogram(sure, _BINS, (0, 1))
        lines = [(label, *_of_class(gold == index, right, sure)) for index, label in enumerate(labels)]
        return Summary(
            {**agreement, "mean entropy, nats": float(-(np.exp(likely) * likely).sum(-1).mean()),
             "mean confidence": float(sure.mean())},
            "confidence", edges.tolist(), counts.tolist(), ("agreement", "confidence"), lines if known.any() else [])

    def doubt(self, teacher: np.ndarray, gold: np.ndarray) -> str | None:
        """Constant probabilities, or labels that agree with the gold no better than chance (Cohen 1960, kappa)."""
        from sklearn.metrics import cohen_kappa_score

        spread = np.ptp(np.exp(_likely(teacher, 1.0)), 0).max()
        if spread < _SPREAD:
            return constant(f"{len(gold)} targets of train, no probability of the teacher differs by more than "
                            f"{spread:.2g}")
        kappa = cohen_kappa_score(gold, teacher.argmax(-1))
        if kappa < _KAPPA:
            return strange(f"agree with the hard labels no better than chance: Cohen's kappa is {kappa:.3f} over "
                           f"{len(gold)} targets of train")
        return None

    def check_teacher(self, gold: np.ndarray, unsettled: np.ndarray, labels: Sequence[str]) -> None:
        """By accuracy, and by the best order of the labels."""
        from kdray.outputs.labelmap import check_label_map

        check_label_map(gold.tolist(), unsettled.tolist(), tuple(labels))


def _likely(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities; NaN where logits are."""
    from scipy.special import log_softmax

    with np.errstate(invalid="ignore"):
        return log_softmax(logits.astype(np.float64) / temperature, -1)


def _of_class(mine: np.ndarray, right: np.ndarray, sure: np.ndarray) -> tuple[int, tuple[float, float]]:
    """Targets of a label; agreement and mean confidence there, 0 where there are none."""
    count = int(mine.sum())
    return count, (float(right[mine].mean()), float(sure[mine].mean())) if count else (0.0, 0.0)
