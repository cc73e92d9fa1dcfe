"""Texts become vectors, each text by itself, as near each other as a teacher's vectors are.

No row needs a label. Rows that are pairs of texts may have a score that says how alike the two are: nobody learns from
it, but it measures how well cosines go with what people think. The other measure is the teacher: whether a text's
nearest texts are those that it has by the teacher's vectors.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.outputs import Embedding, Output
from kdray.outputs.embedding import cosines
from kdray.tasks.base import Cut, Encoded, Row
from kdray.tasks.regression import pearson, ranks, score_complaint
from kdray.tasks.texts import TEXTS, Texts

_NEAREST = 10
_MOST = 4096
"""Texts that neighbours are sought among."""
_SOURCE, _SENTENCES = "source_sentence", "sentences"
_BATCH = 512
_SAID = 4
"""Numbers of a vector that people are shown."""
_LEAST = 1e-12


class SentenceEmbedding(Texts):
    """A vector a text."""

    name = "sentence-embedding"
    output: Output = Embedding()
    pipeline_tag = "feature-extraction"
    codec = "float16"
    auto_class = "AutoModel"
    shown = "vectors"
    ranked = False
    labelled = False
    options: tuple[str, ...] = ("normalize", "truncate", "truncation_direction", "dimensions", "prompt_name",
                                "encoding_format")
    routes: tuple[str, ...] = ("embeddings",)
    columns = {**TEXTS, "score": False}
    label_column = "score"
    metrics: tuple[str, ...] = ("recall_at_10", "spearman")
    use: tuple[str, str] | None = (
        "sentence-transformers", 'from sentence_transformers import SentenceTransformer\n\n'
        'print(SentenceTransformer(".").encode(["Some text."]))')

    def complaint(self, row: Row) -> str | None:
        """There must be a text; a score is a number, and of two texts."""
        found = self.text_complaint({name: row[name] for name in TEXTS if name == "text" or row.get(name) is not None})
        if found or row.get("score") in (None, ""):
            return found
        return score_complaint(row["score"]) or (
            None if row.get("text_pair") else f"score {row['score']} is of one text: there is no text_pair")

    def phrase(self, row: Row, random: np.random.Generator, cut: Cut) -> Row:
        """A phrase of each text's words."""
        found = super().phrase({name: row[name] for name in TEXTS if row.get(name)}, random, cut)
        return {name: found.get(name) for name in TEXTS}

    def labels(self, row: Row) -> list[str]:
        """The score, where there is one."""
        return [] if row.get("score") in (None, "") else [str(row["score"])]

    def stratum(self, row: Row) -> str:
        """Whether there is a score, and the whole number below it."""
        return "".join(str(math.floor(float(score))) for score in self.labels(row))

    def rows(self, row: Row) -> list[Row]:
        """Each text by itself; the first of a pair has the score."""
        texts = [row[name] for name in TEXTS if row.get(name)]
        return [{"text": text, "score": row.get("score") if place == 0 else None} for place, text in enumerate(texts)]

    def item(self, row: Row) -> Any:
        """The text."""
        return row["text"]

    def encode(self, tokenizer: Any, rows: list[Row], max_length: int) -> Encoded:
        """One target a text."""
        return super().encode(tokenizer, [{"text": row["text"]} for row in rows], max_length)

    def truth(self, gold: list[np.ndarray], raw: pa.Table, teacher: list[np.ndarray]) -> list[Any]:
        """The score, and behind it the teacher's vector."""
        return [np.concatenate(both, -1) for both in zip(gold, teacher, strict=True)]

    def say(self, told: Any, row: Row) -> str:
        """The vector's first numbers; the score."""
        if isinstance(told, float):
            return super().say(told, row)
        return ", ".join(f"{number:.2f}" for number in told[:_SAID]) + (", …" if len(told) > _SAID else "")

    def tally(self, truth: list[Any], predicted: list[np.ndarray], labels: list[str]) -> "Likeness":
        """Which of each text's neighbours are found; and the cosine of each pair that has a score."""
        known, said = np.concatenate(truth), np.concatenate(predicted)
        asked = np.unique(np.linspace(0, len(said) - 1, min(len(said), _MOST)).astype(int))
        first = np.flatnonzero(~np.isnan(known[:, 0]))
        return Likeness(len(said), asked, _found(known[asked, 1:], said[asked]), first,
                        known[first, 0].astype(np.float64), cosines(said[first], said[first + 1]))

    def cut_by_pipeline(self, max_length: int) -> dict[str, Any] | None:
        """None: the pipeline of that name gives a vector a token."""
        return None

    def taught(self, row: Row, said: list[Any]) -> Row | None:
        """The text: whoever is asked again says the vector."""
        return {"text": row["text"]}

    def requests(self, item: Any, tokenizer: Any, max_length: int) -> list[Row]:
        """A string; or `{"source_sentence": ..., "sentences": [...]}`, whose texts are to be compared."""
        if isinstance(item, str):
            return [{"text": item}]
        if isinstance(item, dict) and item.keys() == {_SOURCE, _SENTENCES} and isinstance(item[_SENTENCES], list):
            texts = [item[_SOURCE], *item[_SENTENCES]]
            if len(texts) > 1 and all(isinstance(text, str) and text.strip() for text in texts):
                return [{"text": text, "compared": True} for text in texts]
        raise ValueError('an input must be a string or {"source_sentence": string, "sentences": [string, ...]}, and no '
                         'text empty')

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> list[Any]:
        """The vector; of texts that are to be compared, the cosine of the first and each of the others."""
        vectors = np.concatenate(logits)
        if "compared" in rows[0]:
            return cosines(vectors[:1], vectors[1:]).tolist()
        return _shaped(vectors[0].astype(np.float64), parameters).tolist()


