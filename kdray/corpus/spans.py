"""Texts with character spans, as annotation tools export them, become words with IOB2 tags.

Words are those that are served. Knows nothing about files.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from kdray.corpus.oddities import Oddity, Told
from kdray.errors import DataError
from kdray.tasks.schemes import OUTSIDE
from kdray.tasks.token_classification import words_of

TEXT = "text"
"""What such a text is called by the tools (Doccano, Label Studio), and what its spans are."""
SPANS = ("label", "labels", "entities", "spans")
_START, _END, _KIND = ("start", "start_offset"), ("end", "end_offset"), ("label", "labels", "tag", "type")
_SHOWN = 60
Span = tuple[int, int, str]
"""First character, the one after the last, and what it is."""


def are_spans(kind: pa.DataType) -> bool:
    """Whether a column holds lists of spans, and not of tags."""
    many = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return many and (pa.types.is_nested(kind.value_type) or pa.types.is_null(kind.value_type))


def words_and_tags(texts: Iterable[str | None], spans: Iterable[list[Any] | None] | None, where: str,
                   told: Told) -> dict[str, pa.Array]:
    """Columns `tokens` and, with `spans`, `tags`; a word that a span cuts is all in it.

    Raises DataError, which names `where`, where a span is none or outside its text.
    """
    cut = [(text or "", words_of(text or "")) for text in texts]
    columns = {"tokens": pa.array([[word for word, _, _ in words] for _, words in cut], pa.list_(pa.string()))}
    if spans is not None:
        tags = [those if those is None else _tagged(text, words, [_span(each, where) for each in those], where, told)
                for (text, words), those in zip(cut, spans, strict=True)]
        columns["tags"] = pa.array(tags, pa.list_(pa.string()))
    return columns


def unwrapped(row: Any) -> Any:
    """A row of Label Studio's whole export as one with its text and `label`; any other row as it is."""
    if not (isinstance(row, dict) and isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)):
        return row
    done = [each for each in row["annotations"] if str(each.get("was_cancelled", "false")).lower() != "true"]
    results = done[0].get("result", []) if done else []
    return {**row["data"], SPANS[0]: [each["value"] for each in results if "start" in each.get("value", ())]}


def _tagged(text: str, words: list[tuple[str, int, int]], spans: list[Span], where: str, told: Told) -> list[str]:
    tags, starts, ends = [OUTSIDE] * len(words), [word[1] for word in words], [word[2] for word in words]
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not 0 <= start < end <= len(text):
            raise DataError(f"{where}: the span [{start}, {end}, {kind}] is not within its text of {len(text)} "
                            f"characters ({text[:_SHOWN]!r}...)")
        first, after = bisect_right(ends, start), bisect_left(starts, end)
        shown = f"{where}, {text[start:end][:_SHOWN]!r} in {text[:_SHOWN]!r}"
        if first == after:
            told(Oddity("{count} spans hold no word and are left out", shown))
        elif any(tag != OUTSIDE for tag in tags[first:after]):
            told(Oddity("{count} spans overlap with one before them and are left out: a word has one tag", shown))
        else:
            if starts[first] < start or ends[after - 1] > end:
                told(Oddity("{count} spans begin or end within a word: all of the word is taken", shown))
            tags[first:after] = [f"B-{kind}", *[f"I-{kind}"] * (after - first - 1)]
    return tags


def _span(found: Any, where: str) -> Span:
    """A span as tools write it: [start, end, label], or an object with these."""
    try:
        if isinstance(found, Mapping):
            start, end, kind = (next(found[name] for name in names if found.get(name) is not None)
                                for names in (_START, _END, _KIND))
        else:
            start, end, kind = found
        return int(start), int(end), str(kind[0] if isinstance(kind, list) else kind)
    except (StopIteration, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{where}: {found} is no span: give [start, end, label], or an object with these names"
                        ) from error
