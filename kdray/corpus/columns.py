"""What a file, a dataset or a function holds becomes the task's columns, as text.

Knows nothing about where rows come from, nor about what labels and tokens mean.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from kdray.config import DataConfig
from kdray.corpus.oddities import Oddity, Told, unheard
from kdray.corpus.spans import SPANS, TEXT, are_spans, unwrapped, words_and_tags
from kdray.corpus.values import as_text, separated, texts_of
from kdray.errors import DataError
from kdray.tasks import Task
from kdray.tasks.squad import questions

_CHUNK = 1 << 16
"""Rows that are Python objects at a time."""

Asked = dict[str, tuple[str, ...]]
"""Task columns, and what each may be called in the data, likeliest first."""


@dataclass(frozen=True)
class Raw:
    """Rows as they were read."""

    rows: int
    table: pa.Table
    """Those of the columns that were asked for that are there, under these names."""
    names: Sequence[str]
    """All columns that are there."""
    numbered: bool = False
    """Whether columns can be asked for by number."""


def asked(split: str, data: DataConfig, task: Task) -> Asked:
    """What to look for in the rows of a split; those without labels (`transfer`) need none.

    A column that must be there may also be called by its number among these, as those of rows that are lists are.
    """
    other: dict[str, tuple[str, ...]] = {"tokens": (TEXT,), "tags": SPANS}
    for number, name in enumerate(_needed(split, task)):
        other[name] = (*other.get(name, ()), str(number))
    return {name: (data.columns[name],) if name in data.columns else (name, *other.get(name, ()))
            for name in _columns(split, task)}


def _columns(split: str, task: Task) -> list[str]:
    return [name for name in task.columns if split != "transfer" or name != task.label_column]


def _needed(split: str, task: Task) -> list[str]:
    return [name for name in _columns(split, task) if task.columns[name]]


def chosen(columns: Asked, names: Iterable[str]) -> list[str]:
    """Those of `names` that are asked for, one a task column."""
    there = set(names)
    found = [next((name for name in known if name in there), None) for known in columns.values()]
    return list(dict.fromkeys(name for name in found if name is not None))


def of_table(table: pa.Table, columns: Asked) -> Raw:
    """A table's columns that are asked for."""
    return Raw(table.num_rows, table.select(chosen(columns, table.column_names)), table.column_names)


def of_columns(columns_there: Mapping[str, Iterable[Any]], columns: Asked) -> Raw:
    """Columns that are asked for, of Python values. Raises what Arrow does where they are not equally long."""
    names = list(columns_there)
    table = pa.table({name: texts_of(list(columns_there[name])) for name in chosen(columns, names) or names[:1]})
    return Raw(table.num_rows, table.select(chosen(columns, names)), names)


def of_rows(rows: Iterable[Any], columns: Asked) -> Raw:
    """The columns that are asked for of rows: mappings, or lists, whose columns are numbers from 0.

    Numbers in them become text. Raises TypeError where a row or a value is none of these.
    """
    found = map(_mapping, map(unwrapped, rows) if "tokens" in columns else
                questions(rows) if "context" in columns else rows)
    first = next(found, None)
    if first is None:
        return Raw(0, pa.table({}), ())
    count, table = _in_chunks(chain([first], found), expected(columns, first))
    return those_there(count, table, columns, first)


def expected(columns: Asked, first: Iterable[str]) -> list[str]:
    """Columns to look for in all rows: those of the `first` that are asked for, and what the others may be called."""
    sure = chosen(columns, first)
    perhaps = [name for known in columns.values() if not set(known) & set(sure) for name in known]
    return list(dict.fromkeys([*sure, *perhaps]))


def those_there(rows: int, table: pa.Table, columns: Asked, first: Iterable[str]) -> Raw:
    """A table with the columns `expected` without those that are in no row."""
    there = [*first, *(name for name in table.column_names if table.column(name).null_count < rows)]
    return Raw(rows, table.select(chosen(columns, [name for name in there if name in table.column_names])),
               list(dict.fromkeys(there)))


def task_columns(raw: Raw, split: str, data: DataConfig, task: Task, where: str, told: Told = unheard) -> pa.Table:
    """The task's columns of what was read `where`, under the task's names, as text.

    Rows without labels (`transfer`) need not have that of the labels, nor, of a task that learns from none, those to
    train on what only measures. Raises DataError where a column is missing or no text.
    """
    columns = {name: raw.table.column(source)
               for name, source in _found(raw, split, data, task, where, told).items()}
    if _are_texts(columns, split):
        columns |= words_and_tags(columns["tokens"].to_pylist(),
                                  columns["tags"].to_pylist() if "tags" in columns else None, where, told)
    columns = task.plain(columns)
    if data.separator is not None and task.label_column in columns:
        columns[task.label_column] = separated(columns[task.label_column], data.separator)
    return pa.table({name: as_text(column, f"{name} of the {split} split") for name, column in columns.items()})


def _found(raw: Raw, split: str, data: DataConfig, task: Task, where: str, told: Told) -> dict[str, str]:
    """What the data calls each of the task's columns that is there."""
    names, needed = dict[str, str](), _needed(split, task)
    for name, known in asked(split, data, task).items():
        found = chosen({name: known}, raw.table.column_names)
        if found and (name in data.columns or not found[0].isdecimal() or len(raw.names) == len(needed)):
            names[name] = found[0]
        elif name not in needed and split == "train" and not task.labelled and name in data.columns:
            told(Oddity(f"the train split has no column {known[0]!r} for {name}; its rows go without", where,
                        level=logging.INFO))
        elif name in needed or name in data.columns:
            numbers = ", ".join(f"{name}: {number}" for number, name in enumerate(needed))
            raise DataError(f"the {split} split has no column {known[0]!r} for {name}, only {', '.join(raw.names)} "
                            f"({where}). Map it: data.columns.{name}: COLUMN" + (
                                ". Where that is a row, and there is no header, number the columns: data.columns: "
                                f"{{{numbers}}}" if raw.numbered else ""))
    if numbered := [f"{name} is {found}" for name, found in names.items()
                    if found.isdecimal() and name not in data.columns]:
        told(Oddity(f"columns are numbers, and are taken in their order: {', '.join(numbered)}", where,
                    level=logging.INFO))
    return names


def _are_texts(columns: Mapping[str, Any], split: str) -> bool:
    """Whether there are texts to cut into words, with spans instead of tags or without labels."""
    if "tokens" not in columns or not _is_text(columns["tokens"].type):
        return False
    return are_spans(columns["tags"].type) if "tags" in columns else split == "transfer"


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, dict):
        return row
    if isinstance(row, (list, tuple)):
        return {str(number): value for number, value in enumerate(row)}
    raise TypeError(f"a row must be an object with columns or a list of them, not {row!r:.60}")


def _in_chunks(rows: Iterator[Mapping[str, Any]], names: list[str]) -> tuple[int, pa.Table]:
    """The number of rows, and their columns."""
    count, tables = 0, list[pa.Table]()
    while batch := list(islice(rows, _CHUNK)):
        count += len(batch)
        tables.append(pa.table({name: texts_of([row.get(name) for row in batch]) for name in names}))
    return count, pa.concat_tables(tables, promote_options="permissive")
