"""Sentences of words become one tag a word, and entities.

A word's logits are those of its first sub-word, so that they do not depend on how a tokenizer cuts words.
"""

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from kdray.outputs import Choice, Output
from kdray.tasks.base import Counts, Cut, Encoded, Row, Usual, phrase_of
from kdray.tasks.schemes import OUTSIDE, neighbours, remark, scheme_of, spans

_WORD = re.compile(r"\w+(?:[^\w\s]+\w+)*|[^\w\s]")


class TokenClassification(Usual):
    """One label for each word of a sentence."""

    name = "token-classification"
    output: Output = Choice()
    unit = "word"
    shown = "entities"
    ranked = False
    example: Any = "Ada Lovelace lived in London."
    pipeline_tag = "token-classification"
    codec = "float16"
    auto_class = "AutoModelForTokenClassification"
    columns = {"tokens": True, "tags": True}
    label_column = "tags"
    metrics: tuple[str, ...] = ("f1", "precision", "recall", "accuracy")

    def complaint(self, row: Row) -> str | None:
        """There must be words, none empty, and a tag for each."""
        for column in ("tokens", "tags"):
            if isinstance(row.get(column), str):
                return f"{column} is a text, not a list: give lists, or spans [start, end, label] as tags"
        tokens = row["tokens"]
        if not tokens:
            return "tokens is empty"
        if any(not str(token or "").strip() for token in tokens):
            return f"token {next(i for i, t in enumerate(tokens) if not str(t or '').strip())} is empty"
        if "tags" not in row:
            return None
        tags = row["tags"]
        if tags is None or len(tags) != len(tokens):
            return f"there are {len(tokens)} tokens and {len(tags or [])} tags"
        if any(tag in (None, "") for tag in tags):
            return f"tag {next(i for i, tag in enumerate(tags) if tag in (None, ''))} is missing"
        return None

    def phrase(self, row: Row, random: np.random.Generator, cut: Cut) -> Row:
        """A phrase of the sentence's words."""
        return {"tokens": phrase_of(row["tokens"], random, cut(self.item(row)).others)}

    def labels(self, row: Row) -> list[str]:
        """One tag a word."""
        return [str(tag) for tag in row["tags"]]

    def stratum(self, row: Row) -> str:
        """The kinds of entity in the sentence."""
        return "+".join(sorted({tag.partition("-")[2] or tag for tag in self.labels(row) if tag != OUTSIDE}))

    def traits(self, row: Row) -> set[Any]:
        """The tags that stand side by side."""
        return neighbours(self.labels(row))

    def remarks(self, labels: list[str], traits: set[Any]) -> Iterator[tuple[int, str]]:
        """The scheme of the tags, and whether they are numbers."""
        if all(label.isdigit() for label in labels):
            yield logging.WARNING, (f"tags are numbers without names ({', '.join(labels)}): f1 counts words, for "
                                    "nothing says which are an entity. Write names such as B-PER, or take a dataset "
                                    "that has them (ClassLabel)")
        elif said := remark(labels, traits):
            yield logging.INFO, said

    def item(self, row: Row) -> Any:
        """Words with spaces between."""
        return " ".join(row["tokens"])

    def space(self, tokenizer: Any) -> str:
        """A space where the tokenizer cuts a word by itself otherwise than within a text, and a space before it helps.

        Byte-level BPE does: to it, the space is a part of the word.
        """
        return _space(tokenizer)

    def encode(self, tokenizer: Any, rows: list[Row], max_length: int) -> Encoded:
        """A target for each word whose first sub-word is within `max_length`."""
        space = self.space(tokenizer)
        words = [[space + word for word in row["tokens"]] for row in rows]
        encoding = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length,
                             return_attention_mask=False)
        targets, positions = [], []
        for index in range(len(rows)):
            first: dict[int, int] = {}
            for position, word in enumerate(encoding.word_ids(index)):
                if word is not None:
                    first.setdefault(word, position)
            targets.append(list(first))
            positions.append(list(first.values()))
        return Encoded(encoding["input_ids"], encoding.get("token_type_ids"), targets, positions)

    def gather(self, logits: Any, row: Any, position: Any) -> Any:
        """The first sub-words' logits; padding and special tokens are left behind."""
        return logits[row, position]

    def decide(self, logits: np.ndarray, targets: np.ndarray, units: int, labels: list[str]) -> np.ndarray:
        """The output's decision; a word that the model never saw is outside every entity."""
        outside = labels.index(OUTSIDE) if OUTSIDE in labels else 0
        decided = np.full(units, outside)
        if len(targets):
            decided[targets] = self.output.decide(logits)
        return decided

    def tally(self, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str]) -> Counts:
        """Entities found rightly, found, and there; words labelled rightly, and there."""
        counts, scheme = np.zeros((len(gold), 5)), scheme_of(labels)
        for row, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
            there, found = (set(spans([labels[i] for i in ids], scheme)) for ids in (truth, guess))
            counts[row] = len(there & found), len(found), len(there), (truth == guess).sum(), len(truth)
        return Counts(csr_array(counts), _rates)

    def taught(self, row: Row, said: list[Any]) -> Row | None:
        """The words, with their tags."""
        return {"tokens": row["tokens"], "tags": said} if len(said) == len(row["tokens"]) else None

    def requests(self, item: Any, tokenizer: Any, max_length: int) -> list[Row]:
        """A string, cut into words, and into rows of at most `max_length` tokens."""
        if not isinstance(item, str):
            raise ValueError("an input must be a string")
        words = words_of(item)
        if not words:
            return []
        space = self.space(tokenizer)
        pieces = tokenizer([space + word for word, _, _ in words], add_special_tokens=False)["input_ids"]
        room = max_length - tokenizer.num_special_tokens_to_add()
        rows: list[list[tuple[str, int, int]]] = [[]]
        used = 0
        for word, ids in zip(words, pieces, strict=True):
            if rows[-1] and used + len(ids) > room:
                rows.append([])
                used = 0
            rows[-1].append(word)
            used += len(ids)
        return [{"tokens": [word for word, _, _ in row], "offsets": [(a, b) for _, a, b in row], "source": item}
                for row in rows]

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Entities in order; `aggregation_strategy` none gives one entry a word, anything else one a span."""
        strategy = parameters.get("aggregation_strategy") or "simple"
        if strategy not in ("none", "simple", "first", "average", "max"):
            raise ValueError(f"aggregation_strategy must be none, simple, first, average or max, not {strategy!r}")
        ignored = parameters.get("ignore_labels", ["O"])
        if not isinstance(ignored, list):
            raise ValueError(f"ignore_labels must be a list of labels, not {ignored!r}")
        answers, scheme = [], scheme_of(labels)
        for row, row_logits, row_targets in zip(rows, logits, targets, strict=True):
            ids = self.decide(row_logits, row_targets, len(row["tokens"]), labels)
            confidence = np.zeros(len(row["tokens"]))
            if len(row_targets):
                confidence[row_targets] = self.output.confidence(row_logits)
            words = [labels[index] for index in ids]
            if strategy == "none":
                answers += [_element(row, i, i + 1, confidence, {"entity": word}) for i, word in enumerate(words)
                            if word not in ignored]
            else:
                answers += [_element(row, a, b, confidence, {"entity_group": kind})
                            for kind, a, b in spans(words, scheme) if kind not in ignored]
        return answers


def _rates(sums: np.ndarray) -> dict[str, float]:
    """Entity-level precision, recall and F1 (micro, exact spans, as in CoNLL-2003), and word accuracy."""
    hits, found, there, right, words = (float(count) for count in sums)
    precision, recall = hits / found if found else 0.0, hits / there if there else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"f1": f1, "precision": precision, "recall": recall, "accuracy": right / words}


def words_of(text: str) -> list[tuple[str, int, int]]:
    """Words and signs of a text as they are served: each with its first character and the one after its last."""
    return [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text)]


@lru_cache(maxsize=2)
def _space(tokenizer: Any) -> str:
    by_itself, within, spaced = (
        tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"][-1:]
        for words in (["a", "a"], ["a a"], [" a", " a"]))
    return " " if by_itself != within == spaced else ""


def _element(row: Row, first: int, after: int, confidence: np.ndarray, name: dict[str, str]) -> dict[str, Any]:
    start, end = row["offsets"][first][0], row["offsets"][after - 1][1]
    return {**name, "score": float(confidence[first:after].mean()), "word": row["source"][start:end],
            "start": start, "end": end}