@dataclass(frozen=True)
class Likeness:
    """A tally of vectors."""

    rows: int
    asked: np.ndarray
    """(asked,): rows whose neighbours were sought, all of them or 4,096 evenly spaced ones."""
    found: np.ndarray
    """(asked,): share of its neighbours that were found."""
    first: np.ndarray
    """(pairs,): the first row of each pair that has a score."""
    truth: np.ndarray
    """(pairs,): that score."""
    said: np.ndarray
    """(pairs,): the cosine."""

    def rates(self, weights: np.ndarray) -> dict[str, float]:
        """Share of the teacher's 10 nearest neighbours that are found; Spearman's correlation of cosine and score.

        The latter is left out where no pair has a score.
        """
        asked, pairs = weights[self.asked], weights[self.first]
        recall = float(asked @ self.found / asked.sum()) if asked.sum() else 0.0
        if not len(pairs):
            return {"recall_at_10": recall}
        return {"recall_at_10": recall,
                "spearman": pearson(ranks(self.truth, pairs), ranks(self.said, pairs), pairs)}

    def beside(self, other: "Likeness") -> "Likeness":
        """Rows of both."""
        joined = {name: np.concatenate([getattr(self, name), getattr(other, name)])
                  for name in ("found", "truth", "said")}
        return replace(self, rows=self.rows + other.rows, asked=np.concatenate([self.asked, self.rows + other.asked]),
                       first=np.concatenate([self.first, self.rows + other.first]), **joined)


def _found(teacher: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Of each text's 10 nearest by the teacher's vectors, the share that is among the 10 nearest by what is `said`."""
    nearest = min(_NEAREST, len(said) - 1)
    if nearest < 1:
        return np.ones(len(said))
    sides = [_directions(vectors) for vectors in (teacher, said)]
    shares = np.empty(len(said))
    for start in range(0, len(said), _BATCH):
        theirs, ours = (_nearest(side, start, nearest) for side in sides)
        shares[start:start + _BATCH] = (theirs[:, :, None] == ours[:, None, :]).any(-1).mean(-1)
    return shares


def _nearest(vectors: np.ndarray, start: int, count: int) -> np.ndarray:
    """The `count` nearest of some vectors, themselves aside: (vectors, count)."""
    some = vectors[start:start + _BATCH]
    cosine = some @ vectors.T
    cosine[np.arange(len(some)), start + np.arange(len(some))] = -np.inf
    return np.argpartition(-cosine, count - 1, axis=-1)[:, :count]


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _LEAST)


def _shaped(vector: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    """A vector as the options want it."""
    refused = {"truncate": (None, True), "truncation_direction": (None, "right", "Right"), "prompt_name": (None,),
               "encoding_format": (None, "float"), "normalize": (None, True, False)}
    for name, allowed in refused.items():
        if (value := parameters.get(name)) not in allowed:
            raise ValueError(f"{name} cannot be {value!r}: texts that are too long are cut on the right, without a "
                             "prompt before them, and numbers are numbers")
    dimensions = parameters.get("dimensions")
    if dimensions is not None:
        if not isinstance(dimensions, int) or isinstance(dimensions, bool) or not 1 <= dimensions <= len(vector):
            raise ValueError(f"dimensions must be a whole number from 1 to {len(vector)}, not {dimensions!r}")
        vector = vector[:dimensions]
    return vector / max(_LEAST, float(np.linalg.norm(vector))) if parameters.get("normalize") else vector
