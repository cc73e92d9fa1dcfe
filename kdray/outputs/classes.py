"""Decisions and confidences of units become what one number hides: classes and calibration.

Knows nothing about rows: units of all rows stand in one array.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

_BINS = 15


def classes(truth: np.ndarray, guess: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support (units) of each label; a share of nothing is 0.

    `truth` and `guess` are ids (units,), or ones and zeros (units, labels).
    """
    columns = precision_recall_fscore_support(truth, guess, labels=range(len(labels)), zero_division=0.0)
    return [{"label": label, "precision": float(precision), "recall": float(recall), "f1": float(f1),
             "support": int(support)}
            for label, precision, recall, f1, support in zip(labels, *columns, strict=True)]


def calibration(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Expected calibration error over 15 equal-width bins, and the bins: {count, confidence, accuracy}, means or None.

    Guo et al. 2017, arXiv 1706.04599, section 2: bin m is ((m - 1) / 15, m / 15], and
    ECE = sum over bins of count / n * |accuracy - confidence|.
    """
    place = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    count, sure, hits = (np.bincount(place, weights, _BINS) for weights in (None, confidence, right))
    bins = [{"count": int(n), "confidence": float(c / n) if n else None, "accuracy": float(a / n) if n else None}
            for n, c, a in zip(count, sure, hits, strict=True)]
    return {"ece": float(np.abs(hits - sure).sum() / max(1, len(right))), "bins": bins}
