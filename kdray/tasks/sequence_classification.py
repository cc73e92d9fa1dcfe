"""Single texts or pairs of texts become one label a row."""

from typing import Any

import numpy as np

from kdray.outputs import Choice, Output
from kdray.tasks.base import Counts, Row
from kdray.tasks.texts import TEXTS, Texts, confusions


class SequenceClassification(Texts):
    """One label for a text, or for a pair of texts."""

    name = "sequence-classification"
    output: Output = Choice()
    columns = {**TEXTS, "label": True}
    label_column = "label"
    metrics: tuple[str, ...] = ("accuracy", "macro_f1", "matthews")

    def complaint(self, row: Row) -> str | None:
        """Texts must not be empty and the label must be there."""
        if isinstance(row.get("label"), list):
            return "label is a list, not a text: for several labels a row, take the task multi-label-classification"
        return self.text_complaint(row) or ("label is missing" if row.get("label", True) in (None, "") else None)

    def labels(self, row: Row) -> list[str]:
        """The row's one label."""
        return [str(row["label"])]

    def stratum(self, row: Row) -> str:
        """The label."""
        return str(row["label"])

    def tally(self, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str]) -> Counts:
        """One count a row: its cell of the flattened confusion matrix (truth, guess)."""
        return confusions(gold, predicted, labels, _rates)

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Labels with their probabilities."""
        return self.ranking(logits[0][0], labels, parameters, "softmax")


def _rates(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy; macro-F1 over the labels present; Matthews' correlation (Gorodkin 2004, equation 8)."""
    total, hits = confusion.sum(), np.diag(confusion)
    truth, guess = confusion.sum(1), confusion.sum(0)
    present = (truth + guess) > 0
    spread = np.sqrt((total**2 - truth @ truth) * (total**2 - guess @ guess))
    return {
        "accuracy": float(hits.sum() / total),
        "macro_f1": float((2 * hits[present] / (truth + guess)[present]).mean()),
        "matthews": float((hits.sum() * total - truth @ guess) / spread) if spread > 0 else 0.0,
    }
