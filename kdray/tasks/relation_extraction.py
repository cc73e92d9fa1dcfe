"""Texts with two entities become the relation that holds between them."""

import logging
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from kdray.errors import DataError
from kdray.outputs import Choice, Output
from kdray.tasks.base import Counts, Cut, Encoded, Row, phrase_of
from kdray.tasks.markers import FORM, MARKERS, entities, marked, unmarked
from kdray.tasks.texts import Texts, confusions

_DIRECTION = re.compile(r"\s*\((e1,\s*e2|e2,\s*e1)\)$")
_SPANS = {"text", "head", "tail"}
_NONE = ("other", "norelation", "na", "none", "false")
"""What data call the label of entities without a relation, but for case and signs."""


class RelationExtraction(Texts):
    """One relation for two entities of a text, its direction as in the label."""

    name = "relation-extraction"
    output: Output = Choice()
    columns = {"text": True, "head": False, "tail": False, "relation": True}
    label_column = "relation"
    metrics: tuple[str, ...] = ("macro_f1", "micro_f1", "accuracy")
    markers: Mapping[str, str] = MARKERS
    example: Any = "The <e1>author</e1> of the <e2>book</e2> lives here."

    def complaint(self, row: Row) -> str | None:
        """There must be a text, two spans of it or markers in it, and a relation."""
        if isinstance(row.get("relation"), list):
            return "relation is a list, not a text: give a row for each"
        if wrong := self.text_complaint(row):
            return wrong
        try:
            marked(row)
        except ValueError as error:
            return str(error)
        return "relation is missing" if row.get("relation", True) in (None, "") else None

    def labels(self, row: Row) -> list[str]:
        """The relation."""
        return [str(row["relation"])]

    def stratum(self, row: Row) -> str:
        """The relation."""
        return str(row["relation"])

    def remarks(self, labels: list[str], traits: set[Any]) -> Iterator[tuple[int, str]]:
        """What the metrics take for a relation."""
        named, nothing = set(_relations(labels)) - {None}, [name for name in labels if _is_none(name)]
        left = f", {' and '.join(map(repr, nothing))} left out" if nothing else (
            ": none of the labels is called Other, no_relation, NA, none or false, and would be left out")
        yield logging.INFO, f"macro_f1 and micro_f1 are over {len(named)} relations{left}"

    def item(self, row: Row) -> str:
        """The text with markers."""
        return marked(row)

    def group(self, row: Row) -> str:
        """The text, whichever of its entities are meant."""
        return unmarked(row["text"])

    def phrase(self, row: Row, random: np.random.Generator, cut: Cut) -> Row:
        """Both entities as they are, and phrases of what is before, between and behind them."""
        found = entities(marked(row))
        spans, parts, moved = (found.head, found.tail), list[str](), dict[int, int]()
        for start, stop in pairwise(sorted({0, *found.head, *found.tail, len(found.text)})):
            moved[start], part = len("".join(parts)), found.text[start:stop]
            within = any(first <= start and stop <= last for first, last in spans)
            parts.append(part if within else _phrase(part, random, cut))
        text = "".join(parts)
        moved[len(found.text)] = len(text)
        head, tail = ([str(moved[place]) for place in span] for span in spans)
        made = {"text": text, "head": head, "tail": tail}
        return made if "head" in row else {"text": marked(made)}

    def encode(self, tokenizer: Any, rows: list[Row], max_length: int) -> Encoded:
        """One target a row; of a row that is too long, the text around both entities, or around each."""
        encoding = tokenizer([marked(row) for row in rows], return_attention_mask=False,
                             return_special_tokens_mask=True, verbose=False)
        markers = tokenizer.convert_tokens_to_ids(list(MARKERS))
        kept = [_window(np.array(special, bool), [ids.index(marker) for marker in markers], max_length)
                for ids, special in zip(encoding["input_ids"], encoding["special_tokens_mask"], strict=True)]
        ones, types = [[0]] * len(rows), encoding.get("token_type_ids")
        return Encoded(_taken(encoding["input_ids"], kept), types and _taken(types, kept), ones, ones)

    def tally(self, gold: list[np.ndarray], predicted: list[np.ndarray], labels: list[str]) -> Counts:
        """One count a row: its cell of the flattened confusion matrix (truth, guess)."""
        relations = _relations(labels)
        return confusions(gold, predicted, labels, lambda confusion: _rates(confusion, relations))

    def taught(self, row: Row, said: list[Any]) -> Row | None:
        """The text and its spans, with the relation."""
        found = entities(marked(row))
        plain = {"text": found.text, "head": list(found.head), "tail": list(found.tail)}
        return {**(row if "head" in row else plain), "relation": said[0]}

    def requests(self, item: Any, tokenizer: Any, max_length: int) -> list[Row]:
        """A string with markers, or `{"text": ..., "head": [start, end], "tail": [start, end]}`."""
        row = {"text": item} if isinstance(item, str) else item
        if not (isinstance(row, dict) and isinstance(row.get("text"), str) and row.keys() in ({"text"}, _SPANS)):
            raise ValueError(f'an input must be a string with markers, {FORM}, or {{"text": string, "head": [start, '
                             'end], "tail": [start, end]}')
        marked(row)
        return [row]

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Relations with their probabilities."""
        return self.ranking(logits[0][0], labels, parameters, "softmax")


def _phrase(text: str, random: np.random.Generator, cut: Cut) -> str:
    """A phrase of a text, with the space at its ends."""
    words = text.strip()
    if not words:
        return text
    start, units = text.index(words), cut(words)
    made = units.between.join(phrase_of(units.parts, random, units.others)).strip()
    return text[:start] + made + text[start + len(words):]


def _window(special: np.ndarray, marks: list[int], most: int) -> np.ndarray:
    """Which of a row's tokens stay, rising, at most `most`: the markers and special ones, then what is near them.

    What is in an entity is as near as can be where there is room for all of it, and so is what is between the two.
    `special` are booleans (tokens,), `marks` where each marker is, in the order of `MARKERS`. Raises DataError where
    there is room for no word.
    """
    places = np.arange(len(special))
    if len(places) <= most:
        return places
    away = np.abs(places[:, None] - marks).min(-1)
    away[special] = 0
    fixed = int((away == 0).sum())
    if fixed >= most:
        raise DataError(f"data.max_length = {most} has no room for words beside {fixed} tokens that must be there, "
                        "markers among them. Raise it")
    for first, last in (marks[:2], marks[2:], (min(marks), max(marks))):
        nearer = np.where((places > first) & (places < last), 0, away)
        away = nearer if (nearer == 0).sum() <= most else away
    return np.sort(np.argsort(away, kind="stable")[:most])


def _taken(rows: list[list[int]], kept: list[np.ndarray]) -> list[list[int]]:
    return [[row[place] for place in places] for row, places in zip(rows, kept, strict=True)]


def _relations(labels: list[str]) -> list[str | None]:
    """The relation of each label, without its direction; None where it is that there is none."""
    return [None if _is_none(label) else _DIRECTION.sub("", label) for label in labels]


def _is_none(label: str) -> bool:
    return re.sub(r"[\W_]", "", label).casefold() in _NONE


def _rates(confusion: np.ndarray, relations: list[str | None]) -> dict[str, float]:
    """Mean F1 of the relations that are there, F1 of all relations together, and accuracy.

    As SemEval-2010's scorer has them (Hendrickx et al. 2010, section 5; (9+1)-way, directionality taken into account):
    a relation is both its directions, and is found rightly where its direction is right too.
    """
    names = list(dict.fromkeys(name for name in relations if name is not None))
    of = np.array([[name == other for other in relations] for name in names], float).reshape(-1, len(relations))
    hits, there, found = of @ np.diag(confusion), of @ confusion.sum(1), of @ confusion.sum(0)
    f1 = 2 * hits[there > 0] / (there + found)[there > 0]
    total = (there + found).sum()
    return {"macro_f1": float(f1.mean()) if len(f1) else 0.0,
            "micro_f1": float(2 * hits.sum() / total) if total else 0.0,
            "accuracy": float(np.trace(confusion) / confusion.sum())}
