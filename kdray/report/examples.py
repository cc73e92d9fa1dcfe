"""Predictions on the test split become the rows on which teacher and winner differ most. Knows nothing about models."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.corpus.rows import Rows
from kdray.tasks import Row, Task

_MOST = 20
_CHARACTERS = 300
_WORDS = 20
"""Words shown on each side of the one that is meant."""


def most_different(predictions: Path, rows: Rows, task: Task, labels: list[str]) -> list[dict[str, Any]]:
    """The 20 rows with the largest KL(teacher || winner) at any unit, largest first; rows are those of the split.

    An example has `row`, its text in `parts`, the index of the part that is meant in `mark` (None: all), `divergence`
    in nats, the label `truth`, and {label, right, confidence} of `teacher` and `winner` there.
    """
    table = pa.ipc.open_file(str(predictions)).read_all()
    largest = _largest(table.column("divergence").combine_chunks())
    order = np.argsort(-largest, kind="stable")[:_MOST]
    said, raw = table.take(order).to_pylist(), rows.raw(task).take(order).to_pylist()
    return [{"row": int(row), **_text(task, source, unit := int(np.nanargmax(found["divergence"]))),
             "divergence": float(largest[row]), "truth": _told(task, source, found, "gold", unit, labels),
             **{name: _said(task, source, found, name, unit, labels) for name in ("teacher", "winner")}}
            for row, found, source in zip(order, said, raw, strict=True) if np.isfinite(largest[row])]


def _said(task: Task, source: Row, found: dict[str, Any], name: str, unit: int, labels: list[str]) -> dict[str, Any]:
    """What a model says of a unit: its label; whether it is right and how sure it is, where that can be known."""
    label, sure = _told(task, source, found, name, unit, labels), found[f"{name}_confidence"][unit]
    right = {"right": label == _told(task, source, found, "gold", unit, labels)} if task.output.whole else {}
    return {"label": label, **right, **({"confidence": sure} if sure == sure else {})}


def _told(task: Task, source: Row, found: dict[str, Any], name: str, unit: int, labels: list[str]) -> str:
    """What is true of a unit, or was decided of it, as text."""
    each = [-1] if task.output.shape(len(labels)) else []
    decided = np.array(found[name]).reshape(len(found["divergence"]), *each)
    (said,) = task.output.told(decided[unit:unit + 1], labels)
    return task.say(said, source)


def _largest(lists: pa.ListArray) -> np.ndarray:
    """The largest of each list's numbers, -inf where it has none."""
    offsets, found = lists.offsets.to_numpy(), np.full(len(lists), -np.inf)
    filled = np.diff(offsets) > 0
    values = np.nan_to_num(lists.values.to_numpy(zero_copy_only=False), nan=-np.inf)
    found[filled] = np.maximum.reduceat(values, offsets[:-1][filled]) if filled.any() else found[filled]
    return found


def _text(task: Task, source: Row, unit: int) -> dict[str, Any]:
    """A row's words around `unit`, or the texts of its input, cut where they are long."""
    words = source.get("tokens")
    if words is None:
        item = task.item(source)
        return {"parts": [_cut(text) for text in (item.values() if isinstance(item, dict) else [item])], "mark": None}
    first, last = max(0, unit - _WORDS), unit + _WORDS + 1
    head, tail = ["…"] * (first > 0), ["…"] * (last < len(words))
    return {"parts": [*head, *words[first:last], *tail], "mark": unit - first + len(head)}


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"
