"""Answers as data has them become texts, the character at which one starts before it; SQuAD's articles, rows.

Knows nothing about files.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_START = ("start", "answer_start")
_WITHIN = ("paragraphs", "qas")


def canonical(found: Any) -> list[str] | None:
    """A row's answers as texts `START TEXT`: from objects with a text and a start, or one with a list of either."""
    if found is None:
        return None
    if isinstance(found, Mapping):
        starts: Any = next((found[name] for name in _START if found.get(name) is not None), [])
        texts = found.get("text") or []
        one = isinstance(texts, str)
        pairs = zip([texts] if one else texts, [starts] if one else starts, strict=False)
        return [f"{start} {text}" for text, start in pairs]
    if isinstance(found, str):
        return [found]
    return [_text(answer) for answer in found]


def _text(answer: Any) -> str:
    if not isinstance(answer, Mapping):
        return str(answer)
    start = next((answer[name] for name in _START if answer.get(name) is not None), "?")
    return f"{start} {answer.get('text') or ''}"


def parts(answer: str) -> tuple[int | None, str]:
    """Start and text of an answer; None where it has no start."""
    start, _, text = answer.partition(" ")
    return (int(start) if start.removeprefix("-").isdecimal() else None), text


def are_several(row: Any) -> bool:
    """Whether a row is an article or a paragraph, with questions in it."""
    return isinstance(row, Mapping) and any(isinstance(row.get(name), list) for name in _WITHIN)


def questions(rows: Iterable[Any]) -> Iterator[Any]:
    """Rows; of each of SQuAD's articles, and of each of its paragraphs, all questions, with their context."""
    for row in rows:
        if not are_several(row):
            yield row
            continue
        yield from questions(row.get("paragraphs") or ())
        for asked in row.get("qas") or ():
            impossible = str(asked.get("is_impossible", "false")).lower() == "true"
            yield {**asked, "context": row.get("context"), "answers": [] if impossible else asked.get("answers")}
