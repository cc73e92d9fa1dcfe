"""Files, a hub dataset, a folder or a function become pieces of the task's columns, by split.

Knows nothing about labels or tokens.
"""

import contextlib
import importlib
import io
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from kdray.config import DataConfig
from kdray.corpus.columns import Asked, Raw, asked, of_columns, of_rows, of_table, task_columns
from kdray.corpus.files import PATH_LIKE, file_pieces, file_splits, folder_pieces, is_file
from kdray.corpus.hub import load_splits, of_dataset, split_files
from kdray.corpus.naming import named_splits
from kdray.corpus.oddities import Oddity, tell
from kdray.corpus.pieces import Piece, cut_up
from kdray.corpus.reading import FORMATS, kind_of
from kdray.errors import DataError
from kdray.tasks import Task

logger = logging.getLogger("kdray")

Reader = Callable[[str], Sequence[Piece]]
"""Gives the pieces of a split, which is called so here."""


def read_splits(data: DataConfig, task: Task) -> dict[str, Sequence[Piece]]:
    """Pieces by split; a `source` without splits of its own is all `train`. Files are found, and read when a piece is.

    `transfer`, the rows without labels, has all columns but that of the labels. Raises DataError where a dataset,
    function or file is missing, or a column of what was read.
    """
    if data.source is None:
        return {split: _one(source, split, data, task) for split, source in data.places.items()}
    found = _of_source(data.source, data, task)
    return {**found, "transfer": _one(data.transfer, "transfer", data, task)} if data.transfer else found


def _of_source(source: str, data: DataConfig, task: Task) -> dict[str, Sequence[Piece]]:
    readers = _readers(source, data, task)
    names = named_splits(list(readers), data)
    return _with_labels({split: readers[name](split) for split, name in names.items()}, source, task)


def _one(source: str, split: str, data: DataConfig, task: Task) -> Sequence[Piece]:
    """The pieces of a source that has no splits of its own."""
    if is_file(source):
        return file_pieces(source, split, data, task)
    readers = _readers(source, data, task)
    if len(readers) != 1:
        remedy = "data.transfer is one table of rows" if split == "transfer" else "name it as data.source"
        raise DataError(f"{source} has splits of its own ({', '.join(readers)}): {remedy}")
    return next(iter(readers.values()))(split)


def _with_labels(found: dict[str, Sequence[Piece]], source: str, task: Task) -> dict[str, Sequence[Piece]]:
    """Without splits other than train whose labels are withheld, as in the test splits of benchmarks."""
    withheld = [split for split, pieces in found.items() if split != "train" and all(
        not any(piece.read().column(task.label_column).to_pylist()) for piece in pieces)]
    for split in withheld:
        logger.warning("the %s split of %s has no labels: it is left out, and cut off train instead", split, source)
    return {split: pieces for split, pieces in found.items() if split not in withheld}


def _readers(source: str, data: DataConfig, task: Task) -> Mapping[str, Reader]:
    """Readers of the splits of a source, by name. Raises DataError where there is none."""
    def held(read: Callable[[Asked], Raw]) -> Reader:
        return lambda split: _held(read, split, source, data, task)

    folder = Path(source).expanduser()
    if is_file(source):
        splits = {name: held(partial(of_rows, rows)) for name, rows in file_splits(source, data).items()}
        return splits or {"train": lambda split: file_pieces(source, split, data, task)}
    if source.startswith("package:"):
        return {"train": held(partial(_of_function, source, _from_function(source, data.arguments)))}
    if folder.is_dir() and not data.subset and (files := split_files(folder)) and all(
            kind_of(path) in FORMATS.values() for paths in files.values() for path in paths):
        return {name: partial(folder_pieces, source, paths, data=data, task=task) for name, paths in files.items()}
    if folder.is_dir() or not source.startswith(PATH_LIKE):
        return {name: held(partial(of_dataset, part)) for name, part in load_splits(source, data.subset).items()}
    raise DataError(f"{source} is neither a folder nor a file of a known kind ({', '.join(FORMATS)})")


def _held(read: Callable[[Asked], Raw], split: str, source: str, data: DataConfig, task: Task) -> Sequence[Piece]:
    """What is read at once as pieces."""
    raw, oddities = read(asked(split, data, task)), list[Oddity]()
    if raw.rows == 0:
        raise DataError(f"the {split} split is empty: {source} has no rows")
    table = task_columns(raw, split, data, task, source, oddities.append)
    tell(oddities)
    return cut_up(table)


def _from_function(source: str, arguments: dict[str, Any]) -> Any:
    """What the function returns; rows that it gives one by one as a list."""
    function, file = _function(source)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            rows = function(**arguments)
            one_by_one = isinstance(rows, Iterable) and not isinstance(rows, (pa.Table, Mapping, tuple, str))
            return list(rows) if one_by_one else rows
    except (Exception, SystemExit) as error:
        raise _blamed(source, error, file) from error


def _blamed(source: str, error: BaseException, file: str | None) -> DataError:
    """What is said of an error in a user's code: what it is and where, in `file` if there."""
    if isinstance(error, DataError):
        return error
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
              if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError):
        places.append((str(error.filename), error.lineno))
    own = [place for place in places if place[0] == file] or places
    where = f"{own[-1][0]}, line {own[-1][1]}" if own else "its arguments: data.arguments"
    return DataError(f"{source} raised {type(error).__name__}: {error} ({where})")


def _of_function(source: str, rows: Any, columns: Asked) -> Raw:
    try:
        if isinstance(rows, pa.Table):
            return of_table(rows, columns)
        if isinstance(rows, tuple):
            rows = {str(index): column for index, column in enumerate(rows)}
        return of_columns(rows, columns) if isinstance(rows, Mapping) else of_rows(rows, columns)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{source} returned {type(rows).__name__}, not rows: it must return a list of dicts, a dict "
                        f"of equally long columns, an Arrow table, or a tuple of columns named 0, 1, ... ({error})"
                        ) from error


def _function(source: str) -> tuple[Callable[..., Any], str | None]:
    """What `package:MODULE:FUNCTION` names, and its module's file. Raises DataError where there is none, or it is
    Python's own."""
    parts = source.split(":")
    if len(parts) != 3 or not all(map(str.isidentifier, parts[1].split("."))):
        raise DataError(f"{source} must look like package:MODULE:FUNCTION")
    _check_foreign(source, parts[1])
    try:
        module = importlib.import_module(parts[1])
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{parts[1]}.".startswith(f"{error.name}."):
            raise DataError(f"{source}: {error}. Put it beside the config, or install the package that holds it"
                            " (the quickstart's: pip install 'kdray[quickstart]')") from error
        raise _blamed(source, error, None) from error
    file, function = getattr(module, "__file__", None), getattr(module, parts[2], None)
    if not callable(function):
        raise DataError(f"{source}: module {parts[1]} ({file}) has no function {parts[2]}")
    written = getattr(function, "func", function)  # of functools.partial
    _check_foreign(source, getattr(written, "__module__", None) or "")
    return function, file


def _check_foreign(source: str, module: str) -> None:
    """A config is trusted as code is. But Python's own functions give no rows, whatever they do."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise DataError(f"{source} is a function of {module}, a part of Python itself: name one that returns rows")
