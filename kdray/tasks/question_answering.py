"""Questions and texts become the part of the text that answers, or nothing where it does not.

A text that is longer than a row may be is read in windows that overlap; they are the entries of its row.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from kdray.errors import DataError
from kdray.outputs import Output, Span
from kdray.outputs.span import answer_threshold, answers
from kdray.outputs.windows import AGAIN, LONGEST, NONE, Candidate
from kdray.tasks.agreement import Truth, exact, f1
from kdray.tasks.base import Counts, Cut, Encoded, Row, Usual, phrase_of, whole
from kdray.tasks.squad import canonical, parts

_TEXTS = ("question", "context")
_QUESTION, _OVERLAP = 2, 4
"""What shares of a window a question may fill, and two windows have in common: 1 / each."""
_TAKEN = ("align_to_words", "doc_stride", "max_question_len", "max_seq_len")
"""Parameters of clients that say how to cut a text, which is done as in training."""


class QuestionAnswering(Usual):
    """A part of a text for a question, or none."""

    name = "question-answering"
    output: Output = Span()
    names: tuple[str, ...] = ("start", "end")
    unit = "question"
    ranked = False
    shown = "answer"
    example: Any = {"question": "Who wrote it?", "context": "It was written by Ada Lovelace."}
    use: tuple[str, str] | None = (
        "transformers", "from transformers import AutoModelForQuestionAnswering, AutoTokenizer\n\n"
        'model = AutoModelForQuestionAnswering.from_pretrained(".")\ntokenizer = AutoTokenizer.from_pretrained(".")')
    fields: tuple[str, ...] = _TEXTS
    pipeline_tag = "question-answering"
    codec = "float16"
    auto_class = "AutoModelForQuestionAnswering"
    columns = {"question": True, "context": True, "answers": True}
    label_column = "answers"
    metrics: tuple[str, ...] = ("f1", "exact_match")

    def plain(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Answers, however they are written, as texts `START TEXT`."""
        if "answers" not in columns:
            return columns
        return {**columns, "answers": pa.array(map(canonical, columns["answers"].to_pylist()), pa.list_(pa.string()))}

    def complaint(self, row: Row) -> str | None:
        """Texts must not be empty, and each answer be in the context, at its place."""
        for column in _TEXTS:
            if isinstance(row.get(column), list):
                return f"{column} is a list, not a text"
            if not str(row.get(column) or "").strip():
                return f"{column} is empty"
        if "answers" not in row:
            return None
        if row["answers"] is None:
            return "answers is missing: an empty list says that the context has none"
        return next(filter(None, (_misplaced(answer, row["context"]) for answer in row["answers"])), None)

    def phrase(self, row: Row, random: np.random.Generator, cut: Cut) -> Row:
        """A phrase of the question's words, asked of the same text."""
        units = cut(row["question"])
        return {"question": units.between.join(phrase_of(units.parts, random, units.others)).strip() or row["question"],
                "context": row["context"]}

    def labels(self, row: Row) -> list[str]:
        """Where the first answer starts and ends, as it is learned."""
        if not row["answers"]:
            return [str(NONE), str(NONE)]
        start, text = parts(row["answers"][0])
        return [str(start), str((start or 0) + len(text))]

    def group(self, row: Row) -> str:
        """The text."""
        return str(row["context"])

    def stratum(self, row: Row) -> str:
        """Whether there is an answer."""
        return "answer" if row["answers"] else "none"

    def item(self, row: Row) -> Any:
        """Question and context."""
        return {name: row[name] for name in _TEXTS}

    def encode(self, tokenizer: Any, rows: list[Row], max_length: int) -> Encoded:
        """An entry a window; of each, a target for no answer and one for each token of the context that it has.

        The former is [CLS], or the last token where a tokenizer has none; a question is cut at half of a window.
        """
        most = max_length // _QUESTION
        room = max_length - most - tokenizer.num_special_tokens_to_add(pair=True)
        if room < 1:
            raise DataError(f"data.max_length = {max_length} has no room for a question and a text: raise it")
        contexts = [row["context"] for row in rows]
        found = tokenizer(
            _cut(tokenizer, [row["question"] for row in rows], most), contexts, truncation="only_second",
            max_length=max_length, stride=min(max_length // _OVERLAP, room - 1),
            return_overflowing_tokens=True, return_offsets_mapping=True, return_attention_mask=False)
        ids, types, targets, positions, entries = (list[list[int]]([] for _ in rows) for _ in range(5))
        for window, row in enumerate(found["overflow_to_sample_mapping"]):
            own, before = found["input_ids"][window], len(ids[row])
            units, places = _targets(found["offset_mapping"][window], found.sequence_ids(window), contexts[row])
            none = own.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in own else len(own) - 1
            targets[row].extend([AGAIN if before else NONE, *units])
            positions[row].extend(before + place for place in (none, *places))
            ids[row].extend(own)
            types[row].extend(found["token_type_ids"][window] if "token_type_ids" in found else ())
            entries[row].append(len(own))
        return Encoded(ids, types if "token_type_ids" in found else None, targets, positions, entries)

    def gather(self, logits: Any, row: Any, position: Any) -> Any:
        """Those of each window's own tokens; the question is left behind."""
        return logits[row, position]

    def decide(self, logits: np.ndarray, targets: np.ndarray, units: int, labels: list[str]) -> np.ndarray:
        """The output's decision for the row, over all of its windows."""
        return self.output.among(targets).decide(logits)

    def truth(self, gold: list[np.ndarray], raw: pa.Table, teacher: list[np.ndarray]) -> list[Any]:
        """Each row's text, and its answers as texts."""
        contexts, found = (raw.column(name).to_pylist() for name in ("context", "answers"))
        return [Truth(context, [parts(answer)[1] for answer in those or []])
                for context, those in zip(contexts, found, strict=True)]

    def right(self, truth: Truth, decided: np.ndarray) -> bool:
        """Whether the answer is one of the row's, but for case, punctuation and articles."""
        return exact(said(truth.context, decided[0]), truth.answers)

    def tally(self, truth: list[Any], predicted: list[np.ndarray], labels: list[str]) -> Counts:
        """F1 and exact match of each row, and whether it has an answer."""
        counts = np.zeros((len(truth), 6))
        for row, (one, decided) in enumerate(zip(truth, predicted, strict=True)):
            text = said(one.context, decided[0])
            place = 0 if one.answers else 3
            counts[row, place:place + 3] = 1, f1(text, one.answers), exact(text, one.answers)
        mixed = bool(counts[:, 0].any() and counts[:, 3].any())
        return Counts(csr_array(counts), lambda sums: _rates(sums, mixed))

    def tuned(self, truth: list[Any], unsettled: list[np.ndarray]) -> float:
        """The threshold with the best F1 of all rows."""
        answered = [f1(said(one.context, row[0]), one.answers) for one, row in zip(truth, unsettled, strict=True)]
        silent = [float(not one.answers) for one in truth]
        return answer_threshold(np.array([row[0, 2] for row in unsettled]), np.array(answered), np.array(silent))

    def say(self, told: Any, row: Row) -> str:
        """The answer's text."""
        return said(row["context"], np.array(told)) if told else "no answer"

    def cut_by_pipeline(self, max_length: int) -> dict[str, Any] | None:
        """None: `transformers` has no pipeline for it."""
        return None

    def taught(self, row: Row, said: list[Any]) -> Row | None:
        """Question and context, with the answer."""
        place = said[0]
        text = row["context"][place[0]:place[1]].rstrip() if place else ""
        return {**self.item(row), "answers": [f"{place[0]} {text}"] if place else []}

    def requests(self, item: Any, tokenizer: Any, max_length: int) -> list[Row]:
        """`{"question": ..., "context": ...}`."""
        if isinstance(item, dict) and item.keys() == set(_TEXTS) and all(isinstance(item[name], str)
                                                                         for name in _TEXTS):
            if empty := [name for name in _TEXTS if not item[name].strip()]:
                raise ValueError(f"{empty[0]} is empty")
            return [item]
        raise ValueError('an input must be {"question": string, "context": string}')

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> Any:
        """The best answer, or a list of the `top_k` best; `max_answer_len` and `handle_impossible_answer` act."""
        top_k, longest = whole(parameters, "top_k", 1), whole(parameters, "max_answer_len", LONGEST)
        found, none = answers(logits[0], targets[0], longest)
        allowed = parameters.get("handle_impossible_answer")
        if allowed is not False or not found:
            found = sorted([*found, none], key=lambda one: one.total, reverse=True)
        told = [_told(rows[0]["context"], one) for one in found[:top_k]]
        return told if top_k > 1 else told[0]


def said(context: str, place: np.ndarray) -> str:
    """The text at a place in a context; the space before the next token is not part of it."""
    return "" if place[0] < 0 else context[int(place[0]):int(place[1])].rstrip()


def _told(context: str, one: Candidate) -> dict[str, Any]:
    text = said(context, np.array([one.start, one.stop]))
    start = max(0, one.start)
    return {"answer": text, "score": one.sure, "start": start, "end": start + len(text)}


def _cut(tokenizer: Any, questions: list[str], most: int) -> list[str]:
    """Questions without what is beyond so many tokens."""
    found = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
                      verbose=False)["offset_mapping"]
    return [text if len(offsets) <= most else text[:offsets[most - 1][1]]
            for text, offsets in zip(questions, found, strict=True)]


