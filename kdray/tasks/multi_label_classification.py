"""Single texts or pairs of texts become several labels a row, or none."""

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from kdray.outputs import Flags, Output
from kdray.outputs.threshold import best_threshold
from kdray.tasks.base import Counts, Row
from kdray.tasks.texts import TEXTS, Texts


class MultiLabelClassification(Texts):
    """Each label by itself, for a text or for a pair of texts."""

    name = "multi-label-classification"
    output: Output = Flags()
    shown = "flags"
    problem: str | None = "multi_label_classification"
    columns = {**TEXTS, "labels": True}
    label_column = "labels"
    metrics: tuple[str, ...] = ("micro_f1", "macro_f1", "subset_accuracy")

    def complaint(self, row: Row) -> str | None:
        """Texts must not be empty; labels are a list, none of them empty."""
        return self.text_complaint(row) or (_label_complaint(row["labels"]) if "labels" in row else None)

    def labels(self, row: Row) -> list[str]:
        """All of the row's labels."""
        return [str(label) for label in row["labels"]]

    def stratum(self, row: Row) -> str:
        """The labels together."""
        return "+".join(sorted(self.labels(row)))

    def tally(self, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str]) -> Counts:
        """Of each label whether it was found rightly, was found, and was there; and whether all labels are right."""
        truth, guess = np.concatenate(gold), np.concatenate(predicted)
        exact = (truth == guess).all(-1, keepdims=True)
        counts = csr_array(np.concatenate([truth * guess, guess, truth, exact, np.ones_like(exact)], -1).astype(float))
        return Counts(counts, lambda sums: _rates(sums, len(labels)))

    def tuned(self, truth: list[Any], unsettled: list[np.ndarray]) -> float:
        """The threshold of all labels with the best F1 of all decisions together."""
        there, logits = (np.concatenate(column).ravel() for column in (truth, unsettled))
        order = np.argsort(logits, kind="stable")
        missed = np.concatenate([[0], np.cumsum(there[order])])
        found = len(logits) - np.arange(len(logits) + 1)
        f1 = 2 * (there.sum() - missed) / np.maximum(1, found + there.sum())
        return best_threshold(logits[order].astype(np.float64), f1)

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Labels with their probabilities, each by itself; a half is where the threshold is."""
        return self.ranking(logits[0][0], labels, parameters, "sigmoid")


def _label_complaint(labels: Any) -> str | None:
    if labels is None:
        return "labels is missing: an empty list says that there is none"
    if isinstance(labels, str):
        return "labels is a text, not a list: name what stands between two of them (data.separator)"
    if any(not str(label or "").strip() for label in labels):
        return f"label {next(i for i, label in enumerate(labels) if not str(label or '').strip())} is empty"
    if len(set(labels)) < len(labels):
        return f"labels has {next(label for label in labels if labels.count(label) > 1)!r} twice"
    return None


def _rates(sums: np.ndarray, labels: int) -> dict[str, float]:
    """F1 of all decisions together, mean F1 of the labels that are there or were found, rows with all labels right."""
    hits, found, there = sums[:3 * labels].reshape(3, labels)
    present = (found + there) > 0
    f1 = 2 * hits[present] / (found + there)[present]
    total = (found + there).sum()
    return {"micro_f1": float(2 * hits.sum() / total) if total else 0.0,
            "macro_f1": float(f1.mean()) if len(f1) else 0.0, "subset_accuracy": float(sums[-2] / sums[-1])}
