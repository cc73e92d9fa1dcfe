"""Single texts or pairs of texts become one label a row."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from kdray.tasks.base import Cut, Encoded, Row, phrase_of


class SequenceClassification:
    """One label for a text, or for a pair of texts."""

    name = "sequence-classification"
    pipeline_tag = "text-classification"
    codec = "float32"
    auto_class = "AutoModelForSequenceClassification"
    columns = {"text": True, "text_pair": False, "label": True}
    label_column = "label"
    metrics: tuple[str, ...] = ("accuracy", "macro_f1", "matthews")

    def complaint(self, row: Row) -> str | None:
        """Texts must not be empty and the label must be there."""
        for column in ("text", "text_pair", "label"):
            if isinstance(row.get(column), list):
                return f"{column} is a list, not a text"
        for column in ("text", "text_pair"):
            if column in row and not str(row[column] or "").strip():
                return f"{column} is empty"
        return "label is missing" if row.get("label", True) in (None, "") else None

    def phrase(self, row: Row, random: np.random.Generator, cut: Cut) -> Row:
        """A phrase of the text's words; of a pair, one of each text's."""
        texts = {name: cut(row[name]) for name in ("text", "text_pair") if name in row}
        return {name: units.between.join(phrase_of(units.parts, random, units.others)).strip()
                for name, units in texts.items()}

    def labels(self, row: Row) -> list[str]:
        """The row's one label."""
        return [str(row["label"])]

    def stratum(self, row: Row) -> str:
        """The label."""
        return str(row["label"])

    def traits(self, row: Row) -> set[Any]:
        """None."""
        return set()

    def remarks(self, labels: list[str], traits: set[Any]) -> Iterator[tuple[int, str]]:
        """None."""
        return iter(())

    def item(self, row: Row) -> Any:
        """The text, or both texts."""
        return {"text": row["text"], "text_pair": row["text_pair"]} if "text_pair" in row else row["text"]

    def space(self, tokenizer: Any) -> str:
        """Nothing: texts are given whole."""
        return ""

    def encode(self, tokenizer: Any, rows: list[Row], max_length: int) -> Encoded:
        """One target a row; the head pools, so positions are 0."""
        texts = [row["text"] for row in rows]
        pairs = [row["text_pair"] for row in rows] if rows and "text_pair" in rows[0] else None
        encoding = tokenizer(texts, pairs, truncation=True, max_length=max_length, return_attention_mask=False)
        ones = [[0]] * len(rows)
        return Encoded(encoding["input_ids"], encoding.get("token_type_ids"), ones, ones)

    def gather(self, logits: Any, row: Any, position: Any) -> Any:
        """The head has pooled already."""
        return logits

    def decide(self, logits: np.ndarray, targets: np.ndarray, units: int, labels: list[str]) -> np.ndarray:
        """The largest logit."""
        return logits.argmax(-1)

    def tally(self, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str]) -> csr_array:
        """One count a row: its cell of the flattened confusion matrix (truth, guess)."""
        cells = np.concatenate(gold) * len(labels) + np.concatenate(predicted)
        rows = np.arange(len(cells))
        return csr_array((np.ones(len(cells)), (rows, cells)), shape=(len(cells), len(labels) ** 2))

    def rates(self, counts: np.ndarray, labels: list[str]) -> dict[str, float]:
        """Accuracy; macro-F1 over the labels present; Matthews' correlation (Gorodkin 2004, equation 8)."""
        confusion = counts.reshape(len(labels), len(labels))
        total, hits = confusion.sum(), np.diag(confusion)
        truth, guess = confusion.sum(1), confusion.sum(0)
        present = (truth + guess) > 0
        spread = np.sqrt((total**2 - truth @ truth) * (total**2 - guess @ guess))
        return {
            "accuracy": float(hits.sum() / total),
            "macro_f1": float((2 * hits[present] / (truth + guess)[present]).mean()),
            "matthews": float((hits.sum() * total - truth @ guess) / spread) if spread > 0 else 0.0,
        }

    def scores(self, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str]) -> dict[str, float]:
        """Accuracy, macro-F1 and Matthews' correlation."""
        return self.rates(self.tally(gold, predicted, labels).sum(0), labels)

    def requests(self, item: Any, tokenizer: Any, max_length: int) -> list[Row]:
        """A string, or `{"text": ..., "text_pair": ...}`."""
        if isinstance(item, str):
            return [{"text": item}]
        if (isinstance(item, dict) and item.keys() <= {"text", "text_pair"}
                and isinstance(item.get("text"), str) and isinstance(item.get("text_pair", ""), str)):
            return [item]
        raise ValueError('an input must be a string or {"text": string, "text_pair": string}')

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Labels with scores, best first; `top_k` and `function_to_apply` as in the protocol."""
        scores = _activation(parameters.get("function_to_apply") or "softmax")(logits[0][0].astype(np.float64))
        top_k = parameters.get("top_k")
        if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            raise ValueError(f"top_k must be a whole number above 0, not {top_k!r}")
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [{"label": labels[index], "score": float(scores[index])} for index in order]


def _activation(name: Any) -> Any:
    functions = {
        "softmax": lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "none": lambda x: x,
    }
    if not isinstance(name, str) or name not in functions:
        raise ValueError(f"function_to_apply must be one of {', '.join(functions)}, not {name!r}")
    return functions[name]
