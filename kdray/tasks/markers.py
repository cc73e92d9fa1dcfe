"""A text and two spans of it become one text with markers around them, and spans again.

The markers are SemEval-2010's: `<e1>`, `</e1>` around the head, `<e2>`, `</e2>` around the tail. Each is a token of its
own. An opening one goes before the space in front of its entity, so that every tokenizer cuts what is between markers
as it would without them. Knows nothing about tokens.
"""

import re
from dataclasses import dataclass
from typing import Any

MARKERS = {"<e1>": "first entity start", "</e1>": "first entity end",
           "<e2>": "second entity start", "</e2>": "second entity end"}
"""Each, and words that say what it means."""
FORM = "<e1>...</e1> ... <e2>...</e2>"
_ROLES = {"head": ("<e1>", "</e1>"), "tail": ("<e2>", "</e2>")}
_MARKER = re.compile("|".join(MARKERS))
_APART = re.compile(r"[\W_]+")
_SHOWN = 60
Span = tuple[int, int]
"""First character, and the one after the last."""


@dataclass(frozen=True)
class Entities:
    """A text without markers, and where its entities are, without spaces at their ends."""

    text: str
    head: Span
    tail: Span


def marked(row: dict[str, Any]) -> str:
    """The text of a row with markers: those that it has, or at its `head` and `tail`, [start, end] or [.., .., type].

    A type is written in words before its entity, between asterisks (Zhou and Chen 2021, arXiv 2102.01373, typed entity
    marker without new tokens). Raises ValueError, which says what is wrong.
    """
    text, spans = row["text"], {role: row.get(role) for role in _ROLES}
    if all(span in (None, "", []) for span in spans.values()):
        found = entities(text)
        return _written(found.text, {"head": (found.head, ""), "tail": (found.tail, "")})
    if there := _MARKER.search(text):
        raise ValueError(f"text has the marker {there.group()} in it, beside head and tail: give spans or markers, and "
                         "not both")
    return _written(text, {role: _span(role, span, text) for role, span in spans.items()})


def entities(text: str) -> Entities:
    """The entities of a text with markers. Raises ValueError where they are not each there once, and in order."""
    found = list(_MARKER.finditer(text))
    names = [match.group() for match in found]
    for name in MARKERS:
        if names.count(name) != 1:
            raise ValueError(f"text has {'no' if name not in names else names.count(name)} {name}, and must have one: "
                             f"mark both entities, {FORM}")
    # What is before a marker counts all characters but those of the markers before it.
    places = {match.group(): match.start() - sum(map(len, names[:number])) for number, match in enumerate(found)}
    plain = unmarked(text)
    return Entities(plain, *(_stripped(plain, role, places[first], places[last])
                             for role, (first, last) in _ROLES.items()))


def unmarked(text: str) -> str:
    """The text without markers."""
    return _MARKER.sub("", text)


def _stripped(text: str, role: str, start: int, end: int) -> Span:
    first, last = _ROLES[role]
    if start > end:
        raise ValueError(f"{last} stands before {first}")
    mention = text[start:end]
    if not mention.strip():
        raise ValueError(f"{role} is empty: there is nothing between {first} and {last}")
    return start + len(mention) - len(mention.lstrip()), start + len(mention.rstrip())


def _span(role: str, said: Any, text: str) -> tuple[Span, str]:
    """A span and its type from what a row says. Raises ValueError where it is none, or not within the text."""
    if said in (None, "", []):
        raise ValueError(f"{role} is missing: give its span, or mark both entities in the text, {FORM}")
    parts = re.split(r"[\s,]+", said.strip("[]() ")) if isinstance(said, str) else said
    try:
        start, end, kind = [*parts, ""] if len(parts) == 2 else parts
        start, end = _whole(start), _whole(end)
    except (TypeError, ValueError):
        raise ValueError(f"{role} {said!r:.{_SHOWN}} is no span: give [first character, the one after the last], or "
                         "these and a type") from None
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"{role} [{start}, {end}] is not within its text of {len(text)} characters")
    if not text[start:end].strip():
        raise ValueError(f"{role} [{start}, {end}] is empty: the text has {text[start:end]!r} there")
    return _stripped(text, role, start, end), _APART.sub(" ", str(kind or "")).strip().lower()


def _whole(number: Any) -> int:
    if isinstance(number, (bool, float)):
        raise TypeError
    return int(number)


def _written(text: str, spans: dict[str, tuple[Span, str]]) -> str:
    """At one place, closing markers are before opening ones; what holds the other is outside."""
    marks = []
    for number, (role, ((start, end), kind)) in enumerate(spans.items()):
        first, last = _ROLES[role]
        before = start - text[start - 1:start].isspace()
        typed = f" * {kind} *{'' if before < start else ' '}" if kind else ""
        marks += [(before, 1, -end, number, first + typed), (end, 0, -start, -number, last)]
    parts, done = [], 0
    for place, *_, mark in sorted(marks):
        parts += [text[done:place], mark]
        done = place
    return "".join([*parts, text[done:]])
