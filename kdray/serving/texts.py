"""A user's file, or the test split of a package's corpus, becomes inputs of the inference protocol.

Knows nothing about models.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from kdray.config import DataConfig
from kdray.corpus.pieces import whole
from kdray.corpus.reading import kind_of
from kdray.corpus.rows import Rows
from kdray.corpus.sources import read_splits
from kdray.errors import DataError
from kdray.storage import artefact
from kdray.tasks import Row, Task

_SHOWN = 60


def read_texts(file: str, task: Task, columns: dict[str, str]) -> list[Any]:
    """The inputs in a file: rows of the task's columns, named as in `columns`, or one text a line.

    Labels are not needed, and lines without a text are left out. Raises DataError where there is no text, or no file.
    """
    if kind_of(file) and not file.lower().endswith(".txt"):
        found = _from_rows(file, task, columns)
    else:
        found = [line.strip() for line in _lines(file) if line.strip()]
    if not found:
        raise DataError(f"{file} holds no text. Give one text a line, or rows with the columns that the run's data had")
    return found


def split_texts(package: str, manifest: dict[str, Any], task: Task) -> list[Any]:
    """The test split of the corpus that the package at a URI was made from. Raises DataError where it is gone."""
    found, key = artefact(package, "packages"), manifest.get("lineage", {}).get("corpus")
    try:
        if found is None or key is None:
            raise FileNotFoundError
        rows = Rows.open(found[0].fetch("corpus", key), "test")
    except FileNotFoundError:
        raise DataError(f"the corpus that {package} was made from is not in its storage: give texts of your own "
                        "(--texts FILE)") from None
    return rows.items(task)


def spread(items: list[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, most, dtype=int)]


def _from_rows(file: str, task: Task, columns: dict[str, str]) -> list[Any]:
    unlabelled = SimpleNamespace(
        label_column=task.label_column, labelled=task.labelled, plain=task.plain,
        columns={name: needed for name, needed in task.columns.items() if name != task.label_column})
    source = DataConfig(source=file, columns={name: column for name, column in columns.items()
                                              if name in unlabelled.columns})
    rows = whole(read_splits(source, cast(Task, unlabelled))["train"]).to_pylist()
    return [_item(row, task) for row in rows if all(row.values())]


def _item(row: Row, task: Task) -> Any:
    """The input; words that a file without lists holds as one text are that text."""
    texts = [value for name, value in row.items() if task.columns[name]]
    if len(row) == 1 and isinstance(texts[0], str):
        return texts[0]
    try:
        return task.item(row)
    except ValueError as error:
        raise DataError(f"{str(row)[:_SHOWN]}...: {error}") from error


def _lines(file: str) -> list[str]:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8: {error.reason} at byte {error.start}. Save it as UTF-8") from error