def _targets(offsets: list[tuple[int, int]], sequences: list[int | None], context: str) -> tuple[list[int], list[int]]:
    """Characters that a window's tokens start at, and their places; of tokens of one character, the first."""
    units, places = [NONE], [0]
    for place, ((start, end), sequence) in enumerate(zip(offsets, sequences, strict=True)):
        if sequence == 1:
            start += len(context[start:end]) - len(context[start:end].lstrip())
            if units[-1] < start < end:
                units.append(start)
                places.append(place)
    return units[1:], places[1:]


def _misplaced(answer: str, context: str) -> str | None:
    start, text = parts(answer)
    if start is None:
        return f"answer {answer!r:.60} has no place: give its text, and the character at which it starts"
    if not text.strip():
        return "an answer is empty: an empty list says that the context has none"
    if start < 0 or context[start:start + len(text)] != text:
        found = context.find(text)
        where = f"it is at {found}" if found >= 0 else "it is nowhere in it"
        return f"answer {text[:60]!r} is not in the context at character {start}: {where}"
    return None


def _rates(sums: np.ndarray, mixed: bool) -> dict[str, float]:
    """F1 and exact match of all rows; where some have an answer and some have none, of either kind too."""
    (there, f1_there, exact_there), (none, f1_none, exact_none) = sums.reshape(2, 3)
    total = there + none
    rates = {"f1": float((f1_there + f1_none) / total), "exact_match": float((exact_there + exact_none) / total)}
    if mixed:
        rates |= {"answered_f1": float(f1_there / there) if there else 0.0,
                  "answered_exact_match": float(exact_there / there) if there else 0.0,
                  "impossible_found": float(exact_none / none) if none else 0.0}
    return rates
