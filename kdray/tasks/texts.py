"""What all tasks have in common that read a text, or a pair of texts, and say one thing of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from kdray.outputs import Output
from kdray.tasks.base import Counts, Cut, Encoded, Row, Usual, phrase_of, whole

TEXTS = {"text": True, "text_pair": False}


class Texts(Usual):
    """One target for a text, or for a pair of texts."""

    pipeline_tag = "text-classification"
    codec = "float32"
    auto_class = "AutoModelForSequenceClassification"
    unit = "row"
    shown = "labels"
    ranked = True
    example: Any = "What a lovely film."
    output: Output
    label_column: str

    def text_complaint(self, row: Row) -> str | None:
        """What is wrong with a row's texts: they must not be empty, nor lists."""
        for column in TEXTS:
            if isinstance(row.get(column), list):
                return f"{column} is a list, not a text"
        for column in TEXTS:
            if column in row and not str(row[column] or "").strip():
                return f"{column} is empty"
        return None

    def phrase(self, row: Row, random: np.random.Generator, cut: Cut) -> Row:
        """A phrase of the text's words; of a pair, one of each text's."""
        texts = {name: cut(row[name]) for name in TEXTS if name in row}
        return {name: units.between.join(phrase_of(units.parts, random, units.others)).strip()
                for name, units in texts.items()}

    def item(self, row: Row) -> Any:
        """The text, or both texts."""
        return {"text": row["text"], "text_pair": row["text_pair"]} if "text_pair" in row else row["text"]

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
        """The output's decision for the text."""
        return self.output.decide(logits)

    def cut_by_pipeline(self, max_length: int) -> dict[str, Any] | None:
        """The tokenizer's own options."""
        return {"truncation": True, "max_length": max_length}

    def taught(self, row: Row, said: list[Any]) -> Row | None:
        """The texts, with the label."""
        return {**{name: row[name] for name in TEXTS if name in row}, self.label_column: said[0]}

    def requests(self, item: Any, tokenizer: Any, max_length: int) -> list[Row]:
        """A string, or `{"text": ..., "text_pair": ...}`."""
        if isinstance(item, str):
            return [{"text": item}]
        if (isinstance(item, dict) and item.keys() <= TEXTS.keys()
                and isinstance(item.get("text"), str) and isinstance(item.get("text_pair", ""), str)):
            return [item]
        raise ValueError('an input must be a string or {"text": string, "text_pair": string}')

    def ranking(self, logits: np.ndarray, labels: list[str], parameters: dict[str, Any],
                function: str) -> list[dict[str, Any]]:
        """Labels with scores, best first; `top_k` and `function_to_apply` as in the protocol, `function` by default."""
        scores = _activation(parameters.get("function_to_apply") or function)(logits.astype(np.float64))
        order = np.argsort(-scores, kind="stable")[:whole(parameters, "top_k", len(labels))]
        return [{"label": labels[index], "score": float(scores[index])} for index in order]


def confusions(gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str],
               rated: Callable[[np.ndarray], dict[str, float]]) -> Counts:
    """A tally of decisions, one a row, whose metrics follow from the confusion matrix (truth, guess)."""
    cells = np.concatenate(gold) * len(labels) + np.concatenate(predicted)
    rows = np.arange(len(cells))
    return Counts(csr_array((np.ones(len(cells)), (rows, cells)), shape=(len(cells), len(labels) ** 2)),
                  lambda counts: rated(counts.reshape(len(labels), len(labels))))


def _activation(name: Any) -> Any:
    from scipy.special import expit, softmax

    functions = {"softmax": softmax, "sigmoid": expit, "none": lambda x: x}
    if not isinstance(name, str) or name not in functions:
        raise ValueError(f"function_to_apply must be one of {', '.join(functions)}, not {name!r}")
    return functions[name]
